"""Searches that W&B (offline) and trackio track, read back from their stores; skipped without the extras."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_backend import run_scripted
from tests.support.spaces import tiny
from tests.support.tracked_searches import run_killed_and_resumed, scripts
from tests.support.tracker_stores import Tracked, read_trackio, read_wandb
from tune_cure.search import results, run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.trackers import tracking
from tune_cure.utils.environment import is_installed

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers and what they use

NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))
    for name in ("wandb", "trackio")
]
READERS: dict[str, Callable[[Path], dict[str, Tracked]]] = {
    "wandb": read_wandb,
    "trackio": lambda folder: read_trackio("tiny", folder),
}


@pytest.fixture(autouse=True)
def stores(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for trackio's database, which it fixes when it is imported, and no settings of the user's."""
    os.environ.setdefault("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def check(tracked: dict[str, Tracked], folder: Path) -> None:
    """Compare what a tracker has of a search with the search's own tables."""
    trials, epochs = results.trials(folder), results.epochs(folder)
    assert set(tracked) == {"search", *map(str, trials["trial"])}
    for _, trial in trials.iterrows():
        run = tracked[str(trial["trial"])]
        assert (run.status, run.reason) == (trial["status"], trial["reason"])
        assert run.settings["lambda"] == trial["lambda"]
        rows = epochs[(epochs["trial"] == trial["trial"]) & epochs["pgd_accuracy"].notna()]
        assert run.epochs == dict(zip(rows["epoch"], rows["pgd_accuracy"], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_store_of_a_search_that_was_killed_and_resumed_has_every_trial_epoch_and_status(
    name: str, tmp_path: Path
) -> None:
    spec = tiny(tmp_path, "search.trials=6")

    def after_kill(killed: Any) -> None:
        for run in getattr(killed, "runs", {}).values():
            run.finish()  # as W&B's own process does when that of the search is gone

    resumed = run_killed_and_resumed(spec, tmp_path, partial(tracking.make, name, spec, tmp_path), after_kill)
    (tmp_path / run_files.REPORT).write_text("<html>")
    resumed.finish()
    tracked = READERS[name](tmp_path)
    check(tracked, tmp_path)
    assert tracked["search"].artifacts == {"spec.yaml", "report.html"}
    best = SearchResult(tmp_path).best
    assert best is not None
    settings = tracked["search"].settings
    assert settings.get("best_trial", settings.get("summary.best_trial")) == best.trial
    assert {"completed", "diverged", "failed"} <= {run.status for run in tracked.values()}
    assert [run.exit_code for run in tracked.values()].count(1) == (2 if name == "wandb" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_to_run_is_unfinished_and_goes_on_in_the_same_run(name: str, tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=6")
    with tracking.track([name], spec, tmp_path, []) as send:
        run_scripted(spec, tmp_path, scripts, on_event=send, interrupt_at=lambda event: event["trial"] == 3)
    assert READERS[name](tmp_path)["3"].status == "unfinished"
    with tracking.track([name], spec, tmp_path, Journal(tmp_path).read()) as send:
        run_scripted(spec, tmp_path, scripts, resume=True, on_event=send)
    check(READERS[name](tmp_path), tmp_path)


@pytest.mark.skipif(not (is_installed("wandb") and is_installed("trackio")), reason="needs wandb and trackio")
def test_several_trackers_at_once_each_have_the_whole_search(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    spec = tiny(tmp_path, "search.trials=6")
    with tracking.track(["wandb", "trackio", "wandb"], spec, tmp_path, []) as send:
        run_scripted(spec, tmp_path, scripts, on_event=send)
    assert [record for record in caplog.records if record.name == tracking.__name__] == []
    assert "".join(capfd.readouterr()) == ""  # neither prints into the live view
    for name in ("wandb", "trackio"):
        check(READERS[name](tmp_path), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_fails_is_a_warning_and_the_search_goes_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / (run_files.WANDB_RUNS if name == "wandb" else run_files.TRACKIO_RUN)
    file.mkdir()  # where the tracker's own file would be
    spec = tiny(tmp_path, "search.trials=6")
    with tracking.track([name], spec, tmp_path, []) as send:
        run_scripted(spec, tmp_path, scripts, on_event=send)
    assert len(results.trials(tmp_path)) == 6
    (warning,) = (record for record in caplog.records if record.name == tracking.__name__)
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith(f"{tracking.TRACKERS[name]}: tracking ends here: ")
