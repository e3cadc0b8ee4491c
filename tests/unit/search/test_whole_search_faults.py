"""Whole searches on the fake backend in which things go wrong; benchmarks/faults.py breaks real processes."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.fake_backend import Script, run_scripted
from tests.support.spaces import tiny
from tune_cure.search import results, run_files
from tune_cure.search.journal import Event, Journal
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.proposals.study import create_storage
from tune_cure.search.results import SearchResult
from tune_cure.search.schedulers.memory_backoff import FIRST_SECONDS, GROWTH
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.files import FolderWatch, LostFolderError

NUMBERS = ["trial", "epoch", "train_loss", "clean_accuracy", "pgd_accuracy", "pgd_accuracy_best"]
NO_MEMORY = "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate {} bytes"
NO_SPACE = f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
MEMORY_KILL = "killed by Ray: the machine's memory was 96% full"
READ_ONLY = f"OSError: [Errno {errno.EROFS}] {os.strerror(errno.EROFS)}"
DEATH = "the worker process died: it was killed, ran out of memory or crashed"


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def rising(proposal: Proposal) -> Script:
    """A trial whose accuracy rises with each epoch; trial 1 is better than trial 0."""
    return Script([0.3 + 0.1 * (proposal.number % 2) + 0.02 * epoch for epoch in range(4)])


def failing(reason: str) -> Script:
    """A trial that fails at its first epoch, however often it is tried."""
    return Script([0.3], failures={1: [reason] * 10})


@pytest.fixture
def undisturbed(tmp_path: Path) -> Path:
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    assert run_scripted(tiny(folder, "search.trials=2"), folder, rising)[0].finished
    return folder


def interrupt(spec: SearchSpec, folder: Path, *, trial: int, epoch: int) -> None:
    """Run a search until this checkpoint."""

    def is_checkpoint(event: Event) -> bool:
        return event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (trial, epoch)

    assert run_scripted(spec, folder, rising, interrupt_at=is_checkpoint)[0].outcome == "interrupted"


def test_a_trial_whose_process_is_killed_continues_from_its_last_checkpoint(undisturbed: Path, tmp_path: Path) -> None:
    def scripts(proposal: Proposal) -> Script:
        failures = {3: [DEATH]} if proposal.number == 0 else {}
        return Script(rising(proposal).accuracies, failures=failures)

    assert run_scripted(tiny(tmp_path, "search.trials=2"), tmp_path, scripts)[0].finished
    trials = results.trials(tmp_path)
    assert trials["status"].tolist() == results.trials(undisturbed)["status"].tolist()
    assert trials["retries"].tolist() == [1, 0]
    assert trials["reason"].tolist() == [DEATH, ""]
    assert results.epochs(tmp_path)[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])
    epochs = [event["epoch"] for event in Journal(tmp_path).load().trial_events if event["event"] == "epoch"]
    assert epochs[:4] == [1, 2, 3, 4]  # none ran twice


def test_a_failing_trial_is_retried_as_often_as_search_retries_says_and_then_recorded_in_the_study(
    tmp_path: Path,
) -> None:
    spec = tiny(tmp_path, "search.trials=2", "search.retries=1")
    result, study = run_scripted(spec, tmp_path, lambda proposal: failing(NO_MEMORY.format(8)))
    assert result.finished
    trials = results.trials(tmp_path)
    assert list(trials["status"]) == ["failed", "failed"]
    assert list(trials["retries"]) == [1, 1]
    assert trials["reason"].str.contains("allocate memory").all()
    assert results.best(tmp_path) is None
    assert [told.state for told in study.trials] == [TrialState.FAIL] * 2


def test_trials_that_are_killed_for_memory_wait_and_others_go_on_meanwhile(undisturbed: Path, tmp_path: Path) -> None:
    def scripts(proposal: Proposal) -> Script:
        failures = {2: [MEMORY_KILL], 3: [MEMORY_KILL]} if proposal.number == 1 else {}
        return Script(rising(proposal).accuracies, failures=failures)

    steps: list[tuple[float, int, list[int]]] = []
    spec = tiny(tmp_path, "search.trials=6", "asha.grace_period=4", "resources.concurrent=2")
    result, _ = run_scripted(spec, tmp_path, scripts, on_step=lambda *step: steps.append(step))
    assert result.finished
    assert result.trials["status"].tolist() == ["completed"] * 6
    assert result.trials["retries"].tolist() == [0, 2, 0, 0, 0, 0]
    assert result.trials["reason"][1] == MEMORY_KILL
    times = [now for now, number, _ in steps if number == 1]
    first, second = times[1], times[3]  # its second epoch is killed, its third when it has gone on
    assert times[2] - first >= FIRST_SECONDS
    assert times[4] - second >= FIRST_SECONDS * GROWTH
    assert any(first < now < second and number != 1 for now, number, _ in steps)
    assert max(len(running) for now, _, running in steps if now <= second) == 2
    assert max(len(running) for now, _, running in steps if now > second + 1) == 1
    ours = results.epochs(tmp_path)[NUMBERS]
    assert ours.query("trial < 2").equals(results.epochs(undisturbed)[NUMBERS])


def test_a_search_whose_trials_wait_for_memory_can_be_interrupted_and_continued(tmp_path: Path) -> None:
    def scripts(proposal: Proposal) -> Script:
        return Script(rising(proposal).accuracies, failures={2: [MEMORY_KILL]})

    spec = tiny(tmp_path, "search.trials=1")
    result, _ = run_scripted(spec, tmp_path, scripts, interrupt_at=lambda event: event["event"] == "retry")
    assert result.outcome == "interrupted"
    assert results.trials(tmp_path)["status"].tolist() == ["unfinished"]
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished


def test_a_search_ends_if_its_first_trials_all_fail_for_the_same_reason(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=8", "search.retries=0")
    result, _ = run_scripted(spec, tmp_path, lambda proposal: failing(NO_MEMORY.format(proposal.number)))
    assert result.outcome == "failing"
    assert result.reason.startswith("the first 3 trials all failed: ")
    assert "allocate memory" in result.reason
    assert len(results.trials(tmp_path)) <= 4  # one may have been begun


def test_a_trial_that_fails_after_others_worked_does_not_end_the_search(tmp_path: Path) -> None:
    def scripts(proposal: Proposal) -> Script:
        return rising(proposal) if proposal.number == 0 else failing(NO_MEMORY.format(8))

    spec = tiny(tmp_path, "search.trials=5", "search.retries=0")
    assert run_scripted(spec, tmp_path, scripts)[0].finished
    assert results.trials(tmp_path)["status"].tolist() == ["completed", *["failed"] * 4]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_full_disk_ends_the_search_and_the_trial_that_met_it_goes_on_once_there_is_room(
    undisturbed: Path, tmp_path: Path, retries: int
) -> None:
    def scripts(proposal: Proposal) -> Script:
        return Script(rising(proposal).accuracies, failures={3: [NO_SPACE]} if proposal.number == 0 else {})

    spec = tiny(tmp_path, "search.trials=2", f"search.retries={retries}")
    result, _ = run_scripted(spec, tmp_path, scripts)
    assert (result.outcome, result.reason) == ("disk", "a trial found the disk full")
    trials = results.trials(tmp_path)
    assert trials["status"].tolist() == ["unfinished"]
    assert trials["retries"].tolist() == [0]
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished
    assert results.epochs(tmp_path)[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])


def test_a_folder_that_is_moved_away_ends_the_search_which_goes_on_once_it_is_back(
    undisturbed: Path, tmp_path: Path
) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()

    def move(event: Event) -> None:
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (0, 2):
            folder.rename(moved)

    spec = tiny(folder, "search.trials=2")
    with pytest.raises(LostFolderError, match="was deleted or moved away") as raised:
        run_scripted(spec, folder, rising, on_event=move)
    assert raised.value.exit_code == 1
    assert not folder.exists()
    moved.rename(folder)
    assert run_scripted(spec, folder, rising, resume=True)[0].finished
    assert results.epochs(folder)[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])


@pytest.mark.parametrize("retries", [0, 2])
def test_a_folder_that_becomes_read_only_ends_the_search_and_no_trial_fails(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    def scripts(proposal: Proposal) -> Script:
        return Script(rising(proposal).accuracies, failures={3: [READ_ONLY]} if proposal.number == 0 else {})

    def find_fault(watch: FolderWatch) -> str:
        return f"{watch.folder} cannot be written to: Read-only file system" if is_read_only else ""

    def set_read_only(event: Event) -> None:
        nonlocal is_read_only
        is_read_only |= event["event"] == "checkpoint" and event["epoch"] == 2

    is_read_only = False
    monkeypatch.setattr(FolderWatch, "find_fault", find_fault)
    spec = tiny(tmp_path, "search.trials=2", f"search.retries={retries}")
    result, _ = run_scripted(spec, tmp_path, scripts, on_event=set_read_only)
    assert (result.outcome, result.reason) == ("disk", f"{tmp_path} cannot be written to: Read-only file system")
    assert result.trials["status"].tolist() == ["unfinished"]
    assert result.trials["retries"].tolist() == [0]
    is_read_only = False
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished
    assert results.epochs(tmp_path)[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])


def test_a_checkpoint_that_cannot_be_written_for_want_of_space_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spec = tiny(tmp_path, "search.trials=2")
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.fake_backend.ScriptedWorker.save", full)
        assert run_scripted(spec, tmp_path, rising)[0].outcome == "disk"
    assert results.trials(tmp_path)["status"].tolist() == ["unfinished"]
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished


def test_a_time_budget_leaves_what_was_under_way_to_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tune_cure.search.stopping.time", SimpleNamespace(time=lambda: clock[0]))

    def pass_time(event: Event) -> None:
        clock[0] += event["event"] == "checkpoint"

    spec = tiny(tmp_path, "search.trials=4", "asha.grace_period=4")
    result, _ = run_scripted(spec, tmp_path, rising, budget=5.5, on_event=pass_time)
    assert result.outcome == "time"
    before = results.epochs(tmp_path)
    assert 6 <= len(before) < 4 * 4
    assert "unfinished" in set(results.trials(tmp_path)["status"])
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished
    assert results.trials(tmp_path)["status"].tolist() == ["completed"] * 4
    again = results.epochs(tmp_path).merge(before[["trial", "epoch", "train_loss"]], on=["trial", "epoch"])
    assert (again["train_loss_x"] == again["train_loss_y"]).all()


def test_a_search_that_improves_no_more_proposes_no_more_and_is_finished(tmp_path: Path) -> None:
    def scripts(proposal: Proposal) -> Script:
        return Script([0.5 - 0.01 * abs(proposal.number - 2)])

    result, _ = run_scripted(tiny(tmp_path, "search.trials=40", "search.patience=3"), tmp_path, scripts)
    assert result.outcome == "patience"
    assert result.finished
    trials = results.trials(tmp_path)
    assert len(trials) < 40
    assert (trials["status"] != "unfinished").all()
    best = results.best(tmp_path)
    assert best is not None
    assert (trials["ended"] > best.row["ended"]).sum() >= 3


def test_a_finished_search_can_be_made_longer(undisturbed: Path, tmp_path: Path) -> None:
    assert run_scripted(tiny(tmp_path, "search.trials=2"), tmp_path, rising)[0].finished
    result, study = run_scripted(tiny(tmp_path, "search.trials=4"), tmp_path, rising, resume=True)
    assert result.finished
    trials = results.trials(tmp_path)
    assert list(trials["trial"]) == [0, 1, 2, 3]
    assert not trials[["lambda", "h"]].duplicated().any()
    assert results.epochs(tmp_path).query("trial < 2")[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])
    assert [told.number for told in study.trials] == [0, 1, 2, 3]


def test_a_study_that_was_lost_is_as_before(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=3")
    result, study = run_scripted(spec, tmp_path, rising, storage=create_storage(tmp_path))
    assert result.finished
    before = [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in study.trials]
    (tmp_path / run_files.STUDY).write_bytes(b"torn")
    result, _ = run_scripted(spec, tmp_path, rising, resume=True, storage=create_storage(tmp_path))
    assert result.finished
    again = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in again.trials] == before


def test_a_damaged_checkpoint_costs_epochs_but_no_trial(undisturbed: Path, tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=2")
    interrupt(spec, tmp_path, trial=0, epoch=2)
    checkpoints = [event for event in Journal(tmp_path).load().trial_events if event["event"] == "checkpoint"]
    (tmp_path / checkpoints[-1]["path"] / run_files.CHECKPOINT).write_bytes(b"torn")
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished
    assert list(results.trials(tmp_path)["trial"]) == [0, 1]
    ours, theirs = (results.epochs(folder).query("trial == 0")[NUMBERS] for folder in (tmp_path, undisturbed))
    assert ours.equals(theirs)


def test_a_trial_under_way_begins_anew_where_its_settings_were_changed(tmp_path: Path) -> None:
    interrupt(tiny(tmp_path, "search.trials=1"), tmp_path, trial=0, epoch=2)
    Journal(tmp_path).append("change", None, settings="training.epochs was 4 and is 3", restart=True)
    spec = tiny(tmp_path, "search.trials=1", "training.epochs=3")
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished
    trials = results.trials(tmp_path)
    assert trials["epochs_trained"].tolist() == [3]
    assert results.epochs(tmp_path)["epoch"].tolist() == [1, 2, 3]
    assert SearchResult(tmp_path).summary["changes"] == ["training.epochs was 4 and is 3"]
