import math
from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.ray_backend.resources import (
    DeviceError,
    Machine,
    MeasuredTrial,
    plan_resources,
    this_machine,
)
from tune_cure.search.progress import expected_epochs
from tune_cure.search.space.config import SearchSpec


def spec(folder: Path, *overrides: str) -> SearchSpec:
    return tiny(folder, "resources.concurrent=auto", *overrides)


@pytest.mark.parametrize(
    ("gpus_per_trial", "cpus_per_trial", "cpus", "gpus", "concurrent"),
    [
        (0, 1, 2, 0, 2),
        (0, 2, 5, 0, 2),
        (0.5, 2, 16, 1, 2),
        (0.1, 1, 16, 1, 10),
        (0.5, 4, 6, 8, 1),
        (1, 1, 8, 4, 4),
        (0.5, 1, 3, 0, 3),
        (0.4, 1, 16, 2, 4),  # two on each GPU: none is on both
        (2, 1, 16, 3, 1),
    ],
)
def test_as_many_trials_run_as_the_devices_hold(
    tmp_path: Path, gpus_per_trial: float, cpus_per_trial: int, cpus: int, gpus: float, concurrent: int
) -> None:
    wanted = (f"resources.gpus_per_trial={gpus_per_trial}", f"resources.cpus_per_trial={cpus_per_trial}")
    devices = plan_resources(spec(tmp_path, *wanted), [Machine(cpus, gpus)])
    assert devices.concurrent == concurrent
    assert (devices.gpus_per_trial > 0) == (gpus > 0 and gpus_per_trial > 0)


def test_an_explicit_number_of_trials_wins_where_it_fits(tmp_path: Path) -> None:
    assert plan_resources(spec(tmp_path, "resources.concurrent=3"), [Machine(8, 0)]).concurrent == 3
    assert plan_resources(spec(tmp_path, "resources.concurrent=30"), [Machine(8, 0)]).concurrent == 8


def test_a_trial_that_does_not_fit_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="a trial takes 4 CPUs and 0 GPUs, but there are 2 CPUs"):
        plan_resources(spec(tmp_path, "resources.cpus_per_trial=4"), [Machine(2, 0)])


def test_a_trial_is_on_one_machine(tmp_path: Path) -> None:
    wanted = spec(tmp_path, "resources.cpus_per_trial=2", "resources.gpus_per_trial=0.5")
    devices = plan_resources(wanted, [Machine(3, 1), Machine(3, 1), Machine(8, 0)])
    assert devices.concurrent == 2
    assert str(devices) == "14 CPUs, 2 GPUs on 3 machines: 2 trials at a time, each with 2 CPUs and 0.5 GPU"
    with pytest.raises(DeviceError, match="3 CPUs and 0 GPUs and 3 CPUs and 0 GPUs on single machines"):
        plan_resources(spec(tmp_path, "resources.cpus_per_trial=4"), [Machine(3, 0), Machine(3, 0)])


GIB = 2**30


@pytest.mark.parametrize(
    ("trial_gib", "machines", "overrides", "gpus_per_trial", "concurrent"),
    [
        (10, [Machine(16, 1)], [], 0.5, 2),  # 24 GiB, nine tenths usable
        (7, [Machine(16, 1)], [], 0.3333, 3),
        (30, [Machine(16, 1)], [], 1, 1),  # it ran, so it fits
        (1, [Machine(64, 1)], [], 0.3333, 3),  # more would only wait for each other
        (7, [Machine(2, 1)], [], 0.5, 2),  # no more than there are CPUs for
        (1, [Machine(16, 8)], ["resources.cpus_per_trial=2"], 1, 8),  # few trials are spread over the GPUs
        (7, [Machine(16, 2)], ["resources.concurrent=2"], 1, 2),
        (7, [Machine(16, 2)], ["search.trials=3"], 0.5, 4),
        (7, [Machine(16, 1), Machine(16, 2), Machine(16, 0)], ["search.trials=64"], 0.3333, 9),
        (7, [Machine(4, 0)], [], 0, 4),
    ],
)
def test_a_trials_measured_memory_decides_how_many_share_a_gpu(
    tmp_path: Path,
    trial_gib: int,
    machines: list[Machine],
    overrides: list[str],
    gpus_per_trial: float,
    concurrent: int,
) -> None:
    measured = MeasuredTrial(24 * GIB, trial_gib * GIB, {"batch_size": 128})
    wanted = spec(tmp_path, "search.trials=16", "resources.gpus_per_trial=auto", *overrides)
    devices = plan_resources(wanted, machines, measured)
    assert (devices.gpus_per_trial, devices.concurrent) == (gpus_per_trial, concurrent)
    assert ("measured: a trial takes" in str(devices)) == (gpus_per_trial > 0)


def test_an_explicit_share_of_a_gpu_wins_over_what_was_measured(tmp_path: Path) -> None:
    wanted = spec(tmp_path, "resources.gpus_per_trial=0.25")
    devices = plan_resources(wanted, [Machine(16, 1)], MeasuredTrial(24 * GIB, 20 * GIB, {}))
    assert (devices.gpus_per_trial, devices.measured) == (0.25, None)


def test_what_was_measured_is_said(tmp_path: Path) -> None:
    measured = MeasuredTrial(24 * GIB, 7 * GIB, {"batch_size": 128})
    devices = plan_resources(spec(tmp_path, "resources.gpus_per_trial=auto"), [Machine(16, 1)], measured)
    assert str(devices).endswith("\nmeasured: a trial takes 7 of 24 GiB of a GPU at most (batch_size 128), so 3 fit")


@pytest.mark.parametrize(
    ("rates", "best", "words"),
    [
        ((1000.0, 1400.0, 1500.0), 3, "1, 2 and 3 at a time train 1,000, 1,400 and 1,500 images a second in all, so 3"),
        ((1000.0, 1400.0, 1440.0), 2, "1,440 images a second in all, so 2 share a GPU"),
        ((1000.0, 1040.0, 1060.0), 3, "so 3 share a GPU"),
        ((1000.0, 900.0, 1049.0), 1, "so each has a GPU of its own"),
        ((1000.0, 1400.0), 2, "1 and 2 at a time train 1,000 and 1,400 images a second in all, so 2 share a GPU"),
    ],
)
def test_as_many_trials_share_a_gpu_as_train_more_images_a_second_than_fewer(
    tmp_path: Path, rates: tuple[float, ...], best: int, words: str
) -> None:
    measured = MeasuredTrial(24 * GIB, 2 * GIB, {"batch_size": 128}, rates)
    devices = plan_resources(spec(tmp_path, "resources.gpus_per_trial=auto"), [Machine(16, 1)], measured)
    assert devices.concurrent == measured.best == best
    assert words in str(devices)
    assert "(batch_size 128), so 10 fit; " in str(devices)


def test_no_more_trials_share_a_gpu_than_there_are_to_run(tmp_path: Path) -> None:
    wanted, measured = spec(tmp_path, "resources.gpus_per_trial=auto"), MeasuredTrial(24 * GIB, 2 * GIB, {})
    assert plan_resources(wanted, [Machine(16, 2)], measured, num_trials=4).gpus_per_trial == 0.5
    assert plan_resources(wanted, [Machine(16, 2)], measured, num_trials=2).gpus_per_trial == 1


def test_a_trial_may_take_what_was_measured_of_a_gpu_else_its_share(tmp_path: Path) -> None:
    measured = MeasuredTrial(24 * GIB, 7 * GIB, {})
    shared = plan_resources(spec(tmp_path, "resources.gpus_per_trial=auto"), [Machine(16, 1)], measured)
    assert shared.gpu_memory(24 * GIB) == 7 * GIB
    half = plan_resources(spec(tmp_path, "resources.gpus_per_trial=0.5"), [Machine(16, 1)])
    assert half.gpu_memory(20 * GIB) == 9 * GIB
    whole = plan_resources(spec(tmp_path, "resources.gpus_per_trial=2"), [Machine(16, 2)])
    assert whole.gpu_memory(20 * GIB) == 18 * GIB


def test_expected_epochs_halve_the_field_at_each_rung(tmp_path: Path) -> None:
    # 8 trials, rungs after 1 and 2 of 4 epochs, one in two goes on: 8·1 + 4·1 + 2·2.
    assert expected_epochs(spec(tmp_path)) == 16


def test_expected_epochs_of_the_other_schedulers(tmp_path: Path) -> None:
    assert expected_epochs(spec(tmp_path, "search.scheduler=none")) == 8 * 4
    # Brackets with 2, 1 and 0 rungs ahead get 4/3, 2/2 and 1 of 10/3 of the trials; each costs 2, 3 and 4 epochs.
    assert expected_epochs(spec(tmp_path, "search.scheduler=hyperband")) == pytest.approx(
        8 * (8 / 3 + 3 + 4) / (10 / 3)
    )


@pytest.mark.parametrize(("gpus_per_trial", "gpus", "device"), [(0, 1, "cpu"), (0.5, 1, "cuda"), (0.5, 0, "cpu")])
def test_trials_run_on_a_gpu_only_if_they_are_given_one(
    gpus_per_trial: float, gpus: int, device: str, tmp_path: Path
) -> None:
    wanted = spec(tmp_path, f"resources.gpus_per_trial={gpus_per_trial}")
    assert plan_resources(wanted, [Machine(4, gpus)]).device == device


def test_the_expected_epochs_are_those_of_all_brackets(tmp_path: Path) -> None:
    one = spec(tmp_path, "training.epochs=8")  # rungs after 1, 2 and 4 epochs
    three = spec(tmp_path, "training.epochs=8", "asha.brackets=3")
    assert expected_epochs(one) / one.search.trials == pytest.approx(1 + 1 / 2 + 2 / 4 + 4 / 8)
    of_each = [1 + 1 / 2 + 2 / 4 + 4 / 8, 2 + 2 / 2 + 4 / 4, 4 + 4 / 2]
    weights = [math.exp(-bracket) for bracket in range(3)]
    mean = sum(epochs * weight for epochs, weight in zip(of_each, weights, strict=True)) / sum(weights)
    assert expected_epochs(three) / three.search.trials == pytest.approx(mean)


def test_a_machine_has_the_cpus_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 7}, raising=False)
    assert this_machine().cpus == 2
