"""What a search makes of things that go wrong; benchmarks/faults.py breaks whole processes, at random moments."""

import os
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.registered_parts import forget_afterwards
from tests.support.spaces import TINY, tiny
from tune_cure.ray_backend import tuner
from tune_cure.search import results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.space.loading import load

pytestmark = pytest.mark.usefixtures("ray_session")

NUMBERS = ["trial", "epoch", "train_loss", "clean_accuracy", "pgd_accuracy", "pgd_accuracy_best"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert tuner.run(tiny(folder, "search.trials=2"), folder).finished
    return folder


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}")


WIDER_THAN_MEMORY = "model.width=10_000_000"  # a network that no worker can build


@pytest.mark.smoke
def test_a_trial_whose_process_is_killed_continues_from_its_last_checkpoint(
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


def test_a_failing_trial_is_retried_as_often_as_search_retries_says_and_then_recorded_in_the_study(
    tmp_path: Path,
) -> None:
    spec = tiny(tmp_path, "search.trials=2", "search.retries=1", WIDER_THAN_MEMORY)
    assert tuner.run(spec, tmp_path).finished
    trials = results.trials(tmp_path)
    assert list(trials["status"]) == ["failed", "failed"]
    assert list(trials["retries"]) == [1, 1]
    assert trials["reason"].str.contains("allocate memory").all()
    assert results.best(tmp_path) is None
    assert [told.state for told in study_of(tmp_path).trials] == [TrialState.FAIL] * 2


def test_a_search_ends_if_its_first_trials_all_fail_for_the_same_reason(tmp_path: Path) -> None:
    result = tuner.run(tiny(tmp_path, "search.trials=8", "search.retries=0", WIDER_THAN_MEMORY), tmp_path)
    assert result.outcome == "failing"
    assert result.reason.startswith("the first 3 trials all failed: ")
    assert "allocate memory" in result.reason
    assert len(results.trials(tmp_path)) <= 4  # one may have been begun


def test_the_journal_says_that_a_time_budget_ended_the_search_and_whether_it_went_on(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=1", "training.epochs=1")
    assert tuner.run(spec, tmp_path, tuner.RunOptions(seconds=0.0)).outcome == "time"
    (paused,) = Journal(tmp_path).load().search_events
    assert (paused["event"], paused["reason"]) == ("pause", "the time budget is used up")
    assert tuner.run(spec, tmp_path, tuner.RunOptions(resume=True)).finished
    assert [event["event"] for event in Journal(tmp_path).load().search_events] == ["pause", "resume"]


FLAKY = """
import os
from pathlib import Path
import tune_cure
from tune_cure.models.networks import small_cnn

FOLDER = Path(__file__).parent
builds = 0

def flaky(num_classes, in_channels, width):
    global builds
    builds += 1
    if builds == 2 and not (FOLDER / "failed").exists():
        (FOLDER / "failed").touch()
        raise OSError("a fault that passes")
    return small_cnn(num_classes, in_channels, width)

tune_cure.register("network", "flaky", flaky)
"""


def test_a_trial_that_fails_as_it_begins_in_the_process_of_another_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_afterwards(monkeypatch)
    (tmp_path / "flaky_parts.py").write_text(FLAKY)
    (tmp_path / "space.yaml").write_text(f"parts: [{tmp_path / 'flaky_parts.py'}]\n{TINY}")
    spec = load(
        tmp_path / "space.yaml", ["model.name=flaky", "search.trials=3", "training.epochs=2"], import_parts=True
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec.to_yaml())
    assert tuner.run(spec, folder).finished
    trials = results.trials(folder)
    assert (tmp_path / "failed").exists()
    assert trials["retries"].tolist() == [0, 1, 0]
    assert not trials["status"].eq("failed").any()
    assert trials["reason"][1].endswith("OSError: a fault that passes")
