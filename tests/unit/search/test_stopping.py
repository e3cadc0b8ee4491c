import errno
import os
from pathlib import Path

import pytest

from tests.support.journal_lines import judge_leader, write_ended_trial
from tests.support.spaces import tiny
from tune_cure.search.journal import OBJECTIVE, Event, Journal, TrialCounts
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import FULL_DISK_ERROR, MAX_EQUAL_FAILURES, SearchStopper
from tune_cure.search.trial_table import SearchRecord


@pytest.fixture
def spec(tmp_path: Path) -> SearchSpec:
    return tiny(tmp_path, "search.patience=2")


def ended(trial: int, objective: float, status: str = "completed", reason: str = "", clean: float = 0.9) -> list[Event]:
    accuracies = {"clean_accuracy": clean, "pgd_accuracy": objective}
    epoch = {"event": "epoch", "trial": trial, **accuracies, OBJECTIVE: objective}
    return [epoch, {"event": "end", "trial": trial, "status": status, "reason": reason}]


def failed(trial: int, reason: str) -> Event:
    return {"event": "end", "trial": trial, "status": "failed", "reason": reason}


def after(endings: SearchStopper, *events: Event) -> SearchStopper:
    for event in events:
        endings.take(event)
    return endings


def test_nothing_ends_a_search_by_itself(spec: SearchSpec, tmp_path: Path) -> None:
    endings = after(SearchStopper(spec, tmp_path, None, []), *ended(0, 0.5), *ended(1, 0.6))
    assert not endings.stop_all()
    assert not endings.exhausted


def test_the_time_budget_ends_it(spec: SearchSpec, tmp_path: Path) -> None:
    endings = SearchStopper(spec, tmp_path, 3600, [])
    assert not endings.stop_all()
    assert endings.deadline is not None
    endings.deadline -= 3601
    assert endings.stop_all()
    assert endings.outcome == "time"


def test_patience_counts_the_ended_trials_since_the_best(spec: SearchSpec, tmp_path: Path) -> None:
    endings = after(
        SearchStopper(spec, tmp_path, None, []), *ended(0, 0.5), *ended(1, 0.4), *ended(2, 0.6), *ended(3, 0.6)
    )
    assert not endings.exhausted
    assert after(endings, *ended(4, 0.9, "catastrophic_overfitting")).exhausted  # an unsound end improves nothing
    assert not endings.stop_all()  # trials under way run on


def test_patience_minds_the_direction_and_what_was_before_an_interruption(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.patience=2", "search.mode=min")
    history = [*ended(0, 0.5), *ended(1, 0.6)]
    assert not SearchStopper(spec, tmp_path, None, history).exhausted
    assert SearchStopper(spec, tmp_path, None, [*history, *ended(2, 0.7)]).exhausted
    assert not SearchStopper(spec, tmp_path, None, [*history, *ended(2, 0.3)]).exhausted


def test_patience_takes_no_trial_that_violates_the_constraints_for_an_improvement(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.patience=2", "search.constraints=[clean_accuracy >= 0.5]")
    endings = after(SearchStopper(spec, tmp_path, None, []), *ended(0, 0.5, clean=0.1), *ended(1, 0.4))
    assert not after(endings, *ended(2, 0.6, clean=0.4)).exhausted  # trial 1 keeps them, so it leads
    assert after(endings, *ended(3, 0.7, clean=0.4)).exhausted
    assert not after(endings, *ended(4, 0.45)).exhausted


def test_first_trials_that_all_fail_alike_end_it(spec: SearchSpec, tmp_path: Path) -> None:
    endings = SearchStopper(spec, tmp_path, None, [])
    for trial in range(MAX_EQUAL_FAILURES):
        assert not endings.stop_all()
        after(endings, failed(trial, f"CUDA out of memory: tried to allocate {trial} MiB"))
    assert endings.stop_all()
    assert endings.outcome == "failing"
    assert endings.reason == "the first 3 trials all failed: CUDA out of memory: tried to allocate 2 MiB"


@pytest.mark.parametrize(
    "events",
    [
        [failed(0, "a"), failed(1, "b"), failed(2, "a")],
        [*ended(0, 0.5), failed(1, "a"), failed(2, "a"), failed(3, "a")],
        [failed(0, "a"), failed(1, "a"), *ended(2, 0.5), failed(3, "a"), failed(4, "a")],
    ],
    ids=["other reasons", "one works", "the third works"],
)
def test_other_failures_do_not(events: list[Event], spec: SearchSpec, tmp_path: Path) -> None:
    assert not after(SearchStopper(spec, tmp_path, None, []), *events).stop_all()


def test_failures_before_an_interruption_do_not_keep_it_from_going_on(spec: SearchSpec, tmp_path: Path) -> None:
    history = [failed(0, "a"), failed(1, "a"), failed(2, "a")]
    assert not SearchStopper(spec, tmp_path, None, history).stop_all()
    worked = SearchStopper(spec, tmp_path, None, ended(0, 0.5))
    assert not after(worked, *history).stop_all()


def test_a_full_disk_ends_it(spec: SearchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endings = SearchStopper(spec, tmp_path, None, [])
    monkeypatch.setattr("tune_cure.search.stopping.RESERVED_BYTES", 2**60)
    assert endings.stop_all()
    assert endings.outcome == "disk"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_that_is_used_up_is_a_full_disk(error: int) -> None:
    assert FULL_DISK_ERROR.search(str(OSError(error, os.strerror(error))))


def test_a_time_budget_that_ends_with_the_last_trial_leaves_a_finished_search(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=2")
    Journal(tmp_path).path.touch()
    counts = TrialCounts([{"event": event, "trial": trial} for trial in (0, 1) for event in ("trial", "end")])
    one_runs = TrialCounts([{"event": "trial", "trial": 0}])
    endings = SearchStopper(spec, tmp_path, -1, [])
    assert not endings.is_cut_short(one_runs, SearchRecord())
    assert endings.stop_all()
    assert (endings.is_cut_short(one_runs, SearchRecord()), endings.is_cut_short(counts, SearchRecord())) == (
        True,
        False,
    )
    assert endings.conclude(one_runs, SearchRecord()).outcome == "time"
    assert endings.conclude(counts, SearchRecord()).outcome == "finished"
    interrupted = SearchStopper(spec, tmp_path, None, [])
    interrupted.interrupt()
    assert interrupted.is_cut_short(counts, SearchRecord())


def test_a_search_with_fewer_trials_than_have_begun_is_over_when_these_have_ended(tmp_path: Path) -> None:
    Journal(tmp_path).path.touch()
    stopper = SearchStopper(tiny(tmp_path, "search.trials=2"), tmp_path, None, [])
    counts = TrialCounts([{"event": "trial", "trial": trial} for trial in range(4)])
    left = []
    for trial in range(4):
        left.append(counts.count_left(2))
        assert not stopper.is_over(counts)
        assert stopper.conclude(counts, SearchRecord()).outcome == "interrupted"
        counts.take({"event": "end", "trial": trial})
    assert left == [4, 3, 2, 1]
    assert stopper.is_over(counts)
    assert stopper.conclude(counts, SearchRecord()).outcome == "finished"


@pytest.mark.parametrize(("seconds", "outcome"), [(-1, "time"), (None, "finished")])
def test_a_time_budget_that_ends_before_the_leaders_are_judged_leaves_something_to_do(
    seconds: float | None, outcome: str, tmp_path: Path
) -> None:
    spec = tiny(tmp_path, "search.trials=1", "evaluation.examples=60")
    journal = Journal(tmp_path)
    write_ended_trial(journal)
    endings = SearchStopper(spec, tmp_path, seconds, journal.read())
    endings.stop_all()
    record = SearchRecord(journal.load())
    assert endings.conclude(TrialCounts(record.history), record).outcome == outcome
    judge_leader(journal, spec)
    record = SearchRecord(journal.load())
    assert endings.conclude(TrialCounts(record.history), record).outcome == "finished"
