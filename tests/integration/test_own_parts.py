"""A network and a data set of the user's own, named `module:name`, from the search to the confirmation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from tune_cure import models
from tune_cure.cli import main as cli
from tune_cure.models import registry
from tune_cure.search.results import SearchResult

MODULE = """
import torch
from torch import nn

from tune_cure.data.source import Dataset, DataSource


def flat(num_classes, in_channels, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, width), nn.Softplus(), nn.Linear(width, num_classes))


def read():
    labels = torch.arange(400) % 4
    noise = torch.randint(0, 60, (400, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return {
        "train_images": (50 * labels[:, None, None, None] + noise).to(torch.uint8),
        "train_labels": labels,
        "classes": list("abcd"),
    }


def find(root, image_size, download):
    return DataSource("made up", "1", read)


data = Dataset(find, network="flat_parts:flat", epsilon=0.05, examples=20)
"""
SPACE = """
name: own
data: {dataset: "flat_parts:data"}
model: "flat_parts:flat"
training: {epochs: 2, batch_size: 32}
space: {lambda: {loguniform: [0.001, 1]}}
evaluation: {epsilon: 0.05, steps: 3, examples: 20}
rescore: {top: 1, steps: 3, restarts: 1, examples: 10}
search: {trials: 2}
resources: {concurrent: 1}
"""


def run(folder: Path, *arguments: str) -> str:
    """Run a command in `folder`, whose modules it can import as `python -m` can."""
    command = [sys.executable, "-m", "tune_cure", *arguments]
    environment = {**os.environ, "TUNE_CURE_CACHE": str(folder / "cache")}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


@pytest.mark.ray
def test_a_space_with_own_parts_is_searched_reported_and_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat_parts.py").write_text(MODULE)
    (tmp_path / "space.yaml").write_text(SPACE)
    run(tmp_path, "search", "--space", "space.yaml", "--output", "run")
    assert SearchResult(tmp_path / "run").spec.data.validation == 40  # a tenth of the images, written down
    run(tmp_path, "report", "run")
    quick = ["--top", "1", "--seeds", "1", "--baselines", "fgsm", "--no-autoattack", "--examples", "20"]
    assert "trial-" in run(tmp_path, "confirm", "run", *quick)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry.MODELS, "_imported", {})
    network = models.load(tmp_path / "run" / "best_model.pt", trust_code=True)
    assert isinstance(network, nn.Sequential)
    assert type(network[1][2]).__name__ == "Softplus"


def test_an_own_data_set_brings_its_default_network_and_radius(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))
    arguments = ["train", "--dataset", "flat_parts:data", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert cli.main(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "defaults of flat_parts:data: model.name flat_parts:flat training.epsilon 0.05" in printed
    assert cli.main(["train", "--output", str(tmp_path / "run"), "--resume"]) == 0
