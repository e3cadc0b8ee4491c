from pathlib import Path
from types import SimpleNamespace

from tests.support.spaces import tiny
from tune_cure.ray_backend.schedulers import RuleScheduler
from tune_cure.search.schedulers.early_stopper import EarlyStopper


def test_tunes_calls_reach_the_rule_under_the_trials_numbers_and_its_decisions_come_back(tmp_path: Path) -> None:
    stopper = EarlyStopper(tiny(tmp_path))
    scheduler = RuleScheduler(stopper)
    answers = []
    for number, objective in ((1, 0.3), (2, 0.5), (3, 0.1)):
        trial = SimpleNamespace(config={"trial": number}, trial_id=f"random-{number}")
        scheduler.on_trial_add(None, trial)
        result = {"training_iteration": 1, "objective": objective}
        answers.append(scheduler.on_trial_result(None, trial, result))
        scheduler.on_trial_complete(None, trial, {"training_iteration": 2, "objective": objective})
    assert answers == [RuleScheduler.CONTINUE, RuleScheduler.CONTINUE, RuleScheduler.STOP]
    rungs = stopper.rule.brackets[0].rungs  # type: ignore[attr-defined]
    assert rungs[1:] == [(2, {1: 0.3, 2: 0.5, 3: 0.1}), (1, {1: 0.3, 2: 0.5, 3: 0.1})]
