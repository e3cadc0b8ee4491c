from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial

from tests.support.spaces import tiny
from tune_cure.ray_backend.schedulers import RuleScheduler
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import FIRST_SECONDS, MemoryBackoff


def test_tunes_calls_reach_the_rule_under_the_trials_numbers_and_its_decisions_come_back(tmp_path: Path) -> None:
    stopper = EarlyStopper(tiny(tmp_path))
    scheduler = RuleScheduler(stopper, MemoryBackoff(2))
    answers = []
    for number, objective in ((1, 0.3), (2, 0.5), (3, 0.1)):
        trial = SimpleNamespace(config={"trial": number}, trial_id=f"random-{number}", num_failures=0)
        scheduler.on_trial_add(None, trial)
        result = {"training_iteration": 1, "objective": objective}
        answers.append(scheduler.on_trial_result(None, trial, result))
        scheduler.on_trial_complete(None, trial, {"training_iteration": 2, "objective": objective})
    assert answers == [RuleScheduler.CONTINUE, RuleScheduler.CONTINUE, RuleScheduler.STOP]
    rungs = stopper.rule.brackets[0].rungs  # type: ignore[attr-defined]
    assert rungs[1:] == [(2, {1: 0.3, 2: 0.5, 3: 0.1}), (1, {1: 0.3, 2: 0.5, 3: 0.1})]


class FakeController:
    """Tune's controller as a scheduler sees it."""

    def __init__(self, *trials: SimpleNamespace) -> None:
        self.trials = trials

    def get_trials(self) -> Any:
        return self.trials

    def _set_trial_status(self, trial: SimpleNamespace, status: str) -> None:
        trial.status = status


def test_a_trial_that_was_killed_for_memory_is_paused_and_chosen_when_it_has_waited(tmp_path: Path) -> None:
    clock = [0.0]
    scheduler = RuleScheduler(EarlyStopper(tiny(tmp_path)), MemoryBackoff(2, clock=lambda: clock[0]))
    (tmp_path / "error.txt").write_text(
        "Failure # 1 (occurred at 2026-01-01_00-00-00)\n2 worker(s) were killed due to the node running low on memory. "
        "Memory on the node (IP: 127.0.0.1, ID: 79) was 6.50GB used / 23.54GB limit (0.276160)\nOOM kill reason: …\n"
    )
    killed = SimpleNamespace(
        config={"trial": 0},
        status=Trial.PENDING,
        num_failures=1,
        error_file=str(tmp_path / "error.txt"),
        pickled_error_file=None,
    )
    running = SimpleNamespace(config={"trial": 1}, status=Trial.RUNNING, num_failures=0)
    controller = FakeController(running, killed)
    scheduler.on_trial_add(controller, killed)
    assert killed.status == Trial.PAUSED
    assert scheduler.choose_trial_to_run(controller) is None
    new = SimpleNamespace(config={"trial": 2}, status=Trial.PENDING, num_failures=0)
    assert scheduler.choose_trial_to_run(FakeController(killed, new)) is new
    clock[0] = FIRST_SECONDS
    assert scheduler.choose_trial_to_run(controller) is killed


def test_a_trial_that_failed_for_another_reason_does_not_wait(tmp_path: Path) -> None:
    scheduler = RuleScheduler(EarlyStopper(tiny(tmp_path)), MemoryBackoff(2))
    (tmp_path / "error.txt").write_text("Failure # 1 (occurred at 2026-01-01_00-00-00)\nRuntimeError: a\n")
    failed = SimpleNamespace(
        config={"trial": 0},
        status=Trial.PENDING,
        num_failures=1,
        error_file=str(tmp_path / "error.txt"),
        pickled_error_file=None,
    )
    scheduler.on_trial_add(FakeController(failed), failed)
    assert failed.status == Trial.PENDING
