"""Steps that are replayed: when they are recorded, how a recording is checked, and that results stay the same."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tune_cure.attacks.attack import Step
from tune_cure.attacks.fgsm import Fgsm
from tune_cure.data import splits as splits_module
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.cuda_graphs import graphed_step
from tune_cure.training.cuda_graphs.graphed_step import MOST_RECORDINGS, GraphedStep, compare, find_obstacle
from tune_cure.training.cuda_graphs.recording import StepInputs
from tune_cure.training.cuda_graphs.state import TrainingState, difference
from tune_cure.training.step import TrainingStep
from tune_cure.training.timing import Stopwatch, Watch
from tune_cure.training.trainer import Trainer

MODEL = ModelConfig(name="small_cnn", width=4)
BATCH = 32


@pytest.fixture(scope="module")
def splits() -> Splits:
    return splits_module.load(DataSpec(dataset="digits", validation=100, train_examples=6 * BATCH + 7))


def trainer(splits: Splits, **hyperparameters: object) -> Trainer:
    values = {"epochs": 2, "batch_size": BATCH, "epsilon": 0.1, "lr_schedule": "cyclic", "lambda": 0.1}
    return Trainer(TrainingConfig.model_validate({**values, **hyperparameters}), splits, model=MODEL)


class Repetition:
    """Stands in for CUDA graphs: a replay makes the step again, with all numbers that it was recorded with.

    Args:
        step: The steps.
        change: Changes the inputs of a replay, to make it wrong: from those of the recording and of the replay.
    """

    peak_memory = 0

    def __init__(
        self, step: TrainingStep, change: Callable[[StepInputs, StepInputs], StepInputs] | None = None
    ) -> None:
        self.step, self.change = step, change
        self.recorded: list[int] = []
        self.replays = 0

    def __call__(self, recorded: StepInputs, number: int) -> Callable[[StepInputs, Watch], Tensor]:
        self.recorded.append(number)
        share, perturbs = self.step.terms.penalty_share, self.step.perturbs_weights

        def replay(inputs: StepInputs, watch: Watch) -> Tensor:
            self.replays += 1
            inputs = self.change(recorded, inputs) if self.change else inputs
            now = self.step.terms.penalty_share, self.step.perturbs_weights
            self.step.terms.penalty_share, self.step.perturbs_weights = share, perturbs
            row = self.step(inputs.images, inputs.labels, number, watch, inputs.positions)
            self.step.terms.penalty_share, self.step.perturbs_weights = now
            return row

        return replay


def graphed(run: Trainer, recorder: Any = None) -> Any:
    """Have `run` replay its steps; return the recorder."""
    recorder = recorder or Repetition(run.step)
    state = TrainingState(run.model, run.step, run.generator)
    run.graphed_step = GraphedStep(run.step, state, recorder=recorder, batch_size=run.config.batch_size)
    return recorder


def train(run: Trainer, epochs: int = 2) -> list[Any]:
    """Train; return all that is saved but for the times, flattened, and the epochs' metrics."""
    seconds = ("seconds", "per_second", "memory_mb")
    metrics = [run.train_epoch() for _ in range(epochs)]
    kept = [[value for key, value in of_epoch.items() if not key.endswith(seconds)] for of_epoch in metrics]
    state = run.state_dict()
    optimizer = [value for entry in state["optimizer"]["state"].values() for value in entry.values()]
    tensors = [*state["model"].values(), *optimizer, state["generator"], *state["attack"].values()]
    return [kept, state["scaler"], *tensors]


def same(one: list[Any], other: list[Any]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "previous start": {"init": "previous"},
    "adam": {"optimizer": "adam", "lr_max": 0.001},
    "every second step": {"penalty_every": 2},
    "fp16": {"amp": "fp16"},
    "average": {"averaging": "ema"},
    "adaptive": {"regularizer": "elle_a", "elle_sensitivity": 0.5},
    "free": {"attack": "free"},
    "memory of each image": {"attack": "fgsm_pgi"},
    "perturbed weights": {"awp_gamma": 0.01, "awp_start": 0.5},
    "growing penalty": {"lambda_schedule": "ramp", "epochs": 3},
    "clipped, from the image": {"init": "zero", "attack_statistics": "batch", "gradient_clip": 0.5},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_of_replays_equals_one_without_bit_for_bit(name: str, splits: Splits) -> None:
    plain, replayed = (trainer(splits, **VARIANTS[name]) for _ in range(2))
    recorder = graphed(replayed)
    assert same(train(plain, plain.config.epochs), train(replayed, plain.config.epochs))
    assert recorder.replays > 4
    assert replayed.graphed_step is not None
    assert replayed.graphed_step.obstacle == ""


def test_the_second_step_is_recorded_and_the_small_last_batch_never(splits: Splits) -> None:
    run = trainer(splits)
    sizes: list[int] = []
    recorder = graphed(run)
    recorder.change = lambda recorded, inputs: sizes.append(len(inputs.images)) or inputs
    run.train_epoch()
    assert recorder.recorded == [1]
    assert sizes == [BATCH] * 5  # the check of the second step, and steps 3 to 6 of 7


def test_steps_with_and_without_penalty_have_a_recording_each(splits: Splits) -> None:
    run = trainer(splits, penalty_every=3)
    recorder = graphed(run)
    train(run)
    assert sorted(recorder.recorded) == [2, 3]


def stale_images(recorded: StepInputs, inputs: StepInputs) -> StepInputs:
    return StepInputs(recorded.images.roll(1, 0), inputs.labels, inputs.positions)


def impossible(recorded: StepInputs, inputs: StepInputs) -> StepInputs:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (stale_images, "a replayed step differs from the step itself in"),
        (impossible, "operation not permitted when stream is capturing"),
    ],
)
def test_a_recording_that_does_something_else_or_fails_is_not_used_and_one_line_says_so(
    change: Any, reason: str, splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    plain, run = trainer(splits), trainer(splits)
    recorder = graphed(run, Repetition(run.step, change))
    with caplog.at_level(logging.WARNING):
        assert same(train(plain), train(run))
    assert recorder.recorded == [1]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"training goes without CUDA graphs, and is slower: {reason}")
    assert "\n" not in record.getMessage()


def test_an_attack_that_counts_its_steps_is_not_replayed(
    splits: Splits, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Fgsm.__call__

    def counting(attack: Any, step: Step) -> Tensor:
        attack.steps = getattr(attack, "steps", 0) + 1
        return make(attack, step)

    monkeypatch.setattr(Fgsm, "__call__", counting)
    monkeypatch.setattr(Fgsm, "state_dict", lambda attack: {"steps": getattr(attack, "steps", 0)})
    plain, run = (trainer(splits) for _ in range(2))
    recorder = graphed(run)
    assert same(train(plain), train(run))
    assert recorder.recorded == []
    assert "carry something from step to step that a recording cannot" in caplog.text


def test_an_attack_whose_steps_differ_by_their_number_has_a_recording_of_each_kind(splits: Splits) -> None:
    plain, run = (trainer(splits, attack="guided", regularizer="gat") for _ in range(2))
    recorder = graphed(run)
    assert same(train(plain), train(run))
    assert recorder.recorded == [2, 3]  # the second ones without and with the distance
    assert recorder.replays > 2


def test_a_tensor_that_is_replaced_in_a_step_is_not_replayed(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(splits, init="previous")
    recorder = graphed(run)
    make = run.terms.attack._attack

    def replacing(*args: Any, **kwargs: Any) -> Tensor:
        adversarial = make(*args, **kwargs)
        run.terms.attack.previous = run.terms.attack.previous.clone()
        return adversarial

    monkeypatch.setattr(run.terms.attack, "_attack", replacing)
    run.train_epoch()
    assert recorder.recorded == []
    assert run.graphed_step is not None
    assert run.graphed_step.obstacle


def test_a_step_that_overflows_proves_nothing_and_the_next_one_is_checked(splits: Splits) -> None:
    run = trainer(splits, amp="fp16")
    run.step.scaler.load_state_dict({**run.step.scaler.state_dict(), "scale": 2.0**30})
    recorder = graphed(run)
    skipped = run.train_epoch()["skipped_steps"]
    assert skipped >= 2
    assert recorder.recorded == [1]
    assert recorder.replays >= 3


def test_a_loaded_state_is_not_changed_by_recordings_of_another_one(splits: Splits) -> None:
    run = trainer(splits, init="previous")
    state = run.state_dict()
    recorder = graphed(run)
    expected = train(run)
    for name in ("model", "generator", "order"):  # copies, because training has changed the tensors in place
        state[name] = trainer(splits, init="previous").state_dict()[name]
    run.load_state_dict({**trainer(splits, init="previous").state_dict(), **state})
    assert same(expected, train(run))
    assert recorder.recorded == [2, 2]  # the first step makes the tensor of perturbations


def test_only_the_newest_kinds_of_steps_stay_recorded(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(splits)
    recorder = graphed(run)
    assert run.graphed_step is not None
    images, labels = torch.rand(BATCH, 1, 8, 8), torch.arange(BATCH) % 10
    run.model.train()
    for kind in range(MOST_RECORDINGS + 2):
        monkeypatch.setattr(run.step, "host_values", lambda num_images, number, kind=kind: kind)
        for _ in range(3):
            run.graphed_step(images, labels, 0, Stopwatch(run.device))
    assert len(recorder.recorded) == MOST_RECORDINGS + 2
    assert len(run.graphed_step._recordings) == MOST_RECORDINGS


def test_restoring_a_state_keeps_every_tensor_in_its_place(splits: Splits) -> None:
    run = trainer(splits, init="previous", optimizer="adam")
    run.train_epoch()
    state = TrainingState(run.model, run.step, run.generator)
    before, places = state.copy(), [tensor.data_ptr() for group in state.tensors().values() for tensor in group]
    run.train_epoch()
    assert difference(before, before, state.copy()) == "weights"
    state.restore(before)
    assert difference(before, before, state.copy()) == ""
    assert [tensor.data_ptr() for group in state.tensors().values() for tensor in group] == places


@pytest.mark.parametrize(
    ("row", "replayed", "found", "verdict"),
    [
        ([8, 20, 3, 8, 1, 0], [8, 20.1, 3, 8, 1, 0], "", None),
        ([8, 20, 3, 8, 1, 0], [8, 20, 3, 8, 1, 0], "weights", "weights"),
        ([8, 20, 3, 8, 1, 0], [8, 25, 3, 8, 1, 0], "", "its loss"),
        ([8, 20, 3, 8, 1, 0], [8, float("nan"), 3, 8, 1, 0], "", "its loss"),
        ([8, 20, 3, 8, 1, 0], [8, 20, 3, 0, 0, 0], "", "its loss"),
        ([8, 20, 3, 8, 1, 1], [8, 20, 3, 8, 1, 1], "weights", ""),
        ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], "weights", ""),
    ],
)
def test_two_steps_are_compared_by_what_they_return_and_by_what_they_changed(
    row: list[float], replayed: list[float], found: str, verdict: str | None
) -> None:
    assert compare(torch.tensor(row), torch.tensor(replayed), lambda: found) == verdict


@pytest.mark.parametrize(
    ("network", "hyperparameters", "obstacle"),
    [
        ("preact_resnet18", {}, ""),
        ("timm:resnet18", {}, ""),
        ("my_parts:network", {}, "the network my_parts:network is your own"),
        ("small_cnn", {"regularizer": "nuat"}, "regularizer nuat makes the host wait"),
        ("small_cnn", {"regularizer": "nuat", "lambda": 0}, ""),
        ("small_cnn", {"attack": "guided", "guide": "nuclear"}, "attack guided makes the host wait"),
        ("small_cnn", {"attack": "guided", "guide": "softmax"}, ""),
    ],
)
def test_what_stands_against_recordings_is_known_before_the_first_step(
    network: str, hyperparameters: dict[str, object], obstacle: str, splits: Splits
) -> None:
    run = trainer(splits, **hyperparameters)
    found = find_obstacle(run.config, network, run.step)
    assert found.startswith(obstacle)
    assert bool(found) == bool(obstacle)


def test_without_cuda_no_step_is_recorded(splits: Splits) -> None:
    run = trainer(splits)
    assert run.graphed_step is None
    assert graphed_step.graphed_step(run.config, "small_cnn", run.model, run.step, run.generator) is None
