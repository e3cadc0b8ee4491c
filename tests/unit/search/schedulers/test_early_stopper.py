from pathlib import Path

import pytest

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.search.journal import Event, Journal
from tune_cure.search.schedulers.asha import Asha
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.registry import SCHEDULERS

SCORES = {1: [0.1, 0.3, 0.4], 2: [0.2, 0.2, 0.5], 3: [0.05], 4: [0.3, 0.35]}  # objective by epoch of each trial


@pytest.fixture
def history(tmp_path: Path) -> list[Event]:
    journal = Journal(tmp_path)
    for number in SCORES:
        journal_lines.begin(journal, number)
    for epoch in (1, 2, 3):
        for number, scores in SCORES.items():
            if epoch <= len(scores):
                journal_lines.epoch(journal, number, epoch=epoch, objective=scores[epoch - 1])
    return journal.read()


def follow(stopper: EarlyStopper, history: list[Event]) -> None:
    """Report the events of a journal as they came."""
    for event in history:
        if event["event"] == "trial":
            stopper.add(event["trial"])
        else:
            stopper.report(event["trial"], event["epoch"], {"objective": event["objective"]})


def test_rungs_rebuilt_from_the_journal_decide_as_those_of_the_uninterrupted_search(
    tmp_path: Path, history: list[Event]
) -> None:
    spec = tiny(tmp_path)
    live, rebuilt = EarlyStopper(spec), EarlyStopper(spec, history)
    follow(live, history)
    assert isinstance(live.rule, Asha)
    assert isinstance(rebuilt.rule, Asha)
    assert [bracket.rungs for bracket in rebuilt.rule.brackets] == [bracket.rungs for bracket in live.rule.brackets]
    for stopper in (live, rebuilt):
        stopper.add(4)  # goes on at epoch 3 after an interruption
        assert stopper.report(4, 3, {"objective": 0.9})
        stopper.add(5)
        assert stopper.report(5, 1, {"objective": 0.2})  # 0.9 is not in the first rung
        stopper.add(6)
        assert not stopper.report(6, 1, {"objective": 0.1})


def test_the_accuracy_under_the_stronger_attack_decides_live_and_after_an_interruption(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "asha.steps=9"), Journal(tmp_path)
    live = EarlyStopper(spec)
    for number, (weak, strong) in enumerate([(0.9, 0.1), (0.5, 0.4), (0.6, 0.3)]):
        journal_lines.begin(journal, number)
        journal_lines.epoch(journal, number, objective=weak, pgd_accuracy_rung=strong)
        live.add(number)
        live.report(number, 1, {"objective": weak, "pgd_accuracy_rung": strong})
    for stopper in (live, EarlyStopper(spec, journal.read())):
        for number, strong, goes_on in ((4, 0.35, True), (5, 0.2, False)):
            stopper.add(number)
            metrics = {"objective": 0.0 if strong > 0.3 else 1.0, "pgd_accuracy_rung": strong}
            assert stopper.report(number, 1, metrics) == goes_on


def test_trials_that_the_stronger_attack_did_not_judge_are_not_compared_with_those_that_it_judged(
    tmp_path: Path,
) -> None:
    spec, journal = tiny(tmp_path, "asha.attack=apgd_t", "asha.control=0.3", "start_from=[]"), Journal(tmp_path)
    live, decisions = EarlyStopper(spec), []
    ends = {1: "catastrophic_overfitting", 2: "diverged"}  # at the rung, so that no attack follows
    for number, (weak, strong) in enumerate([(0.50, 0.40), (0.48, None), (0.49, None), (0.52, 0.42), (0.53, 0.43)]):
        metrics = {"objective": weak, "pgd_accuracy_rung": strong, "ended": ends.get(number, "")}
        journal_lines.begin(journal, number)
        journal_lines.epoch(journal, number, **metrics)
        live.add(number)
        if number in ends:
            live.complete(number, 1, metrics)
        else:
            decisions.append(live.report(number, 1, metrics))
    assert decisions == [True, True, True]
    for stopper in (live, EarlyStopper(spec, journal.read())):
        assert isinstance(stopper.rule, Asha)
        assert stopper.rule.brackets[0].rungs[-1] == (1, {0: 0.40, 3: 0.42, 4: 0.43})
        assert stopper.group.judge(1).trials == 0  # of those that are known to their end, none was judged there


def test_a_trial_of_start_from_goes_on_where_another_is_stopped(tmp_path: Path, history: list[Event]) -> None:
    stopper = EarlyStopper(tiny(tmp_path), history)
    for number, goes_on in ((0, True), (7, False)):
        stopper.add(number)
        assert stopper.report(number, 1, {"objective": 0.0}) == goes_on


def test_a_worker_that_repeats_the_last_epoch_of_a_trial_changes_nothing(tmp_path: Path, history: list[Event]) -> None:
    stopper = EarlyStopper(tiny(tmp_path), history)
    for _ in range(2):
        stopper.complete(2, 4, {"objective": 0.6})
    assert isinstance(stopper.rule, Asha)
    assert stopper.rule.brackets[0].rungs[0] == (4, {2: 0.6})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_decides_after_a_restart_as_it_would_have_and_spares_start_from(
    tmp_path: Path, history: list[Event], scheduler: str
) -> None:
    spec = tiny(tmp_path, f"search.scheduler={scheduler}", "training.epochs=8")
    live = EarlyStopper(spec)
    follow(live, history)
    rebuilt = EarlyStopper(spec, [*history, history[-1]])  # an epoch that a crash made run twice
    decisions: list[list[bool]] = []
    for stopper in (live, rebuilt):
        decisions.append([])
        for number in range(10, 30):
            stopper.add(number)
            for epoch in (1, 2, 3):
                decisions[-1].append(stopper.report(number, epoch, {"objective": 0.01 * number}))
                if not decisions[-1][-1]:
                    break
        stopper.add(0)
        for epoch in range(1, 8):  # hopeless, but a trial of start_from
            assert stopper.report(0, epoch, {"objective": 0.0})
        stopper.complete(0, 8, {"objective": 0.0})
    assert decisions[0] == decisions[1]
    assert (False in decisions[0]) == (scheduler != "none")
