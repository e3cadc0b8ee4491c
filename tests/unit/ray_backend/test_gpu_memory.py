import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.data.splits import Splits
from tune_cure.ray_backend.gpus import memory as gpu_memory
from tune_cure.ray_backend.gpus.memory import GIB, largest, measure, peak_memory, wait_for_memory
from tune_cure.ray_backend.resources import Machine, ResourcePlan, plan_resources
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
    seen: list[Any] = []

    class Fake(gpu_memory.Trainer):
        def __init__(self, config: Any, splits: Any, **options: Any) -> None:
            seen.append(splits)
            assert config.lambda_schedule == "constant"  # the first epoch has the penalty
            super().__init__(config, splits, **{**options, "device": "cpu"})

    monkeypatch.setattr(gpu_memory, "Trainer", Fake)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    splits = data.load(spec.data)
    assert peak_memory(spec, splits, {**WORST, "batch_size": 64, "lambda_schedule": "ramp"}) == 123
    assert len(seen[0].train) == 3 * 64
    assert seen[0].train.images is splits.train.images


@pytest.mark.parametrize("replays", [False, True])  # the copies with which a recording is checked are the host's
def test_a_memory_of_each_image_counts_for_all_images(
    replays: bool, spec: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake(gpu_memory.Trainer):
        def __init__(self, config: Any, splits: Any, **options: Any) -> None:
            super().__init__(config, splits, **{**options, "device": "cpu"})

        def evaluate(self) -> dict[str, Any]:
            self.graphed_step = replays  # as on a GPU where steps are recorded
            return {}

    monkeypatch.setattr(gpu_memory, "Trainer", Fake)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    splits = data.load(spec.data)
    others = len(splits.train) - 3 * 64
    found = peak_memory(spec, splits, {**WORST, "batch_size": 64, "attack": "fgsm_pgi"})
    assert found == 123 + 8 * others * splits.train.images[0].numel()


def test_a_trial_larger_than_the_gpu_is_one_line(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(gpu_memory, "Trainer", full)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    with pytest.raises(gpu_memory.DeviceError, match="not even one trial fits") as raised:
        peak_memory(spec, data.load(spec.data), WORST)
    assert "'batch_size': 128" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_of_given_configurations_the_largest_is_measured(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        """A trial whose memory is its batch size."""

        terms = SimpleNamespace(attack=SimpleNamespace(memory_bytes=lambda shape: 0))
        graphed_step = None

        def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
            peaks.append(config.batch_size)

        def train_epoch(self) -> None: ...

        def evaluate(self) -> None: ...

    peaks: list[int] = []
    monkeypatch.setattr(gpu_memory, "Trainer", Fake)
    monkeypatch.setattr(Splits, "to", lambda self, device: self)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: peaks[-1])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (800, 1000))
    configs = {name: spec.training_config({"batch_size": size}) for name, size in (("a", 32), ("b", 64), ("c", 48))}
    measured, config = measure(spec, pickled=pickle.dumps(configs))
    assert (measured.total, measured.trial) == (1000, 64 + 1000 - 800 - 100)
    assert measured.hyperparameters == {"configuration": "b"}
    assert config == configs["b"]


@pytest.fixture
def plan(tmp_path: Path) -> ResourcePlan:
    """Two trials at a time on a GPU, of 9 of 20 GiB each."""
    return plan_resources(tiny(tmp_path, "resources.gpus_per_trial=0.5", "resources.concurrent=auto"), [Machine(16, 1)])


def free_memory(monkeypatch: pytest.MonkeyPatch, *free_gib: float) -> None:
    """Let a GPU of 20 GiB have so much free memory at each look; the last number stays."""
    left = list(free_gib)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda: (int(GIB * (left.pop(0) if len(left) > 1 else left[0])), 20 * GIB)
    )
    monkeypatch.setattr(gpu_memory, "WAIT_POLL_SECONDS", 0.001)


def test_a_trial_starts_at_once_where_its_part_of_the_gpu_is_free(
    plan: ResourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_memory(monkeypatch, 9)
    assert wait_for_memory(plan, lambda: pytest.fail("waits")) == ""


def test_a_trial_waits_for_the_memory_of_the_one_before_and_says_so(
    plan: ResourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_memory(monkeypatch, 1, 1, 8.9, 9)
    told: list[int] = []
    assert wait_for_memory(plan, lambda: told.append(1)) == "waited 0 s for 9 GiB of the GPU's memory"
    assert told == [1]


def test_a_trial_whose_part_of_the_gpu_is_never_free_starts_after_a_while_and_says_so(
    plan: ResourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_memory(monkeypatch, 2)
    monkeypatch.setattr(gpu_memory, "WAIT_SECONDS", 0.01)
    assert wait_for_memory(plan) == (
        "waited 0 s for 9 GiB of the GPU's memory, of which 2 GiB are free; it starts all the same"
    )


def test_a_trial_on_the_cpu_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: pytest.fail("starts CUDA"))
    assert wait_for_memory(None) == ""
    assert wait_for_memory(plan_resources(tiny(tmp_path), [Machine(4, 0)])) == ""
