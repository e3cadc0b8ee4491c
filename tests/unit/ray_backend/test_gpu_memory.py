from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.ray_backend.gpu_memory import largest, measure, peak_memory
from tune_cure.search.space.config import SearchSpec

WORST = {"batch_size": 128, "penalty_every": 1, "optimizer": "adam", "delta": "gradalign"}


@pytest.fixture
def spec(tmp_path: Path) -> SearchSpec:
    return tiny(
        tmp_path,
        "start_from=[]",
        "training={epochs: 4}",
        "space={batch_size: {int: [32, 128]}, penalty_every: {int: [1, 4]}, optimizer: {choice: [sgd, adam]}, "
        "delta: {choice: [none, gradalign, classic]}}",
    )


def test_the_largest_configuration_is_found_by_trying_each_choice(spec: SearchSpec) -> None:
    tried: list[dict[str, Any]] = []

    def peak(values: dict[str, Any]) -> int:
        tried.append(values)
        penalty = {"none": 0, "classic": 5, "gradalign": 9}[values["delta"]] // values["penalty_every"]
        return int(values["batch_size"] * (1 + penalty) + {"sgd": 10, "adam": 20}[values["optimizer"]])

    values, most = largest(spec, peak)
    assert values == WORST
    assert most == 128 * 10 + 20
    assert len(tried) == 1 + 1 + 2  # not every combination


def test_a_measurement_trains_and_judges_a_few_batches_with_all_images_on_the_device(
    spec: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logic on the CPU, where the device's own numbers are faked."""
    from tune_cure.ray_backend import gpu_memory

    seen: list[Any] = []

    class Fake(gpu_memory.Trainer):
        def __init__(self, config: Any, splits: Any, **options: Any) -> None:
            seen.append(splits)
            super().__init__(config, splits, **{**options, "device": "cpu"})

    monkeypatch.setattr(gpu_memory, "Trainer", Fake)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    splits = data.load(spec.data)
    assert peak_memory(spec, splits, {**WORST, "batch_size": 64}) == 123
    assert len(seen[0].train) == 3 * 64
    assert seen[0].train.images is splits.train.images


def test_a_trial_larger_than_the_gpu_is_one_line(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from tune_cure.ray_backend import gpu_memory

    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(gpu_memory, "Trainer", full)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    with pytest.raises(gpu_memory.DeviceError, match="not even one trial fits") as raised:
        peak_memory(spec, data.load(spec.data), WORST)
    assert "'batch_size': 128" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
def test_a_trial_of_digits_takes_a_small_part_of_a_gpu(spec: SearchSpec) -> None:
    measured = measure(spec)
    assert 0 < measured.trial < measured.total / 2
    assert measured.hyperparameters["batch_size"] == 128
