"""The Triton kernels can be compiled for GPUs, which takes no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_compile_and_read_16_bytes_at_a_time(capability: str, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    process = subprocess.run(
        [sys.executable, "-m", "tests.support.compiled_kernels", capability, "fp16", "bf16", "fp32"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not process.stderr
    assert process.stdout.splitlines() == [
        f"{kernel} {data_type} compiled wide"
        for kernel in ("_sum_kernel", "_derivatives_kernel")
        for data_type in ("fp16", "bf16", "fp32")
    ]
