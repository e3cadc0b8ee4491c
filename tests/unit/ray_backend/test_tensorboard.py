import errno
import logging
import os
import struct
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tensorboardX.proto.event_pb2 import Event as Record

from tune_cure.evaluation.names import EPOCH_METRICS
from tune_cure.ray_backend.monitoring.tensorboard import TensorBoard


def records(folder: Path) -> list[Record]:
    """What TensorBoard would read in a folder: records with their length before, and two checksums."""
    found = []
    for file in sorted(folder.glob("events.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            record = Record()
            record.ParseFromString(content[12 : 12 + length])
            found.append(record)
            content = content[16 + length :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    values = [(record.step, value) for record in records(folder) for value in record.summary.value]
    return {(value.tag, step): value.simple_value for step, value in values if value.HasField("simple_value")}


def epoch(number: int, **metrics: Any) -> dict[str, Any]:
    return {"event": "epoch", "trial": 17, "time": 1e9, **dict.fromkeys(EPOCH_METRICS), "epoch": number, **metrics}


def test_curves_that_cannot_be_written_are_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    board = TensorBoard(tmp_path)
    with caplog.at_level(logging.WARNING):
        board.on_event({"event": "trial", "trial": 17, "time": 1e9, "hyperparameters": {"h": 1.5}})
        board.on_event(epoch(1, pgd_accuracy=0.25, pgd_accuracy_best=0.25))
        board.close()
    (record,) = caplog.records
    assert "TensorBoard's curves end here: Not a directory" in record.getMessage()


def test_curves_end_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tune_cure.ray_backend.monitoring.tensorboard.os.fsync", full)
    board = TensorBoard(tmp_path)
    board.on_event(epoch(1, pgd_accuracy=0.25, pgd_accuracy_best=0.25))
    board.close()
    assert list((tmp_path / "tensorboard" / "trial_00017").iterdir())


def test_every_trial_has_its_curves_and_its_hyperparameters(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.on_event({"event": "trial", "trial": 17, "time": 1e9, "hyperparameters": {"h": 1.5, "optimizer": "sgd"}})
    board.on_event(epoch(1, pgd_accuracy=0.25, pgd_accuracy_best=0.25, catastrophic_overfitting=False))
    board.on_event(epoch(2, pgd_accuracy=None, pgd_accuracy_best=0.25))
    board.on_event({"event": "checkpoint", "trial": 17, "time": 1e9, "epoch": 1, "path": "x"})
    board.on_event({"event": "end", "trial": 17, "time": 1e9, "status": "diverged", "reason": ""})
    folder = tmp_path / "tensorboard" / "trial_00017"
    assert scalars(folder) == {
        ("pgd_accuracy", 1): 0.25,
        ("pgd_accuracy_best", 1): 0.25,
        ("pgd_accuracy_best", 2): 0.25,
        ("catastrophic_overfitting", 1): 0.0,
    }
    assert not board.writers
    assert ("hparam/pgd_accuracy_best", 0) in scalars(folder / "hyperparameters")
    plugin = b"".join(r.SerializeToString() for r in records(folder / "hyperparameters"))
    assert b"optimizer" in plugin


def test_a_search_that_goes_on_adds_to_the_curves(tmp_path: Path) -> None:
    for number in (1, 2):
        board = TensorBoard(tmp_path)
        board.on_event(epoch(number, curvature=float(number)))
        board.close()
        (file,) = (tmp_path / "tensorboard" / "trial_00017").glob("events.out*")
        file.rename(file.with_name(f"events.{number}"))  # their names hold the second
    assert scalars(tmp_path / "tensorboard" / "trial_00017") == {("curvature", 1): 1.0, ("curvature", 2): 2.0}
    board.on_event({"event": "end", "trial": 3, "time": 1e9, "status": "failed", "reason": ""})  # before any epoch
