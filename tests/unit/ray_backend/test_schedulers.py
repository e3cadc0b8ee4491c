from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.ray_backend import schedulers
from tune_cure.ray_backend.schedulers import Asha, Hyperband, Median
from tune_cure.search.journal import Event, Journal
from tune_cure.search.space import config as specs

SCORES = {1: [0.1, 0.3, 0.4], 2: [0.2, 0.2, 0.5], 3: [0.05], 4: [0.3, 0.35]}  # objective by epoch of each trial


def trial(number: int) -> SimpleNamespace:
    return SimpleNamespace(config={"trial": number}, trial_id=f"random-{number}")


def result(epoch: int, objective: float) -> dict[str, float]:
    return {"training_iteration": epoch, "objective": objective}


@pytest.fixture
def history(tmp_path: Path) -> list[Event]:
    journal = Journal(tmp_path)
    for number in SCORES:
        journal_lines.begin(journal, number)
    for at in (1, 2, 3):
        for number, scores in SCORES.items():
            if at <= len(scores):
                journal_lines.epoch(journal, number, epoch=at, objective=scores[at - 1])
    return journal.read()


def test_rungs_rebuilt_from_the_journal_decide_as_those_of_the_uninterrupted_search(
    tmp_path: Path, history: list[Event]
) -> None:
    spec = tiny(tmp_path)
    live = Asha(spec, [])
    for event in history:
        if event["event"] == "trial":
            live.on_trial_add(None, trial(event["trial"]))
        else:
            live.on_trial_result(None, trial(event["trial"]), result(event["epoch"], event["objective"]))
    rebuilt = Asha(spec, history)
    assert [rungs._rungs for rungs in rebuilt._brackets] == [rungs._rungs for rungs in live._brackets]
    for asha in (live, rebuilt):
        asha.on_trial_add(None, trial(4))  # goes on at epoch 3, under a new identity of Tune's
        assert asha.on_trial_result(None, trial(4), result(3, 0.9)) == Asha.CONTINUE
        asha.on_trial_add(None, trial(5))
        assert asha.on_trial_result(None, trial(5), result(1, 0.2)) == Asha.CONTINUE  # 0.9 is not in the first rung
        asha.on_trial_add(None, trial(6))
        assert asha.on_trial_result(None, trial(6), result(1, 0.1)) == Asha.STOP


def test_where_a_stronger_attack_judged_the_trials_it_decides_live_and_after_an_interruption(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "asha.steps=9"), Journal(tmp_path)
    live = Asha(spec, [])
    for number, (weak, strong) in enumerate([(0.9, 0.1), (0.5, 0.4), (0.6, 0.3)]):
        journal_lines.begin(journal, number)
        journal_lines.epoch(journal, number, objective=weak, pgd_accuracy_rung=strong)
        live.on_trial_add(None, trial(number))
        live.on_trial_result(None, trial(number), result(1, weak) | {"pgd_accuracy_rung": strong})
    for asha in (live, Asha(spec, journal.read())):
        for number, strong, decision in ((4, 0.35, Asha.CONTINUE), (5, 0.2, Asha.STOP)):
            asha.on_trial_add(None, trial(number))
            found = result(1, 0.0 if strong > 0.3 else 1.0) | {"pgd_accuracy_rung": strong}
            assert asha.on_trial_result(None, trial(number), found) == decision


def test_a_trial_of_start_from_goes_on_where_another_is_stopped(tmp_path: Path, history: list[Event]) -> None:
    asha = Asha(tiny(tmp_path), history)
    for number, decision in ((0, Asha.CONTINUE), (7, Asha.STOP)):
        asha.on_trial_add(None, trial(number))
        assert asha.on_trial_result(None, trial(number), result(1, 0.0)) == decision


def test_a_trial_gets_the_same_bracket_after_a_restart(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "asha.brackets=2", "training.epochs=8")
    brackets = []
    for _ in range(2):
        asha = Asha(spec, [])
        for number in range(30):
            asha.on_trial_add(None, trial(number))
        brackets.append([asha._brackets.index(asha._trial_info[number]) for number in range(30)])
    assert brackets[0] == brackets[1]
    assert set(brackets[0]) == {0, 1}


def test_the_schedulers_are_those_that_a_yaml_may_name() -> None:
    assert tuple(schedulers.SCHEDULERS) == specs.SCHEDULERS


@pytest.mark.parametrize("scheduler", specs.SCHEDULERS)
def test_every_scheduler_decides_after_a_restart_as_it_would_have_and_spares_start_from(
    tmp_path: Path, history: list[Event], scheduler: str
) -> None:
    spec = tiny(tmp_path, f"search.scheduler={scheduler}", "training.epochs=8")
    live = schedulers.make(spec, [])
    for event in history:
        if event["event"] == "trial":
            live.on_trial_add(None, trial(event["trial"]))
        else:
            live.on_trial_result(None, trial(event["trial"]), result(event["epoch"], event["objective"]))
    rebuilt = schedulers.make(spec, [*history, history[-1]])  # an epoch that a crash made run twice
    decisions = []
    for again in (live, rebuilt):
        decisions.append([])
        for number in range(10, 30):
            again.on_trial_add(None, trial(number))
            for epoch in (1, 2, 3):
                decisions[-1].append(again.on_trial_result(None, trial(number), result(epoch, 0.01 * number)))
                if decisions[-1][-1] == Asha.STOP:
                    break
        again.on_trial_add(None, trial(0))
        for epoch in range(1, 8):  # hopeless, but a trial of start_from
            assert again.on_trial_result(None, trial(0), result(epoch, 0.0)) == Asha.CONTINUE
        again.on_trial_complete(None, trial(0), result(8, 0.0))
    assert decisions[0] == decisions[1]
    assert (Asha.STOP in decisions[0]) == (scheduler != "none")


def test_hyperband_shares_trials_out_to_brackets_as_the_paper_does(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.scheduler=hyperband", "training.epochs=27", "asha.reduction_factor=3")
    assert spec.rungs == [1, 3, 9]
    weights = [27 / 4, 9 / 3, 3 / 2, 1]
    assert spec.bracket_shares == pytest.approx([weight / sum(weights) for weight in weights])
    scheduler = Hyperband(spec, [])
    for number in range(4000):
        scheduler.on_trial_add(None, trial(number))
    brackets = [scheduler._brackets.index(scheduler._trial_info[number]) for number in range(4000)]
    assert [brackets.count(k) / 4000 for k in range(4)] == pytest.approx(spec.bracket_shares, abs=0.02)
    first_rungs = [[rung for rung, _ in bracket._rungs][-1] for bracket in scheduler._brackets]
    assert first_rungs == [1, 3, 9, 27]  # the last begins where trials end anyway


def test_the_median_rule_stops_what_never_reached_the_others_median_mean(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.scheduler=median", "asha.grace_period=2")
    scheduler = Median(spec, [])
    for number, level in ((1, 0.2), (2, 0.4), (3, 0.6)):
        for epoch in (1, 2, 3):
            assert scheduler.on_trial_result(None, trial(number), result(epoch, level)) == Median.CONTINUE
    assert scheduler.on_trial_result(None, trial(4), result(1, 0.0)) == Median.CONTINUE  # grace
    assert scheduler.on_trial_result(None, trial(4), result(2, 0.41)) == Median.CONTINUE
    assert scheduler.on_trial_result(None, trial(5), result(2, 0.39)) == Median.STOP


def test_ashas_brackets_get_the_shares_that_are_expected_of_them(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "training.epochs=8", "asha.brackets=3")
    asha = Asha(spec, [])
    for number in range(3000):
        asha.on_trial_add(None, trial(number))
    brackets = [asha._brackets.index(asha._trial_info[number]) for number in range(3000)]
    assert [brackets.count(k) / 3000 for k in range(3)] == pytest.approx(spec.bracket_shares, abs=0.03)
