import fcntl
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.spaces import TINY
from tune_cure.cli.main import main
from tune_cure.cli.views import interruption
from tune_cure.cli.views.interruption import STOPPING
from tune_cure.search.journal import Journal

PATIENCE = 600  # seconds: what takes ten on an idle machine may take minutes on a busy one
COMMAND = [sys.executable, "run_search.py"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole search as a user starts one, its output not a terminal."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY)
    command = [*COMMAND, "--space", str(folder / "tiny.yaml"), "--output", str(folder / "out")]
    return folder / "out", subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.smoke
@pytest.mark.ray
def test_a_search_ends_with_a_table_and_paths_and_prints_nothing_from_ray(
    run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, process = run
    assert process.returncode == 0
    assert process.stderr == ""
    assert process.stdout.count("] trial ") == 8  # a line for each end
    assert "tiny: the best of 8 trials" in process.stdout
    assert "Ray dashboard: http://127.0.0.1:" in process.stdout
    assert f"{folder}/report.html" in process.stdout
    assert not re.search(r"WARNING|Warning|╭|ray\.init|usage stat", process.stdout)


@pytest.mark.ray
def test_a_search_writes_the_files_and_folders_that_the_readme_lists(
    run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = run
    promised = {"spec.yaml", "environment.json", "study.db", "trials.csv", "epochs.csv", "best_config.csv",
                "best_config.yaml", "best_model.pt", "best_model.safetensors", "report.html", "summary.json",
                "journal.jsonl"}  # fmt: skip
    assert promised <= {path.name for path in folder.iterdir()}
    assert len(list((folder / "trials").glob("trial_*"))) == 8
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"]
    assert "run_search.py --space" in environment["command"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["trials_by_status"]["completed"] >= 1
    best = pd.read_csv(folder / "best_config.csv").iloc[0]
    assert summary["best"]["pgd_accuracy_best"] == best["pgd_accuracy"]


@pytest.mark.ray
def test_report_rebuilds_the_tables_from_the_journal(
    run: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run
    before = {name: (folder / name).read_bytes() for name in ("trials.csv", "epochs.csv", "best_config.csv")}
    for name in before:
        (folder / name).unlink()
    assert main(["report", str(folder)]) == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def interrupted(folder: Path, stop: signal.Signals) -> tuple[Path, str]:
    """Starts a search, stops it after its first epoch, and returns its folder and what it printed."""
    (folder / "tiny.yaml").write_text(TINY)
    out = folder / "out"
    command = [*COMMAND, "--space", str(folder / "tiny.yaml"), "--output", str(out), "--set", "search.trials=3"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Batch systems run commands in the background, where shells have Ctrl-C ignored.
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if stop == signal.SIGTERM else None,
    )
    deadline = time.time() + PATIENCE
    # The event after that of the epoch: from then on the command knows of the epoch, too.
    while not any(event["event"] == "checkpoint" for event in Journal(out).read()) and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(stop)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + stop
    assert errors == ""
    assert (out / "trials.csv").exists()
    assert (out / "report.html").exists()
    return out, printed


@pytest.mark.ray
def test_sigterm_from_a_batch_system_saves_everything_as_ctrl_c_does(tmp_path: Path) -> None:
    out, printed = interrupted(tmp_path, signal.SIGTERM)
    assert printed.endswith(f" search --resume {out}\n")


@pytest.mark.ray
def test_the_command_that_an_interrupted_search_prints_resumes_that_search_and_no_other(tmp_path: Path) -> None:
    out, printed = interrupted(tmp_path, signal.SIGINT)
    assert f"{STOPPING}\nbest so far: trial 0, PGD " in printed
    assert f"; the report: {out}/report.html\n" in printed
    command = shlex.split(printed.strip().splitlines()[-1])
    assert command[-2:] == ["--resume", str(out)]
    elsewhere = tmp_path / "elsewhere"  # it works from any folder
    elsewhere.mkdir()
    changed = subprocess.run(
        [*command, "--set", "training.epochs=3"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert changed.returncode == 2
    assert "is of another search: training.epochs was 4 and is 3" in changed.stderr
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert list(pd.read_csv(out / "trials.csv")["trial"]) == [0, 1, 2]
    assert set(os.listdir(out)) >= {"trials", "trials-2"}
    environment = json.loads((out / "environment.json").read_text())
    assert "--resume" not in environment["command"]
    assert ["--resume" in session["command"] for session in environment["resumed"]] == [True]


# Validation images beyond those that trials are judged on, and a judgement of minutes.
SLOW_JUDGEMENT = ["data.validation=300", "search.trials=1", "training.epochs=1", "rescore.steps=5000"]


def start(folder: Path, *settings: str, **options: Any) -> tuple[Path, subprocess.Popen[str]]:
    """Start a search in a folder, and return the folder of its results and its process."""
    (folder / "tiny.yaml").write_text(TINY)
    words = [word for setting in settings for word in ("--set", setting)]
    command = [*COMMAND, "--space", str(folder / "tiny.yaml"), "--output", str(folder / "out"), *words]
    return folder / "out", subprocess.Popen(command, text=True, **options)


@pytest.mark.ray
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_after_the_last_trial_ends_the_second_judgement_with_the_command_that_continues(
    presses: int, tmp_path: Path
) -> None:
    out, process = start(tmp_path, *SLOW_JUDGEMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.time() + PATIENCE
    while not any(event["event"] == "end" for event in Journal(out).read()) and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(1)  # Tune's loop ends, and the leader's judgement begins
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    printed = process.communicate(timeout=PATIENCE)[0].splitlines()
    assert process.returncode == 130
    assert interruption.STOPPING in printed
    assert printed[-2] == f"interrupted; all state is in {out}. Continue with:"
    assert printed[-1].endswith(f"search --resume {out}")
    assert presses == 2 or (out / "report.html").exists()
    assert not any(event["event"] == "leader" for event in Journal(out).read())


def take_terminal() -> None:
    """Make the standard input the terminal of this process, which notices when it is closed, also under nohup."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="terminals of other systems differ")
def test_a_search_whose_terminal_is_closed_ends_in_order(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    out, process = start(
        tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(terminal)
    deadline = time.time() + PATIENCE
    # The event after that of the epoch: from then on the command knows of the epoch, too.
    while not any(event["event"] == "checkpoint" for event in Journal(out).read()) and time.time() < deadline:
        if select.select([controller], [], [], 0.1)[0]:
            os.read(controller, 65536)
    os.close(controller)
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
    assert (out / "report.html").exists()


@pytest.mark.parametrize(("words", "code"), [(["schema"], 1), (["search", "--help"], 0), (["report", "nowhere"], 2)])
def test_a_pipe_that_is_closed_ends_a_command_without_a_traceback(words: list[str], code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tune_cure.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # as head does, before anything is printed
    said = process.stderr.read()
    assert (process.wait(PATIENCE), "Traceback" in said, "Error" in said) == (code, False, False)
