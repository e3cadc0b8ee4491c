from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.data import splits
from tune_cure.search import duration
from tune_cure.search.progress import expected_epochs
from tune_cure.search.space import bundled_spaces
from tune_cure.search.space.loading import load
from tune_cure.training.speed import ATTACKED, Speed

SPEED = Speed(trained_image=0.01, judged_image=0.002, attacked_image=0.0)


def test_without_early_stopping_every_epoch_counts(tmp_path: Path) -> None:
    assert duration.play(tiny(tmp_path, "search.scheduler=none"), 2).epochs == 8 * 4


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_game_counts_what_the_formula_leaves_out(scheduler: str, tmp_path: Path) -> None:
    spec = tiny(tmp_path, f"search.scheduler={scheduler}", "training.epochs=12", "search.trials=30")
    epochs = duration.play(spec, 2).epochs
    assert epochs == duration.play(spec, 2).epochs
    assert epochs < 30 * 12
    if scheduler != "median":
        assert epochs > expected_epochs(spec)


def test_the_trials_of_start_from_count_in_full(tmp_path: Path) -> None:
    starts = ", ".join(f"{{lambda: 0.{number}, h: 1.0, lr_max: 0.02, epsilon: 0.1}}" for number in range(1, 9))
    assert duration.play(tiny(tmp_path, f"start_from=[{starts}]"), 2).epochs == 8 * 4


def test_a_stronger_attack_at_the_rungs_stops_as_many_trials(tmp_path: Path) -> None:
    without = duration.play(tiny(tmp_path, "search.trials=40"), 2)
    assert duration.play(tiny(tmp_path, "search.trials=40", "asha.attack=apgd_t"), 2) == without


def test_a_search_of_very_many_trials_is_scaled_up(tmp_path: Path) -> None:
    few, many = (tiny(tmp_path, f"search.trials={number}") for number in (200, 2000))
    assert duration.play(many, 2).epochs == pytest.approx(10 * duration.play(few, 2).epochs, rel=0.1)


@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_a_budget_of_epochs_is_the_most_that_all_trials_train(scheduler: str, tmp_path: Path) -> None:
    without = duration.play(tiny(tmp_path, f"search.scheduler={scheduler}"), 2)
    enough = tiny(tmp_path, f"search.scheduler={scheduler}", "search.budget_epochs=99")
    assert duration.play(enough, 2) == without
    played = duration.play(tiny(tmp_path, f"search.scheduler={scheduler}", "search.budget_epochs=8"), 2)
    assert played.epochs == 8
    assert played.at_rungs == pytest.approx(8 * without.at_rungs / without.epochs)


@pytest.mark.parametrize(
    ("budget", "concurrent", "epochs"), [(60, 1, 10), (60, 2, 10 * duration.SIDE_BY_SIDE), (999, 1, 32)]
)
def test_a_budget_of_seconds_pays_for_training_at_the_speed_of_trials_side_by_side(
    budget: int, concurrent: int, epochs: float, tmp_path: Path
) -> None:
    spec = tiny(tmp_path, "search.scheduler=none", "rescore.top=0", f"search.budget_seconds={budget}")
    sizes = {"num_train": 600, "num_judged": 100, "num_fresh": 0}
    estimate = duration.estimate_duration(spec, SPEED, **sizes, concurrent=concurrent)
    assert estimate.epochs == pytest.approx(epochs)
    pace = 1 if concurrent == 1 else 2 * duration.SIDE_BY_SIDE
    epoch = 600 * 0.01 + 100 * 0.002 + duration.EPOCH_OVERHEAD
    assert estimate.seconds == pytest.approx(duration.START_SECONDS + epochs * epoch / pace)


@pytest.mark.parametrize("name", bundled_spaces.bundled())
def test_what_is_timed_of_a_bundled_space_is_a_trial_of_it(name: str) -> None:
    spec = load(bundled_spaces.find(name))
    for starts in (spec.start_from, []):
        values = duration.typical_hyperparameters(spec.model_copy(update={"start_from": starts}))
        assert all(distribution.contains(values[key]) for key, distribution in spec.space.items())


def test_a_search_is_its_epochs_its_second_judgment_and_its_start(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.scheduler=none", "rescore={top: 2, steps: 1, restarts: 1}")
    epoch, judging = 600 * 0.01 + 100 * 0.002 + duration.EPOCH_OVERHEAD, 2 * 50 * 0.002
    sizes = {"num_train": 600, "num_judged": 100, "num_fresh": 50}
    alone = duration.estimate_duration(spec, SPEED, **sizes, concurrent=1)
    assert alone.epochs == 32
    assert alone.seconds == pytest.approx(duration.START_SECONDS + 32 * epoch + judging)
    two = duration.estimate_duration(spec, SPEED, **sizes, concurrent=2)
    assert two.seconds - duration.START_SECONDS == pytest.approx(
        (alone.seconds - duration.START_SECONDS) / (2 * duration.SIDE_BY_SIDE)
    )


@pytest.mark.parametrize(("setting", "steps"), [("asha.steps=20", 20), ("asha.attack=apgd_t", 900)])
def test_judgements_at_rungs_take_their_time(tmp_path: Path, setting: str, steps: int) -> None:
    speed = Speed(trained_image=0.01, judged_image=0.002, attacked_image=0.004)
    sizes = {"num_train": 600, "num_judged": 100, "num_fresh": 50, "concurrent": 1}
    without, judged = tiny(tmp_path, "training.epochs=12"), tiny(tmp_path, "training.epochs=12", setting)
    at_rungs = duration.play(judged, 1).at_rungs
    assert judged.search.trials < at_rungs < judged.search.trials * len(judged.rungs)
    more = (
        duration.estimate_duration(judged, speed, **sizes).seconds
        - duration.estimate_duration(without, speed, **sizes).seconds
    )
    assert more == pytest.approx(at_rungs * 100 * (0.002 + ATTACKED * steps * 0.004))


def test_no_more_trials_run_at_a_time_than_there_are(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=1", "rescore.top=0")
    sizes = {"num_train": 600, "num_judged": 100, "num_fresh": 0}
    assert duration.estimate_duration(spec, SPEED, **sizes, concurrent=4) == duration.estimate_duration(
        spec, SPEED, **sizes, concurrent=1
    )


def test_the_estimate_of_an_epoch_grows_with_the_training_images(tmp_path: Path) -> None:
    seconds = []
    for count in (100, 1200):
        spec = tiny(tmp_path, f"data.train_examples={count}")
        data = splits.load(spec.data)
        speed = duration.measure_trial_speed(spec, data)
        seconds.append(speed.of_epoch(len(data.train), len(data.validation), spec.evaluation))
    assert 0 < seconds[0] < seconds[1]
