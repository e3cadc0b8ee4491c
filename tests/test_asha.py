from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.spaces import tiny
from tune_cure.journal import Event, Journal
from tune_cure.search import Asha

SCORES = {1: [0.1, 0.3, 0.4], 2: [0.2, 0.2, 0.5], 3: [0.05], 4: [0.3, 0.35]}  # objective by epoch of each trial


def trial(number: int) -> SimpleNamespace:
    return SimpleNamespace(config={"trial": number}, trial_id=f"random-{number}")


def result(epoch: int, objective: float) -> dict[str, float]:
    return {"training_iteration": epoch, "objective": objective}


@pytest.fixture
def history(tmp_path: Path) -> list[Event]:
    journal = Journal(tmp_path)
    for number in SCORES:
        journal.append("trial", number)
    for epoch in (1, 2, 3):
        for number, scores in SCORES.items():
            if epoch <= len(scores):
                journal.append("epoch", number, epoch=epoch, objective=scores[epoch - 1])
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
