"""Searches that MLflow tracks, read back by its own client; skipped without the extra."""

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fake_backend import run_scripted
from tests.support.spaces import TINY, tiny
from tests.support.tracked_searches import run_killed_and_resumed, scripts
from tune_cure.cli.main import main
from tune_cure.cli.steps import search_run
from tune_cure.search import results, run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trackers import tracking

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow and what it uses


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / run_files.MLFLOW_STORE}"


def run(folder: Path) -> None:
    """Run a whole scripted search with the tracker."""
    spec = tiny(folder, "search.trials=6")
    with tracking.track(["mlflow"], spec, folder, []) as send:
        run_scripted(spec, folder, scripts, on_event=send)


def runs_of(uri: str, folder: Path) -> tuple[Any, dict[int, Any]]:
    """The run of the search in a folder, and those of its trials by number."""
    read = client(uri)
    parent = read.get_run((folder / run_files.MLFLOW_RUN).read_text().strip())
    found = read.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    runs = {int(run.data.tags["tune_cure.trial"]): run for run in found}
    assert len(runs) == len(found)
    return parent, runs


def test_the_store_of_a_search_that_was_killed_and_resumed_has_every_trial_epoch_and_status(
    tmp_path: Path, uri: str
) -> None:
    spec = tiny(tmp_path, "search.trials=6")
    resumed = run_killed_and_resumed(spec, tmp_path, partial(tracking.make, "mlflow", spec, tmp_path))
    resumed.finish()
    parent, runs = runs_of(uri, tmp_path)
    trials, epochs = results.trials(tmp_path), results.epochs(tmp_path)
    assert (parent.info.status, parent.data.tags["best_trial"]) == ("FINISHED", str(SearchResult(tmp_path).best.trial))
    assert sorted(runs) == trials["trial"].tolist()
    for _, trial in trials.iterrows():
        tracked = runs[trial["trial"]]
        status = {"completed": "FINISHED", "stopped": "KILLED"}.get(trial["status"], "FAILED")
        assert (tracked.info.status, tracked.data.tags["status"]) == (status, trial["status"])
        assert tracked.data.tags["reason"] == trial["reason"]
        assert float(tracked.data.params["lambda"]) == trial["lambda"]
        history = client(uri).get_metric_history(tracked.info.run_id, "pgd_accuracy")
        rows = epochs[(epochs["trial"] == trial["trial"]) & epochs["pgd_accuracy"].notna()]
        assert sorted((metric.step, metric.value) for metric in history) == [
            *zip(rows["epoch"], rows["pgd_accuracy"], strict=True)
        ]
    assert {"completed", "diverged", "failed"} <= set(trials["status"])
    assert runs[2].data.tags["retries"] == "2"


def test_the_files_of_the_search_are_artifacts_in_its_folder(tmp_path: Path, uri: str) -> None:
    (tmp_path / run_files.REPORT).write_text("<html>")
    run(tmp_path)
    parent, _ = runs_of(uri, tmp_path)
    assert {file.path for file in client(uri).list_artifacts(parent.info.run_id)} == {"spec.yaml", "report.html"}
    assert parent.info.artifact_uri.startswith((tmp_path / "mlflow").as_uri())


def test_what_is_left_to_run_is_scheduled_and_a_store_of_the_users_takes_several_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/all.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        spec = tiny(tmp_path / name, "search.trials=6")
        with tracking.track(["mlflow"], spec, tmp_path / name, []) as send:
            run_scripted(spec, tmp_path / name, scripts, on_event=send, interrupt_at=lambda event: event["trial"] == 3)
    for name in ("a", "b"):
        parent, runs = runs_of(uri, tmp_path / name)
        assert (parent.info.status, runs[3].info.status, sorted(runs)) == ("SCHEDULED", "SCHEDULED", [0, 1, 2, 3])
        assert not (tmp_path / name / run_files.MLFLOW_STORE).exists()


def test_a_tracker_that_fails_is_a_warning_and_the_search_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    run(tmp_path)
    assert len(results.trials(tmp_path)) == 6
    (warning,) = (record for record in caplog.records if record.name == tracking.__name__)
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith("MLflow: tracking ends here: ")


def test_a_store_that_somebody_sent_writes_nothing_elsewhere(
    tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    read = client(f"sqlite:///{tmp_path}/run/mlflow.db")
    read.create_experiment("tiny", artifact_location=(tmp_path / "elsewhere").as_uri())
    run(tmp_path / "run")
    assert not (tmp_path / "elsewhere").exists()
    assert "mlflow.db keeps its files in file://" in caplog.text


def test_a_tracker_that_takes_too_long_is_left_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.0)
    slow = SimpleNamespace(on_event=lambda event: None, finish=lambda: None)
    thread = tracking.TrackerThread("MLflow", lambda: slow)
    thread.close()
    assert not caplog.text or "did not take everything within 0 s; --resume sends the rest" in caplog.text


def test_the_command_sends_its_events_and_prints_nothing_of_mlflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_trials(spec: SearchSpec, folder: search_run.RunFolder, *_: object) -> SearchResult:
        return run_scripted(spec, folder.directory, scripts, on_event=folder.track)[0]

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(search_run, "run_trials", run_trials)
    monkeypatch.setattr(search_run, "write_results", lambda result, folder: None)
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    assert main(["search", str(tmp_path / "tiny.yaml"), "--output", str(out), "--track", "mlflow"]) == 0
    parent, runs = runs_of(f"sqlite:///{out}/mlflow.db", out)
    assert (parent.info.status, sorted(runs)) == ("FINISHED", list(range(8)))
    assert "mlflow" not in capsys.readouterr().err.lower()
