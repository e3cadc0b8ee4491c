from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tests.support.spaces import tiny
from tune_cure.league.budget import Turns
from tune_cure.ray_backend.guard import RayWatch
from tune_cure.ray_backend.league.dispatch import LeagueCallback, LeagueScheduler, LeagueSearcher, MethodCallback
from tune_cure.ray_backend.league.trainable import PLACE, LeagueTrainable
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.search import run_files
from tune_cure.search.journal import OBJECTIVE, Event, Journal
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import SearchStopper
from tune_cure.search.storage.run_storage import LocalStorage

NAMES = ("first", "second")
RESULT = {
    "training_iteration": 1, OBJECTIVE: 0.5, "ended": "", "done": False, "skipped_steps": 0, "train_seconds": 1.0,
    "hostname": "here", "pid": 7, "epoch": 1, "catastrophic_overfitting": False,
}  # fmt: skip


class Sides:
    """Two methods' searches, without Ray."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folders = {name: folder / name for name in NAMES}
        self.specs, self.proposers, self.journals = dict[str, SearchSpec](), dict[str, StudyProposer](), {}
        for name, run in self.folders.items():
            run.mkdir()
            spec, journal = tiny(run, *settings), Journal(run)
            journal.path.touch()
            storage = optuna.storages.InMemoryStorage()
            stopper = SearchStopper(spec, run, None, [])
            self.specs[name], self.journals[name] = spec, journal
            self.proposers[name] = StudyProposer(spec, journal, [], stopper, storage=storage)

    def searcher(self, concurrent: int) -> LeagueSearcher:
        backoff = MemoryBackoff(concurrent)
        searchers = {name: OptunaSearcher(proposer, backoff) for name, proposer in self.proposers.items()}
        checkpoints = {name: run / run_files.TRIALS for name, run in self.folders.items()}
        return LeagueSearcher(searchers, Turns(self.proposers), backoff, checkpoints)

    def events(self, name: str) -> list[Event]:
        return self.journals[name].read()


def test_the_methods_propose_by_turns_and_each_study_hears_of_its_own_trials(tmp_path: Path) -> None:
    sides = Sides(tmp_path, "search.budget_epochs=8")
    searcher = sides.searcher(3)
    configs: list[Any] = [searcher.suggest(name) for name in ("a", "b", "c")]
    assert [(config["method"], config["trial"]) for config in configs] == [("first", 0), ("second", 0), ("first", 1)]
    assert configs[1]["checkpoints"] == str(tmp_path / "second/trials")
    assert searcher.suggest("d") is None  # as many trials run as may
    searcher.on_trial_result("b", RESULT)
    searcher.on_trial_complete("b", RESULT | {"training_iteration": 2, OBJECTIVE: 0.6})
    states = {name: [trial.state.name for trial in proposer.study.trials] for name, proposer in sides.proposers.items()}
    assert states == {"first": ["RUNNING", "RUNNING"], "second": ["PRUNED"]}
    assert sides.proposers["second"].study.trials[0].intermediate_values == {1: 0.5, 2: 0.6}


def test_tune_waits_while_a_running_trial_may_leave_some_of_the_budget_and_ends_after_it(tmp_path: Path) -> None:
    sides = Sides(tmp_path, "search.budget_epochs=4")
    searcher = sides.searcher(8)
    assert [isinstance(searcher.suggest(name), dict) for name in ("a", "b")] == [True, True]
    assert searcher.suggest("c") is None
    for trial in ("a", "b"):
        for epoch in (1, 2, 3, 4):
            event = {"event": "epoch", "trial": 0, "epoch": epoch, "train_seconds": 1.0, OBJECTIVE: 0.5}
            sides.proposers[NAMES[trial == "b"]].stopper.budget.take(event)
        searcher.on_trial_complete(trial, RESULT | {"training_iteration": 4, "ended": "completed"})
    assert searcher.suggest("c") == Searcher.FINISHED


def test_each_method_has_its_own_rule_of_early_stopping(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    scheduler = LeagueScheduler({name: EarlyStopper(spec) for name, spec in sides.specs.items()}, MemoryBackoff(2))

    def report(method: str, number: int, objective: float) -> str:
        trial = SimpleNamespace(config={"method": method, "trial": number}, num_failures=0)
        scheduler.on_trial_add(None, trial)
        return scheduler.on_trial_result(None, trial, RESULT | {OBJECTIVE: objective})

    answers = [report("first", 1, 0.5), report("first", 2, 0.4), report("second", 1, 0.1)]
    assert answers == [TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.CONTINUE]
    trial = SimpleNamespace(config={"method": "first", "trial": 3})
    assert scheduler.name_of(trial) == "3 of first"


def test_each_methods_journal_has_its_own_trials_and_the_checkpoints_in_its_own_folder(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    callbacks = {}
    for name, run in sides.folders.items():
        sides.proposers[name].propose()
        stopper = sides.proposers[name].stopper
        recorder = TrialRecorder(sides.specs[name], sides.journals[name], stopper, LocalStorage(run).delete_file)
        callbacks[name] = MethodCallback(recorder, run, RayWatch())
    league = LeagueCallback(callbacks)
    checkpoints = str(sides.folders["second"] / "trials")
    trial = SimpleNamespace(config={"method": "second", "trial": 0, "checkpoints": checkpoints}, last_result=RESULT)
    league.on_trial_start(1, [], trial)
    for epoch in (1, 2):
        folder = Path(checkpoints, "trial_00000", f"checkpoint_{epoch:06d}")
        folder.mkdir(parents=True)
        (folder / run_files.CHECKPOINT).touch()
        accuracies = dict.fromkeys(("clean_accuracy", "pgd_accuracy", "pgd_accuracy_best"), 0.5)
        trial.last_result = RESULT | accuracies | {"training_iteration": epoch, "epoch": epoch}
        league.on_trial_result(epoch, [], trial, trial.last_result)
        league.on_checkpoint(epoch, [], trial, SimpleNamespace(path="elsewhere"))
    league.on_trial_complete(2, [], trial)
    assert [event["event"] for event in sides.events("first")] == ["trial"]
    paths = [event["path"] for event in sides.events("second") if event["event"] == "checkpoint"]
    assert paths == ["trials/trial_00000/checkpoint_000001", "trials/trial_00000/checkpoint_000002"]
    assert [(sides.folders["second"] / path / run_files.CHECKPOINT).exists() for path in paths] == [False, True]
    assert sides.events("second")[-1]["status"] == "stopped"


def begun(config: dict[str, Any], specs: dict[str, SearchSpec]) -> LeagueTrainable:
    """A trial as Tune begins one in its worker process."""
    trainable = LeagueTrainable.__new__(LeagueTrainable)
    trainable.setup(config, specs=specs, reused=True)
    return trainable


def test_a_trial_writes_its_checkpoints_into_its_methods_folder_and_tune_gets_the_place(tmp_path: Path) -> None:
    few = "data.train_examples=100"
    sides = Sides(tmp_path, few)
    specs = {"first": sides.specs["first"], "second": tiny(tmp_path / "second", "training.batch_size=100", few)}
    values = {"lambda": 0.1, "h": 1.0, "lr_max": 0.1, "epsilon": 0.1}
    config = {**values, "trial": 3, "method": "second", "checkpoints": str(tmp_path / "second/trials")}
    trainable = begun(config, specs)
    assert repr(trainable) == "second, trial 3 and later ones, see its log"
    assert trainable.trainer.config.batch_size == 100
    trainable.step()
    tunes = tmp_path / "tune"
    tunes.mkdir()
    trainable.save_checkpoint(str(tunes))
    folder = tmp_path / "second/trials/trial_00003/checkpoint_000001"
    assert [file.name for file in tunes.iterdir()] == [PLACE]
    assert (folder / run_files.CHECKPOINT).is_file()
    assert trainable.reset_config(config | {"method": "first", "trial": 0})
    assert (trainable.trainer.config.batch_size, trainable.trainer.epoch) == (50, 0)
    assert trainable.reset_config(config)
    trainable.load_checkpoint(str(tunes))
    assert trainable.trainer.epoch == 1
    assert begun(config | {"checkpoint": str(folder)}, specs).trainer.epoch == 1


def test_a_league_is_not_resumed_from_rays_snapshots(tmp_path: Path) -> None:
    searcher = Sides(tmp_path).searcher(2)
    assert searcher.set_max_concurrency(2)
    searcher.save(str(tmp_path / "snapshot"))
    searcher.save_to_dir(str(tmp_path), "session")
    assert not (tmp_path / "snapshot").exists()
    with pytest.raises(NotImplementedError, match="resumed from its journals"):
        searcher.restore(str(tmp_path / "snapshot"))
