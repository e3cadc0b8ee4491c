"""Leagues on Ray: two methods on few digits, killed and resumed, and interrupted by Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tune_cure.cli.main import main
from tune_cure.cli.views.league_view import PlainLeagueView
from tune_cure.league.folder import League
from tune_cure.search.budget import SPENT
from tune_cure.search.journal import Event, Journal

PATIENCE = 300.0  # seconds
SPACE = """
name: tiny
data: {dataset: digits, validation: 100, train_examples: 200}
model: {name: small_cnn, width: 4}
training: {epochs: 3, batch_size: 50, lr_schedule: cosine}
space: {lr_max: {loguniform: [0.01, 0.5]}}
evaluation: {epsilon: 0.05, steps: 2, examples: 60}
rescore: {steps: 2, restarts: 1}
asha: {grace_period: 1, reduction_factor: 2}
"""
METHODS = ["--methods", "fgsm_rs", "pgd", "--budget-by", "epochs", "--trials", "3", "--searches-only"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return ["league", str(tmp_path / "tiny.yaml"), *METHODS, "--output", str(tmp_path / "league")]


def events(league: Path, method: str) -> list[Event]:
    return Journal(league / method).read()


def kill_after_a_checkpoint_of_each(process: subprocess.Popen[str], league: Path) -> None:
    """Kill a league, the process and all that it has started, once each method has written a checkpoint."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if all(any(event["event"] == "checkpoint" for event in events(league, name)) for name in ("fgsm_rs", "pgd")):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.05)
    raise AssertionError(f"the league ended with {process.poll()}, or wrote no checkpoint")


def test_a_league_that_was_killed_is_resumed_without_losing_or_repeating_a_trial(
    command: list[str], tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "league"
    process = subprocess.Popen(
        [sys.executable, "-m", "tune_cure", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    kill_after_a_checkpoint_of_each(process, folder)
    before = {name: events(folder, name) for name in ("fgsm_rs", "pgd")}

    assert main(["league", "--resume", str(folder), "--searches-only"]) == 0
    out = capsys.readouterr().out
    assert "all searches are over" in out
    league = League.read(folder)
    for name, result in league.results().items():
        now = events(folder, name)
        assert now[: len(before[name])] == before[name]
        assert len(result.epochs) == 9  # three whole trials of three epochs, each once
        trained = Counter((event["trial"], event["epoch"]) for event in now if event["event"] == "epoch")
        repeated = {key for key, count in trained.items() if count > 1}
        saved = {(event["trial"], event["epoch"]) for event in before[name] if event["event"] == "checkpoint"}
        assert repeated & saved == set()  # only an epoch whose checkpoint was not written yet runs again
        begun = [event["trial"] for event in now if event["event"] == "trial"]
        assert begun == list(range(len(begun)))
        assert not result.trials["status"].eq("unfinished").any()
        assert set(result.trials["reason"]) <= {"", SPENT}
        assert result.spec.start_from == [result.proposals[0]]
        leaders = [event["trial"] for event in now if event["event"] == "leader"]
        assert len(leaders) == len(set(leaders)) > 0
        assert (folder / name / "report.html").is_file()
        assert result.checkpoint is not None
        assert (folder / name / result.checkpoint / "trainer.pt").is_file()
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "environment.json",
        "fgsm_rs",
        "league.yaml",
        "pgd",
    ]

    after = {name: events(folder, name) for name in before}
    assert main(["league", "--resume", str(folder), "--searches-only"]) == 0  # nothing is left to do
    assert {name: events(folder, name) for name in before} == after


def test_one_ctrl_c_ends_a_league_in_order_with_the_line_that_continues_it(
    command: list[str],
    tmp_path: Path,
    ray_session: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(view: PlainLeagueView, method: str, event: Event) -> None:
        on_event(view, method, event)
        if event["event"] == "checkpoint" and method == "pgd":
            signal.raise_signal(signal.SIGINT)

    on_event = PlainLeagueView.on_event
    monkeypatch.setattr(PlainLeagueView, "on_event", interrupt)
    assert main(command) == 130
    out = capsys.readouterr().out
    assert "Ctrl-C again ends at once" in out
    assert f"interrupted; all state is in {tmp_path / 'league'}. Continue with:" in out
    assert f"league --resume {tmp_path / 'league'} --searches-only" in out
    unfinished = [
        result.trials["status"].eq("unfinished").any() for result in League.read(tmp_path / "league").results().values()
    ]
    assert any(unfinished)
