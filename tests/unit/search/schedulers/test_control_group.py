from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.search.journal import Journal
from tune_cure.search.schedulers.control_group import (
    BETTER,
    NO_BETTER,
    UNKNOWN,
    ControlGroup,
    describe_warning,
    is_control,
)
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.registry import SCHEDULERS
from tune_cure.search.space.config import SearchSpec

EPOCHS = 9
RUNGS = "asha={grace_period: 1, reduction_factor: 3, control: 0.1}"


def make_spec(folder: Path, *overrides: str) -> SearchSpec:
    return tiny(folder, f"training.epochs={EPOCHS}", RUNGS, *overrides)


def curves(trials: int, foresight: float, seed: int = 0) -> NDArray[np.float64]:
    """Rising curves whose first and last values correlate as `foresight` says."""
    random = np.random.default_rng(seed)
    early = random.uniform(size=trials)
    final = foresight * early + (1 - abs(foresight)) * random.uniform(size=trials)
    final = final - final.min()
    shares = np.linspace(0, 1, EPOCHS)
    return 0.1 + 0.3 * ((1 - shares) * early[:, None] + shares * (1 + final[:, None]))


def play(stopper: EarlyStopper, accuracies: NDArray[np.float64]) -> dict[int, int]:
    """Train trial after trial as the stopper decides; return how many epochs each trained."""
    trained = {}
    for number, curve in enumerate(accuracies):
        stopper.add(number)
        for epoch, accuracy in enumerate(curve, start=1):
            trained[number] = epoch
            metrics = {"objective": float(accuracy), "ended": "completed" if epoch == EPOCHS else ""}
            if epoch == EPOCHS or not stopper.report(number, epoch, metrics):
                stopper.complete(number, epoch, metrics)
                break
    return trained


def test_the_seed_and_the_number_alone_draw_the_members(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    members = [is_control(spec, number) for number in range(3000)]
    assert members == [is_control(spec, number) for number in range(3000)]
    assert 0.08 < np.mean(members) < 0.12
    other_seed, everybody, nobody = (
        make_spec(tmp_path, "search.seed=1"),
        make_spec(tmp_path, "asha.control=1"),
        tiny(tmp_path),
    )
    assert members != [is_control(other_seed, number) for number in range(3000)]
    assert not any(is_control(nobody, number) for number in range(100))
    assert not is_control(everybody, 0)  # of start_from: it stands for no other trial
    assert all(is_control(everybody, number) for number in range(1, 100))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_no_scheduler_stops_a_member(tmp_path: Path, scheduler: str) -> None:
    spec = make_spec(tmp_path, f"search.scheduler={scheduler}")
    trained = play(EarlyStopper(spec), curves(80, -0.5))
    members = {number for number in trained if is_control(spec, number)}
    assert members
    assert all(trained[number] == EPOCHS for number in {0, *members})
    assert (min(trained.values()) < EPOCHS) == (scheduler != "none")


def test_other_trials_are_stopped_as_if_there_were_no_group(tmp_path: Path) -> None:
    accuracies = curves(80, 0.3)
    spec = make_spec(tmp_path)
    with_group = play(EarlyStopper(spec), accuracies)
    without = play(EarlyStopper(make_spec(tmp_path, "asha.control=0")), accuracies)
    assert with_group != without
    assert {number: with_group[number] for number in without if not is_control(spec, number)} == {
        number: epochs for number, epochs in without.items() if not is_control(spec, number)
    }


def test_the_group_rebuilt_from_the_journal_says_the_same(tmp_path: Path) -> None:
    spec, journal = make_spec(tmp_path, "asha.adapt=true"), Journal(tmp_path)
    live, accuracies = EarlyStopper(spec), curves(40, 0.8)
    for number, curve in enumerate(accuracies):
        journal_lines.begin(journal, number, origin="sampler" if number else "start_from")
        live.add(number)
        for epoch, accuracy in enumerate(curve, start=1):
            ended = "completed" if epoch == EPOCHS else ""
            metrics = {"objective": float(accuracy), "ended": ended}
            if not ended and not live.report(number, epoch, metrics):
                ended = "stopped"
            journal_lines.epoch(journal, number, epoch=epoch, objective=float(accuracy), ended=ended)
            if ended:
                live.complete(number, epoch, metrics)
                break
    rebuilt = EarlyStopper(spec, journal.read())
    assert live.group.stop_epochs
    assert rebuilt.group.stop_epochs == live.group.stop_epochs
    assert rebuilt.group.summarize() == live.group.summarize()
    following = curves(20, 0.8, seed=1)
    assert play(rebuilt, following) == play(live, following)


def test_a_rung_that_predicts_the_end_is_better_than_chance_and_one_that_does_not_is_warned_of(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    good, bad = EarlyStopper(spec), EarlyStopper(spec)
    play(good, curves(200, 0.9))
    play(bad, curves(200, -0.5))
    first, second = good.group.judge(1), bad.group.judge(1)
    assert first.correlation is not None
    assert second.correlation is not None
    assert (first.verdict, second.verdict) == (BETTER, NO_BETTER)
    assert first.correlation.low > 0.5
    assert second.correlation.value < 0
    assert describe_warning(spec, first) == ""
    assert describe_warning(spec, second) == (
        "rung 1 is no better than chance at telling which trials end well; "
        "in the next search, asha.adapt: true lets a rung stop nobody until it is better"
    )
    assert str(second).startswith("rung 1: rank correlation with the end −0.")
    winner_kept, winner_lost = good.group.winner_stopped(), bad.group.winner_stopped()
    assert winner_kept is not None
    assert winner_lost is not None
    assert winner_kept.value < 0.3 < winner_lost.value


def test_nothing_is_known_while_no_member_stands_for_the_stopped_trials(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "asha.control=0.001")
    stopper = EarlyStopper(spec)
    trained = play(stopper, curves(60, 0.9))
    assert not any(is_control(spec, number) for number in trained)
    assert [rung.verdict for rung in stopper.group.rungs] == [UNKNOWN, UNKNOWN]
    assert stopper.group.judge(1).correlation is None
    assert stopper.group.winner_stopped() is None
    assert "not known" in stopper.group.describe_winner()


def test_where_nothing_was_stopped_no_winner_was(tmp_path: Path) -> None:
    assert "0% (95% interval 0% to 0%)" in ControlGroup(make_spec(tmp_path)).describe_winner()


def test_a_rung_that_adapts_stops_nobody_until_it_is_better_than_chance(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "asha.adapt=true")
    misleading = play(EarlyStopper(spec), curves(60, -0.5))
    assert set(misleading.values()) == {EPOCHS}
    good = play(EarlyStopper(spec), curves(60, 0.9))
    first = min(number for number, epochs in good.items() if epochs < EPOCHS)
    assert first >= 5
    assert sum(epochs < EPOCHS for epochs in good.values()) > 20


def test_a_rung_that_has_become_misleading_stops_nobody_any_more(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "asha.adapt=true", "asha.control=0.5")
    accuracies = np.concatenate([curves(20, 0.9), curves(200, -0.9)])
    trained = play(EarlyStopper(spec), accuracies)
    assert any(trained[number] < EPOCHS for number in range(20))
    assert all(trained[number] == EPOCHS for number in range(180, 220))


def test_a_trial_that_collapsed_ends_last_and_one_that_failed_or_was_stopped_is_not_known(tmp_path: Path) -> None:
    group = ControlGroup(make_spec(tmp_path))
    statuses = ["completed"] * 6 + ["catastrophic_overfitting", "diverged", "failed", "stopped", ""]
    for number, status in enumerate(statuses):
        accuracy = 0.1 * (number + 1)  # at the rung the collapsed lead
        group.reach(number, 1, accuracy)
        group.end(number, 5, accuracy, status)
        group.end(number, 5, 0.0, status)  # of a last epoch that a crash made run twice, the first counts
    rung = group.judge(1)
    assert rung.trials == 8
    assert rung.correlation is not None
    assert rung.correlation.value == pytest.approx((15 - 12) / 28)  # 15 pairs agree, the two collapsed lose to all six


def test_less_is_better_where_the_mode_says_so(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "search.mode=min", "search.metric=clean_accuracy")
    stopper = EarlyStopper(spec)
    play(stopper, 1 - curves(200, 0.9))
    assert stopper.group.judge(1).verdict == BETTER
