"""The card's lines for RobustBench, run as they are with the real package on made-up test images."""

import dataclasses
import hashlib
import json
import pickle
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyautoattack
import pyautoattack.state
import pytest
import torch
from torchvision.datasets import CIFAR10

from tests.support.confirmations import write_quick_search
from tests.support.exported_models import (
    NETWORK,
    random_network,
    run_card_code,
    write_best_model,
    write_bundle,
    write_confirmed_runs,
    write_search_with_model,
)
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Examples
from tune_cure.evaluation import robustness
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate
from tune_cure.models import checkpoints
from tune_cure.reports.export import bundle, claim
from tune_cure.reports.export.measurements import Measurement

COLOUR = {"in_channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}


class AutoAttack(pyautoattack.AutoAttack):  # type: ignore[misc]
    """pyautoattack, called as RobustBench calls the package `autoattack`, which no registry has."""

    def __init__(
        self, model: torch.nn.Module, norm: str, eps: float, version: str, device: Any, log_path: None
    ) -> None:
        super().__init__(model, norm=norm, eps=eps, version=version, device=device, seed=0)

    def run_standard_evaluation(self, images: Any, labels: Any, bs: int, state_path: None) -> Any:
        return super().run_standard_evaluation(images, labels, batch_size=bs, state_path=state_path)[0]


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("autoattack")
    stand_in.AutoAttack = AutoAttack  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autoattack", stand_in)
    monkeypatch.setitem(sys.modules, "autoattack.state", pyautoattack.state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it and timm import is deprecated: pkg_resources, torch.jit.interface
        pytest.importorskip("robustbench")


def write_test_images(folder: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 as torchvision reads it, with other images, whose checksums it is told."""
    files = {
        "test_batch": {"data": examples.images.flatten(1).numpy(), "labels": examples.labels.tolist()},
        "batches.meta": {"label_names": list("abcdefghij")},
    }
    place = folder / CIFAR10.base_folder
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(pickle.dumps(content))
    sums = {name: hashlib.md5((place / name).read_bytes()).hexdigest() for name in files}
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})


def colours(count: int) -> torch.Tensor:
    """Images of one random colour each, with a little noise."""
    random = np.random.default_rng(0)
    levels = random.integers(16, 240, (count, 3, 1, 1)) + random.integers(-16, 16, (count, 3, 32, 32))
    return torch.from_numpy(levels.astype(np.uint8))


def tell_apart(images: torch.Tensor) -> torch.nn.Module:
    """A network whose batch norm knows the statistics of the images, so that it sees differences between them."""
    model = random_network(**COLOUR)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(images / 255)
    return model.eval()


@pytest.mark.usefixtures("robustbench")
def test_robustbench_finds_the_accuracies_that_this_project_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = write_quick_search(tmp_path, "data.dataset=cifar10", "evaluation.epsilon=4/255")
    images = colours(16)
    model = tell_apart(images)
    labels = model(images / 255).argmax(dim=1)
    labels[1::4] = (labels[1::4] + 1) % 10
    examples = Examples(images, labels, torch.arange(16))
    file = write_best_model(result, model=NETWORK | COLOUR, weights=model.state_dict(), image_size=[32, 32])
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    write_test_images(tmp_path / "data", examples, monkeypatch)

    monkeypatch.chdir(tmp_path)  # RobustBench looks into ./data
    here = run_card_code(folder, 2, monkeypatch)
    evaluation = EvaluationConfig(epsilon=4 / 255, steps=1)
    assert here["clean"] == 0.75 == evaluate(checkpoints.load(file), examples, evaluation)["clean_accuracy"]
    own = robustness.evaluate_robustness(checkpoints.load(file), examples, evaluation).correct
    assert here["robust"] == own["autoattack"].mean()
    assert 0 < here["robust"] < here["clean"]


def test_a_claim_has_the_fields_of_robustbench_s_record_of_a_model(robustbench: None, tmp_path: Path) -> None:
    from robustbench.utils import ModelInfo

    found = write_search_with_model(tmp_path)
    name = write_confirmed_runs(found, 1)[0].candidate.name
    judged = [Measurement("test", attack, "linf", 8 / 255, 10_000, 0.5) for attack in ("clean", "AutoAttack")]
    exported = dataclasses.replace(
        bundle.collect_confirmed_model(found, name, None),
        data=DataSpec(dataset="cifar10"),
        image_size=(32, 32),
        evaluation=EvaluationConfig(epsilon=8 / 255),
        measured=tuple(judged),
    )
    record = json.loads(claim.build_claim(exported)[claim.RECORD])
    assert set(record) <= {field.name for field in dataclasses.fields(ModelInfo)}
    assert ModelInfo(**record).autoattack_acc == "50.00"
