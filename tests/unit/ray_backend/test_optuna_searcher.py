from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.search.journal import Journal
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import SearchStopper
from tune_cure.search.storage.run_storage import ObjectStore, RunStorage, UriStorage

STOPPED = {"ended": "", "catastrophic_overfitting": False}  # of a last result: the scheduler ended the trial


def make_searcher(spec: SearchSpec, folder: Path, run_storage: RunStorage | None = None) -> OptunaSearcher:
    journal, storage = Journal(folder), optuna.storages.InMemoryStorage()
    stopper = SearchStopper(spec, folder, None, [])
    proposer = StudyProposer(spec, journal, journal.read(), stopper, storage=storage, run_storage=run_storage)
    return OptunaSearcher(proposer, MemoryBackoff(8))


def test_tunes_calls_reach_the_study_under_the_trials_numbers(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=3")
    searcher = make_searcher(spec, tmp_path)
    configs = [searcher.suggest(name) for name in ("a", "b", "c")]
    assert configs[0] == {**spec.start_from[0], "trial": 0}
    assert [config["trial"] for config in configs if isinstance(config, dict)] == [0, 1, 2]
    searcher.on_trial_result("b", {"training_iteration": 1, "objective": 0.1})
    searcher.on_trial_complete("b", {"training_iteration": 2, "objective": 0.2, **STOPPED})
    searcher.on_trial_complete("a", {"training_iteration": 4, "objective": 0.4, "ended": "completed"})
    searcher.on_trial_complete("c", {"training_iteration": 1, "objective": 0.3, **STOPPED}, error=True)
    assert searcher.suggest("d") == OptunaSearcher.FINISHED
    told = searcher.proposer.study.trials
    assert [trial.state for trial in told] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.value for trial in told] == [0.4, 0.2, None]
    assert [trial.intermediate_values for trial in told] == [{4: 0.4}, {1: 0.1, 2: 0.2}, {}]


def test_no_more_trials_begin_than_memory_allows(tmp_path: Path) -> None:
    searcher = make_searcher(tiny(tmp_path, "search.trials=3"), tmp_path)
    assert searcher.set_max_concurrency(3)
    searcher.backoff.limit = 1  # as after trials that were killed
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None  # Tune asks again later
    searcher.on_trial_complete("a", {"training_iteration": 4, "objective": 0.4, "ended": "completed"})
    assert isinstance(searcher.suggest("b"), dict)


def test_with_a_budget_tune_asks_again_while_a_running_trial_may_leave_some_of_it(tmp_path: Path) -> None:
    searcher = make_searcher(tiny(tmp_path, "search.budget_epochs=4", "search.trials=9"), tmp_path)
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None  # the first trial may train four epochs
    budget = searcher.proposer.stopper.budget
    budget.take({"event": "epoch", "trial": 0, "epoch": 1, "train_seconds": 1.0})
    searcher.on_trial_complete("a", {"training_iteration": 1, "objective": 0.1, **STOPPED})
    budget.take({"event": "end", "trial": 0})
    assert isinstance(searcher.suggest("b"), dict)
    for epoch in (1, 2, 3):
        budget.take({"event": "epoch", "trial": 1, "epoch": epoch, "train_seconds": 1.0})
    searcher.on_trial_complete("b", {"training_iteration": 3, "objective": 0.1, **STOPPED})
    budget.take({"event": "end", "trial": 1})
    assert searcher.suggest("c") == OptunaSearcher.FINISHED


def test_once_patience_is_used_up_tune_asks_again_while_a_running_trial_may_be_a_new_best(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "search.patience=1", "search.trials=9"), Journal(tmp_path)
    searcher = make_searcher(spec, tmp_path)
    stopper = searcher.proposer.stopper

    def complete(trial_id: str, number: int, accuracy: float) -> None:
        result = {"training_iteration": 4, "objective": accuracy, "ended": "completed"}
        searcher.on_trial_complete(trial_id, result)
        accuracies = {"pgd_accuracy": accuracy, "clean_accuracy": 0.9, "objective": accuracy}
        stopper.take(journal_lines.epoch(journal, number, epoch=4, **accuracies))
        stopper.take(journal_lines.end(journal, number))

    for trial_id in "abc":
        assert isinstance(searcher.suggest(trial_id), dict)
    complete("a", 0, 0.3)
    complete("b", 1, 0.2)
    assert stopper.exhausted
    assert searcher.suggest("d") is None  # the third trial may be the best
    complete("c", 2, 0.4)
    assert isinstance(searcher.suggest("d"), dict)
    complete("d", 3, 0.1)
    assert searcher.suggest("e") == OptunaSearcher.FINISHED


def test_a_trial_that_goes_on_gets_the_checkpoint_in_the_object_store(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path), Journal(tmp_path)
    journal_lines.begin(journal, 0)
    journal_lines.epoch(journal, 0)
    path = "trials/trial_00000/checkpoint_000000"
    journal.append("checkpoint", 0, epoch=1, path=path)
    storage = UriStorage(ObjectStore(f"file://{tmp_path}/store/run"), tmp_path)
    (tmp_path / "store" / "run" / path).mkdir(parents=True)
    (tmp_path / "store" / "run" / path / "trainer.pt").touch()
    checkpoint = f"file://{tmp_path}/store/run/{path}"
    config = make_searcher(spec, tmp_path, storage).suggest("a")
    assert config == {**journal_lines.VALUES, "trial": 0, "checkpoint": checkpoint}


def test_a_trial_whose_checkpoint_is_gone_from_the_object_store_begins_anew(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path), Journal(tmp_path)
    journal_lines.begin(journal, 0)
    journal_lines.epoch(journal, 0)
    journal.append("checkpoint", 0, epoch=1, path="trials/trial_00000/checkpoint_000000")
    storage = UriStorage(ObjectStore(f"file://{tmp_path}/store/run"), tmp_path)
    assert make_searcher(spec, tmp_path, storage).suggest("a") == {**journal_lines.VALUES, "trial": 0}


def test_rays_snapshots_are_neither_written_nor_read(tmp_path: Path) -> None:
    searcher = make_searcher(tiny(tmp_path), tmp_path)
    searcher.save(str(tmp_path / "snapshot"))
    searcher.save_to_dir(str(tmp_path), "session")
    assert not (tmp_path / "snapshot").exists()
    with pytest.raises(NotImplementedError, match="resumed from its journal"):
        searcher.restore(str(tmp_path / "snapshot"))


def test_a_trial_that_the_scheduler_stops_while_it_is_overfitted_has_that_status_in_the_study(tmp_path: Path) -> None:
    searcher = make_searcher(tiny(tmp_path), tmp_path)
    searcher.suggest("a")
    result = {"training_iteration": 2, "objective": 0.1, "ended": "", "catastrophic_overfitting": True}
    searcher.on_trial_complete("a", result)
    assert searcher.proposer.study.trials[0].user_attrs["status"] == "catastrophic_overfitting"
