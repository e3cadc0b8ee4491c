import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tune_cure.reports import html_page
from tune_cure.utils import environment
from tune_cure.utils.environment import Environment


def test_a_record_that_was_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run_search.py", "--space", "a.yaml"])
    environment.write(tmp_path, "digits")
    record = environment.read(tmp_path)

    assert record.content["data"] == "digits"
    assert record.content["command"].endswith("run_search.py --space a.yaml")
    assert record.content["versions"].keys() == {"python", *environment.PACKAGES}
    assert len(record.sessions) == 1 and record.damage == ""


def test_each_session_that_resumes_a_run_is_appended(tmp_path: Path) -> None:
    (tmp_path / environment.FILE).write_text('{"host": "first", "gpus": ["H100", "H100", "A100"]}')
    environment.write(tmp_path, "digits")
    environment.write(tmp_path, "digits")
    record = environment.read(tmp_path)

    assert record.sessions[0]["host"] == "first"
    assert len(record.sessions) == 3
    assert record.last_host == record.sessions[-1]["host"] != "first"
    assert record.devices == "2 × H100, 1 × A100"


SMI = "GPU-5a1b, NVIDIA H100 80GB HBM3\nGPU-77c2, NVIDIA A100-SXM4-40GB\n"
H100, A100, UNNAMED = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", environment.UNNAMED_GPU


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 2, [H100, A100]),
        ("1,0", 2, [A100, H100]),
        ("GPU-77", 1, [A100]),
        ("MIG-3f", 1, [UNNAMED]),
        ("7", 0, []),
        (None, 3, [H100, A100, UNNAMED]),
    ],
)
def test_gpus_are_named_in_cudas_order_without_starting_cuda(
    visible: str | None, count: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: Any) -> SimpleNamespace:
        assert command == ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
        return SimpleNamespace(stdout=SMI)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(environment, "_git_commit", lambda: None)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: pytest.fail("starts CUDA"))
    assert environment.describe("digits")["gpus"] == names


@pytest.mark.parametrize("error", [FileNotFoundError("nvidia-smi"), subprocess.TimeoutExpired("nvidia-smi", 20.0)])
def test_gpus_without_an_answer_of_nvidia_smi_are_counted(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert environment.gpu_names(2) == [UNNAMED, UNNAMED]


def test_a_missing_record_is_empty_and_no_damage(tmp_path: Path) -> None:
    assert environment.read(tmp_path) == Environment({}, "")


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b"3",
        b"[" * 100_000,
        b'{"a": "\n',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_a_damaged_record_says_so_and_is_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / environment.FILE).write_bytes(content)
    record = environment.read(tmp_path)

    assert record.content == {} and record.sessions == []
    assert record.last_host is None and record.devices == ""
    assert record.damage.startswith("environment.json is damaged: ") and "\n" not in record.damage
    assert "environment.json is damaged" in html_page.provenance_section(record)
    environment.write(tmp_path, "digits")  # the session goes on, with a record of its own
    assert environment.read(tmp_path).content["data"] == "digits"


@pytest.mark.parametrize(
    "content",
    [{"host": 3}, {"host": "a", "resumed": 3}, {"host": "a", "resumed": [3]}, {"gpus": 3, "cpus": "many"}, {}],
)
def test_values_of_unexpected_types_count_as_not_recorded(content: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / environment.FILE).write_text(json.dumps(content))
    record = environment.read(tmp_path)

    assert record.last_host is None
    assert record.devices == ""
    environment.write(tmp_path, "digits")
    assert environment.read(tmp_path).content


def test_texts_of_a_record_have_no_control_characters(tmp_path: Path) -> None:
    (tmp_path / environment.FILE).write_text('{"\\u001b[2J": "\\u202ea\\ud800", "gpus": ["a\\u0007"]}')
    assert environment.read(tmp_path).content == {r"\x1b[2J": r"\u202ea\ud800", "gpus": [r"a\x07"]}
