import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.spaces import tiny
from tune_cure.ray_backend import cluster
from tune_cure.ray_backend.gpus import sharing as gpu_sharing
from tune_cure.ray_backend.gpus.sharing import TimedRun, plan_devices
from tune_cure.ray_backend.guard import DeadRayError
from tune_cure.ray_backend.resources import Machine, MeasuredTrial
from tune_cure.search.space.config import SearchSpec

GIB = 2**30


@pytest.fixture
def spec(tmp_path: Path) -> SearchSpec:
    return tiny(tmp_path, "resources.gpus_per_trial=auto", "resources.concurrent=auto", "search.trials=20")


@pytest.fixture
def config(spec: SearchSpec) -> bytes:
    return pickle.dumps(spec.training_config(spec.start_from[0]))


def test_a_timed_run_says_how_many_images_a_second_it_trains_on(spec: SearchSpec, config: bytes) -> None:
    run = TimedRun(spec, config, None, device="cpu")
    assert 10 < run.images_per_second(0.01) < 1e7
    assert run.trainer is not None and run.trainer.epoch == 1  # however often it has gone through its images


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: out of memory"),  # as a process begins to use the GPU
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
    ids=["torch", "CUDA", "cuBLAS", "cuDNN"],
)
def test_a_timed_run_for_which_the_gpus_memory_is_too_small_makes_nothing(
    error: RuntimeError, spec: SearchSpec, config: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TimedRun(spec, config, None, device="cpu")

    def full(self: TimedRun) -> int:
        raise error

    monkeypatch.setattr(TimedRun, "_train", full)
    assert run.images_per_second(1) == 0
    assert TimedRun(spec, config, None, device="cpu").images_per_second(1) == 0


def test_another_error_of_a_timed_run_is_raised(
    spec: SearchSpec, config: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TimedRun(spec, config, None, device="cpu")

    def fail(self: TimedRun) -> int:
        raise RuntimeError("a layer is missing")

    monkeypatch.setattr(TimedRun, "_train", fail)
    for again in (lambda: run.images_per_second(1), lambda: TimedRun(spec, config, None, device="cpu")):
        with pytest.raises(RuntimeError, match="a layer is missing"):
            again()


class FakeRay:
    """Ray whose tasks and actors run at once in this process; the rates of runs at a time are given."""

    def __init__(self, measured: MeasuredTrial, rates: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured, self.rates, self.given = measured, rates, SimpleNamespace()
        self.bundles: list[dict[str, float]] = []
        self.shares: list[float] = []
        self.removed = 0
        self.lives = True
        monkeypatch.setattr(gpu_sharing.ray, "remote", self.remote)
        monkeypatch.setattr(gpu_sharing.ray, "is_initialized", lambda: self.lives)
        monkeypatch.setattr(gpu_sharing, "wait_for", self.wait_for)
        monkeypatch.setattr(gpu_sharing, "placement_group", self.bundles.extend)
        monkeypatch.setattr(gpu_sharing, "remove_placement_group", lambda group: setattr(self, "removed", 1))
        monkeypatch.setattr(gpu_sharing, "PlacementGroupSchedulingStrategy", SimpleNamespace)

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        def wrap(work: Any) -> Any:
            if work is TimedRun:
                self.shares.append(options["num_gpus"])
                actor = SimpleNamespace(images_per_second=SimpleNamespace(remote=lambda seconds: "run"))
                return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *given: actor))
            return SimpleNamespace(remote=self.measure)

        return wrap

    def measure(self, *given: Any) -> str:
        self.given = given
        return "measured"

    def wait_for(self, submissions: list[Callable[[], Any]]) -> list[Any]:
        references = [submit() for submit in submissions]
        if references == ["measured"]:
            return [(self.measured, "the largest configuration")]
        number = len(references)
        if number not in self.rates:
            self.lives = False
            raise DeadRayError("Ray has died")
        return [self.rates[number] / number] * number


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "machines", lambda: [Machine(16, 1)])


@pytest.mark.usefixtures("one_gpu")
def test_memory_and_throughput_of_one_two_and_three_runs_decide_how_many_share_a_gpu(
    spec: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(MeasuredTrial(24 * GIB, 2 * GIB, {}), {1: 1000, 2: 1300, 3: 1310}, monkeypatch)
    plan = plan_devices(spec, None)
    assert (plan.gpus_per_trial, plan.concurrent) == (0.5, 2)
    assert str(plan).endswith("1, 2 and 3 at a time train 1,000, 1,300 and 1,310 images a second in all, "
                              "so 2 share a GPU")  # fmt: skip
    assert ray.bundles == [{"GPU": 1, "CPU": 3}]  # all of them on one GPU
    assert ray.shares == [0.3333] * 3
    assert ray.removed


@pytest.mark.usefixtures("one_gpu")
def test_a_number_of_runs_that_does_not_fit_together_is_not_chosen(
    spec: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRay(MeasuredTrial(24 * GIB, 7 * GIB, {}), {1: 1000, 2: 1300, 3: 0}, monkeypatch)
    assert plan_devices(spec, None).gpus_per_trial == 0.5
    FakeRay(MeasuredTrial(24 * GIB, 7 * GIB, {}), {1: 0}, monkeypatch)
    assert plan_devices(spec, None).gpus_per_trial == 1


@pytest.mark.usefixtures("one_gpu")
def test_nothing_is_removed_from_a_ray_that_has_died(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(MeasuredTrial(24 * GIB, 2 * GIB, {}), {1: 1000}, monkeypatch)
    with pytest.raises(DeadRayError):
        plan_devices(spec, None)
    assert not ray.removed


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(("trial_gib", "trials"), [(20, 20), (2, 1)])
def test_throughput_is_not_measured_where_it_decides_nothing(
    trial_gib: int, trials: int, spec: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(MeasuredTrial(24 * GIB, trial_gib * GIB, {}), {}, monkeypatch)
    plan = plan_devices(spec, None, num_trials=trials, configs={"fgsm": spec.training_config({"lambda": 0.0})})
    assert plan.gpus_per_trial == 1
    assert ray.shares == []
    assert pickle.loads(ray.given[2])["fgsm"].lambda_ == 0


@pytest.mark.usefixtures("one_gpu")
def test_nothing_is_measured_where_no_network_is_trained(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sharing.ray, "remote", lambda **_: pytest.fail("measures"))
    assert plan_devices(spec, None, num_trials=5, configs={}).gpus_per_trial == 1


@pytest.mark.parametrize("machine", [Machine(16, 0), Machine(16, 2)])
def test_nothing_is_measured_without_a_gpu_or_with_a_share_that_is_given(
    machine: Machine, tmp_path: Path, spec: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "machines", lambda: [machine])
    monkeypatch.setattr(gpu_sharing.ray, "remote", lambda **_: pytest.fail("measures"))
    wanted = tiny(tmp_path, "resources.gpus_per_trial=0.25") if machine.gpus else spec
    assert plan_devices(wanted, None).measured is None
