"""What a search makes of things that go wrong; benchmarks/faults.py breaks whole processes, at random moments."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import ray
from optuna.trial import TrialState

from tests.support.spaces import tiny
from tune_cure.ray_backend import session, tuner
from tune_cure.search import results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec

pytestmark = pytest.mark.usefixtures("ray_session")

NUMBERS = ["trial", "epoch", "train_loss", "clean_accuracy", "pgd_accuracy", "pgd_accuracy_best"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert tuner.run(tiny(folder, "search.trials=2"), folder).finished
    return folder


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}")


def interrupted(spec: SearchSpec, folder: Path, *, trial: int, epoch: int) -> None:
    """Runs a search until this checkpoint."""

    def stop(event: Event) -> None:
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (trial, epoch):
            signal.raise_signal(signal.SIGINT)

    assert tuner.run(spec, folder, on_event=stop).outcome == "interrupted"


WIDER_THAN_MEMORY = "model.width=10_000_000"  # a network that no worker can build


def test_what_else_ray_reports_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (f"{session.DEATH} by an unexpected system error.", "The actor cannot be scheduled right now."):
        ray._private.worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    printed = capsys.readouterr().out
    assert session.DEATH not in printed
    assert "cannot be scheduled" in printed


@pytest.mark.smoke
def test_a_trial_whose_process_is_killed_goes_on_from_its_last_checkpoint(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pids: list[int] = []

    def kill(event: Event) -> None:
        if event["event"] == "epoch":
            pids.append(event["pid"])
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (0, 2):
            os.kill(pids[-1], signal.SIGKILL)

    assert tuner.run(tiny(tmp_path, "search.trials=2"), tmp_path, on_event=kill).finished
    assert "raylet" not in capsys.readouterr().out  # the view says it, in a line
    trials = results.trials(tmp_path)
    assert trials["status"].tolist() == results.trials(undisturbed)["status"].tolist()
    assert trials["retries"].tolist() == [1, 0]
    log = f"worker-*-{pids[0]}.err in Ray's logs may say which"
    reason = f"the worker process died: it was killed, ran out of memory or crashed; {log}"
    assert trials["reason"].tolist() == [reason, ""]
    assert results.epochs(tmp_path)[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])


def test_a_trial_that_fails_is_retried_as_often_as_asked_and_then_told_to_the_study(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=2", "search.retries=1", WIDER_THAN_MEMORY)
    assert tuner.run(spec, tmp_path).finished
    trials = results.trials(tmp_path)
    assert list(trials["status"]) == ["failed", "failed"]
    assert list(trials["retries"]) == [1, 1]
    assert trials["reason"].str.contains("allocate memory").all()
    assert results.best(tmp_path) is None
    assert [told.state for told in study_of(tmp_path).trials] == [TrialState.FAIL] * 2


def test_first_trials_that_all_fail_alike_end_the_search(tmp_path: Path) -> None:
    result = tuner.run(tiny(tmp_path, "search.trials=8", "search.retries=0", WIDER_THAN_MEMORY), tmp_path)
    assert result.outcome == "failing"
    assert result.reason.startswith("the first 3 trials all failed: ")
    assert "allocate memory" in result.reason
    assert len(results.trials(tmp_path)) <= 4  # one may have been begun


def test_a_time_budget_leaves_what_was_under_way_to_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tune_cure.search.stopping.time", SimpleNamespace(time=lambda: clock[0]))

    def pass_time(event: Event) -> None:
        clock[0] += event["event"] == "checkpoint"

    spec = tiny(tmp_path, "search.trials=4", "asha.grace_period=4")
    result = tuner.run(spec, tmp_path, seconds=5.5, on_event=pass_time)
    assert result.outcome == "time"
    before = results.epochs(tmp_path)
    assert 6 <= len(before) < 4 * 4
    assert "unfinished" in set(results.trials(tmp_path)["status"])
    assert tuner.run(spec, tmp_path, resume=True).finished
    assert results.trials(tmp_path)["status"].tolist() == ["completed"] * 4
    again = results.epochs(tmp_path).merge(before[["trial", "epoch", "train_loss"]], on=["trial", "epoch"])
    assert (again["train_loss_x"] == again["train_loss_y"]).all()


def test_a_search_that_improves_no_more_proposes_no_more_and_is_finished(tmp_path: Path) -> None:
    result = tuner.run(tiny(tmp_path, "search.trials=40", "search.patience=3"), tmp_path)
    assert result.outcome == "patience"
    assert result.finished
    trials = results.trials(tmp_path)
    assert len(trials) < 40
    assert (trials["status"] != "unfinished").all()
    best = results.best(tmp_path)
    assert best is not None
    assert (trials["ended"] > best.row["ended"]).sum() >= 3


def test_a_finished_search_can_be_made_longer(undisturbed: Path, tmp_path: Path) -> None:
    assert tuner.run(tiny(tmp_path, "search.trials=2"), tmp_path).finished
    assert tuner.run(tiny(tmp_path, "search.trials=4"), tmp_path, resume=True).finished
    trials = results.trials(tmp_path)
    assert list(trials["trial"]) == [0, 1, 2, 3]
    assert not trials[["lambda", "h"]].duplicated().any()
    assert results.epochs(tmp_path).query("trial < 2")[NUMBERS].equals(results.epochs(undisturbed)[NUMBERS])
    assert [told.number for told in study_of(tmp_path).trials] == [0, 1, 2, 3]


def test_a_study_that_was_lost_is_as_before(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=3")
    assert tuner.run(spec, tmp_path).finished
    before = [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in study_of(tmp_path).trials]
    (tmp_path / "study.db").write_bytes(b"torn")
    assert tuner.run(spec, tmp_path, resume=True).finished
    after = [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in study_of(tmp_path).trials]
    assert after == before


def test_a_damaged_checkpoint_costs_epochs_but_no_trial(undisturbed: Path, tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=2")
    interrupted(spec, tmp_path, trial=0, epoch=2)
    checkpoints = [event for event in Journal(tmp_path).read() if event["event"] == "checkpoint"]
    (tmp_path / checkpoints[-1]["path"] / "trainer.pt").write_bytes(b"torn")
    assert tuner.run(spec, tmp_path, resume=True).finished
    assert list(results.trials(tmp_path)["trial"]) == [0, 1]
    ours, theirs = (results.epochs(folder).query("trial == 0")[NUMBERS] for folder in (tmp_path, undisturbed))
    assert ours.equals(theirs)


def test_a_trial_under_way_begins_anew_where_its_settings_were_changed(tmp_path: Path) -> None:
    interrupted(tiny(tmp_path, "search.trials=1"), tmp_path, trial=0, epoch=2)
    Journal(tmp_path).append("change", None, settings="training.epochs was 4 and is 3", restart=True)
    assert tuner.run(tiny(tmp_path, "search.trials=1", "training.epochs=3"), tmp_path, resume=True).finished
    trials = results.trials(tmp_path)
    assert trials["epochs_trained"].tolist() == [3]
    assert results.epochs(tmp_path)["epoch"].tolist() == [1, 2, 3]
    assert SearchResult(tmp_path).summary["changes"] == ["training.epochs was 4 and is 3"]
