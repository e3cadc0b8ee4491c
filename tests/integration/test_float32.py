"""Exact float32 in processes of their own: torch does not forget which of its two ways of setting this was used."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("setting", ["", "high", "medium", "new"])
def test_evaluation_uses_exact_float32_whatever_precision_the_process_is_set_to(setting: str) -> None:
    program = f"""
import torch
from tune_cure.evaluation.metrics import exact_evaluation
if {setting!r} in ("high", "medium"):
    torch.set_float32_matmul_precision({setting!r})
if {setting!r} == "new":
    torch.backends.fp32_precision = "tf32"
cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
operations = cudnn.conv, cuda.matmul, mkldnn.conv, mkldnn.matmul
before = [operation.fp32_precision for operation in operations]
with exact_evaluation(torch.nn.Flatten()):
    assert [operation.fp32_precision for operation in operations] == ["ieee"] * 4
    # What torch itself asks before it multiplies matrices: an error where its settings contradict each other.
    assert not cuda.matmul.allow_tf32 and not cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
assert [operation.fp32_precision for operation in operations] == before
if {setting!r} in ("high", "medium"):
    assert torch.get_float32_matmul_precision() == {setting!r}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
