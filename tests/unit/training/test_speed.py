import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.support.networks import smooth_network
from tests.support.spaces import tiny
from tune_cure.data import splits as splits_module
from tune_cure.data.batches import num_batches
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.search.space.config import SearchSpec
from tune_cure.training import speed
from tune_cure.training.speed import RECORDING_EPOCHS, Speed

COLD, STEP = 5.0, 0.05  # seconds: of the first step of a process, and of all later ones


@pytest.fixture
def search(tmp_path: Path) -> tuple[SearchSpec, Splits]:
    spec = tiny(tmp_path)
    return spec, splits_module.load(spec.data)


class ColdTrainer:
    """Trainer of a process whose first step takes `COLD` seconds."""

    num_steps = 0
    graphed_step = None

    def __init__(self, config: Any, splits: Splits, **_: Any) -> None:
        self.steps = -(-len(splits.train) // config.batch_size)
        self.model = smooth_network()

    def train_epoch(self) -> dict[str, float]:
        seconds = COLD * (ColdTrainer.num_steps == 0) + STEP * self.steps
        ColdTrainer.num_steps += self.steps
        return {"train_seconds": seconds}


def test_the_first_step_of_a_process_is_not_timed(
    search: tuple[SearchSpec, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, splits = search
    monkeypatch.setattr(speed, "Trainer", ColdTrainer)
    monkeypatch.setattr(ColdTrainer, "num_steps", 0)
    config = spec.training_config(spec.start_from[0])
    seconds, _ = speed._time_training(config, splits, spec.model, spec.evaluation, "cpu")
    assert seconds == pytest.approx(STEP / config.batch_size)


def test_of_a_slow_step_a_part_of_the_batch_is_timed(
    search: tuple[SearchSpec, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, splits = search
    sizes: list[int] = []

    class SlowTrainer(ColdTrainer):
        def __init__(self, config: Any, splits: Splits, **parts: Any) -> None:
            super().__init__(config, splits, **parts)
            sizes.append(len(splits.train))

        def train_epoch(self) -> dict[str, float]:
            return {"train_seconds": 3.0}

    monkeypatch.setattr(speed, "Trainer", SlowTrainer)
    config = spec.training_config(spec.start_from[0])
    seconds, _ = speed._time_training(config, splits, spec.model, spec.evaluation, "cpu")
    assert seconds == 3.0 / speed.WARM_UP_IMAGES
    assert sizes == [speed.WARM_UP_IMAGES] * 2
    monkeypatch.setattr(speed, "VERY_LONG_STEP", 2.0)
    assert speed._time_training(config, splits, spec.model, spec.evaluation, "cpu")[0] == seconds
    assert len(sizes) == 3  # no step is made twice


def test_an_epoch_with_all_terms_of_the_loss_is_timed(
    search: tuple[SearchSpec, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, splits = search
    timed: list[Any] = []

    class RecordingTrainer(ColdTrainer):
        def __init__(self, config: Any, splits: Splits, **parts: Any) -> None:
            super().__init__(config, splits, **parts)
            timed.append(config)

    monkeypatch.setattr(speed, "Trainer", RecordingTrainer)
    later = {"lambda_schedule": "ramp", "awp_gamma": 0.01, "awp_start": 0.5}
    config = spec.training_config(spec.start_from[0]).model_copy(update=later)
    speed._time_training(config, splits, spec.model, spec.evaluation, "cpu")
    assert {(it.lambda_schedule, it.awp_gamma, it.awp_start) for it in timed} == {("constant", 0.01, 0.0)}


def test_images_that_no_batch_has_do_not_count_as_timed(
    search: tuple[SearchSpec, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, splits = search

    class EvenTrainer(ColdTrainer):
        def __init__(self, config: Any, splits: Splits, **parts: Any) -> None:
            super().__init__(config, splits, **parts)
            self.steps = num_batches(len(splits.train), config.batch_size)

        def train_epoch(self) -> dict[str, float]:
            return {"train_seconds": 1e-3 * self.steps}

    monkeypatch.setattr(speed, "Trainer", EvenTrainer)
    config = spec.training_config(spec.start_from[0])
    few = dataclasses.replace(splits, train=splits.train.subset(config.batch_size + 7, seed=0))
    seconds, _ = speed._time_training(config, few, spec.model, spec.evaluation, "cpu")
    assert seconds == pytest.approx(1e-3 / config.batch_size)


def test_an_epoch_is_its_images_and_an_evaluation_in_which_pgd_attacks_some_images() -> None:
    measured = Speed(trained_image=0.01, judged_image=0.002, attacked_image=0.001)
    evaluation = EvaluationConfig(steps=10, restarts=2)
    judging = 50 * (0.002 + speed.ATTACKED * 20 * 0.001)
    assert measured.of_evaluation(50, evaluation) == pytest.approx(judging)
    assert measured.of_epoch(300, 50, evaluation) == pytest.approx(3 + judging)


def test_a_measured_speed_is_that_of_all_parts_and_leaves_random_states_and_threads_alone(
    search: tuple[SearchSpec, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "ENOUGH", 0.02)
    spec, splits = search
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    python = random.getstate()
    passes = [0]  # of modules: an evaluation takes a millisecond for each, because times by the clock vary

    def count(*_: object) -> None:
        passes[0] += 1

    monkeypatch.setattr(speed.time, "perf_counter", lambda: 1e-3 * passes[0])
    with register_module_forward_pre_hook(count), speed.cpu_threads(2):
        assert torch.get_num_threads() == 2
        measured = speed.measure_speed(
            spec.training_config(spec.start_from[0]), splits, model=spec.model, evaluation=spec.evaluation
        )
    assert min(measured.trained_image, measured.judged_image, measured.attacked_image) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert random.getstate() == python
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("most", "seconds", "chosen"),
    [
        (1, {}, 1),
        (2, {1: 1.0, 2: 3.0}, 1),
        (2, {1: 1.0, 2: 0.95}, 1),  # an advantage that may be chance
        (2, {1: 1.0, 2: 0.6}, 2),
        (8, {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.5}, 4),
        (6, {1: 1.0, 2: 0.6, 4: 0.4, 6: 0.3}, 6),
    ],
)
def test_more_threads_are_chosen_only_where_they_are_clearly_faster(
    most: int,
    seconds: dict[int, float],
    chosen: int,
    search: tuple[SearchSpec, Splits],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = most

    def set_threads(number: int | None) -> None:
        nonlocal count
        count = number or count

    monkeypatch.setattr(speed.torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(speed.torch, "set_num_threads", set_threads)
    monkeypatch.setattr(speed, "configure_cpu", set_threads)
    monkeypatch.setattr(speed, "_time_training", lambda *_: (seconds[count], smooth_network()))
    spec, splits = search
    config = spec.training_config(spec.start_from[0])
    assert speed.choose_threads(config, splits, model=spec.model, evaluation=spec.evaluation) == chosen
    assert count == most


def test_on_a_gpu_steps_are_timed_after_they_were_recorded(
    search: tuple[SearchSpec, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, splits = search

    class GraphedTrainer(ColdTrainer):
        graphed_step = "steps"
        num_epochs = 0

        def train_epoch(self) -> dict[str, float]:
            self.num_epochs += 1
            seconds = super().train_epoch()["train_seconds"]
            return {"train_seconds": seconds if self.num_epochs > RECORDING_EPOCHS else 100 * seconds}

    monkeypatch.setattr(speed, "Trainer", GraphedTrainer)
    monkeypatch.setattr(ColdTrainer, "num_steps", 0)
    config = spec.training_config(spec.start_from[0])
    seconds, _ = speed._time_training(config, splits, spec.model, spec.evaluation, "cuda")
    assert seconds == pytest.approx(STEP / config.batch_size)
