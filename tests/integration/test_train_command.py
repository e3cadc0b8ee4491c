import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.support.command_line import typed_arguments
from tests.support.spaces import QUICK_RUN, tiny
from tune_cure.cli import main as cli
from tune_cure.evaluation.names import ACCURACIES
from tune_cure.ray_backend.trainable import CureTrainable
from tune_cure.training.run import LAST


@pytest.fixture
def _threads() -> Iterator[None]:
    """torch's threads afterwards as before: they are the process's."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one thread is all there is")
@pytest.mark.parametrize("cpus", [1, 2])
def test_a_trial_trained_by_itself_takes_its_threads_and_has_its_numbers(
    cpus: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tiny(tmp_path, f"resources.cpus_per_trial={cpus}", "training.epochs=2", "training.batch_size=300")
    values = {"lambda": 0.1, "h": 1.0, "lr_max": 0.1, "epsilon": 0.1}
    pd.DataFrame([{"trial": 0, **values}]).to_csv(tmp_path / "best_config.csv", index=False)
    trial = CureTrainable.__new__(CureTrainable)
    trial.setup({**values, "trial": 0}, spec=spec)
    epochs = pd.DataFrame([trial.step(), trial.step()])
    torch.set_num_threads(3 - cpus)  # as torch might choose where nothing is said
    command = ["train", "--config", str(tmp_path / "best_config.csv"), "--output", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert f"{cpus} CPU thread(s)" in capsys.readouterr().out
    log = pd.read_csv(tmp_path / "out" / "epochs.csv")
    for column in ("train_loss", "curvature", *ACCURACIES):
        assert log[column].tolist() == epochs[column].tolist()


def test_a_run_keeps_its_threads_when_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "out")
    assert cli.main(["train", *QUICK_RUN, "--epochs", "1", "--threads", "2", "--output", folder]) == 0
    assert cli.main(["train", "--resume", "--output", folder]) == 0
    assert capsys.readouterr().out.count("2 CPU thread(s)") == 2


def test_an_interrupted_run_goes_on_in_a_new_process_bit_for_bit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tune_cure", "train"]
    run = [*command, *QUICK_RUN, "--epochs", "12", "--averaging", "ema", "--init", "previous"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    subprocess.run([*run, "--output", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen(
        [*run, "--output", str(stopped)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell does with `command &`
    )
    while not (stopped / LAST).exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM
    assert 1 <= len(pd.read_csv(stopped / "epochs.csv")) < 12
    resume = typed_arguments(printed.splitlines()[-1])
    assert resume[0] == "train"
    subprocess.run([*command, *resume[1:]], check=True, capture_output=True)
    states = [torch.load(folder / LAST, weights_only=True)["trainer"] for folder in (whole, stopped)]
    for whole_weights, resumed_weights in (
        (states[0]["model"], states[1]["model"]),
        (states[0]["average"]["weights"], states[1]["average"]["weights"]),
    ):
        assert all(torch.equal(value, resumed_weights[name]) for name, value in whole_weights.items())
