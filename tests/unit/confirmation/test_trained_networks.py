import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.exported_models import NETWORK, random_network, write_bundle, write_search_with_model
from tune_cure.confirmation.trained_networks import ModelError, load_trained
from tune_cure.data import splits as splits_module
from tune_cure.reports.export.bundle import collect_search_model
from tune_cure.training.run import Run, RunSpec
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import FolderError, replace_tensors

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def tiny() -> nn.Module:
    """Build a network of another project."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def nothing() -> int:
    return 3


def needs_an_argument(width: int) -> nn.Module:
    return nn.Linear(width, width)


def test_a_runs_folder_its_file_and_its_export_are_the_same_network(tmp_path: Path) -> None:
    result = write_search_with_model(tmp_path / "run")
    exported = write_bundle(collect_search_model(result), result, tmp_path / "out")
    expected = random_network()(IMAGES)
    for name in (result.directory, result.directory / "best_model.pt", exported):
        trained = load_trained(str(name))
        assert not trained.network.training
        assert torch.equal(trained.network(IMAGES), expected)
        assert trained.num_parameters == sum(parameter.numel() for parameter in random_network().parameters())


@pytest.mark.parametrize("nesting", [(), ("state_dict",), ("model_state_dict",), ("net",)])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_another_project_are_found_wherever_it_put_them(
    tmp_path: Path, nesting: tuple[str, ...], prefix: str
) -> None:
    weights = {f"{prefix}{name}": value for name, value in tiny().state_dict().items()}
    content = dict.fromkeys(nesting, weights) | {"epoch": 3} if nesting else weights
    torch.save(content, tmp_path / "tiny.pth")
    trained = load_trained(f"{tmp_path}/tiny.pth@{__name__}:tiny")
    assert torch.equal(trained.network[1].weight, weights[f"{prefix}1.weight"])  # type: ignore[index]


def test_safetensors_of_another_project_are_read(tmp_path: Path) -> None:
    network = tiny()
    save_file(network.state_dict(), tmp_path / "tiny.safetensors")
    trained = load_trained(f"{tmp_path}/tiny.safetensors@{__name__}:tiny")
    assert torch.equal(trained.network(IMAGES), network(IMAGES))


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_the_state_of_a_training_is_its_last_network(tmp_path: Path, averaging: str) -> None:
    data = {"dataset": "digits", "validation": 360, "train_examples": 64}
    content = {"data": data, "model": {"name": "small_cnn"}, "training": {"epochs": 1, "averaging": averaging}}
    spec = RunSpec.model_validate({**content, "evaluation": {"steps": 1, "examples": 20}})
    run = Run(spec, splits_module.load(spec.data), tmp_path, "cpu")
    run.train_epoch()
    last = load_trained(str(tmp_path / "last.pt")).network
    expected = run.trainer.judged_model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in last.state_dict().items())


def test_a_network_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "tiny.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    torch.save({"1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    replace_tensors(tmp_path / "diverged.pt", {"model": NETWORK, "weights": {}})
    replace_tensors(tmp_path / "unfit.pt", {"model": NETWORK, "weights": {"a": torch.ones(1)}})
    foreign = {"model": NETWORK | {"name": "somebody:network"}, "weights": random_network().state_dict()}
    replace_tensors(tmp_path / "foreign.pt", foreign)
    expected = {
        "missing": "is no trained network: a folder with best_model.pt or model.safetensors, a file, FILE@module:name",
        "tiny.pth": "holds no network of this project; for weights of another, add the function that builds it",
        f"missing.pth@{__name__}:tiny": "there is no such file",
        f"empty.pth@{__name__}:tiny": "holds no weights: its keys are epoch",
        f"other.pth@{__name__}:tiny": "its weights do not fit",
        f"broken.safetensors@{__name__}:tiny": "is damaged",
        f"tiny.pth@{__name__}:tinny": "has no tinny; did you mean 'tiny'?",
        f"tiny.pth@{__name__}:nothing": "the function returned int, not a network",
        f"tiny.pth@{__name__}:needs_an_argument": "cannot be called without arguments: TypeError",
        "diverged.pt": "its training diverged: there are no weights",
        "unfit.pt": "holds no network of this project",
        "foreign.pt": "if you trust the file, add --trust-code",
    }
    for name, message in expected.items():
        with pytest.raises(TuneCureError) as caught:
            load_trained(f"{tmp_path}/{name}")
        assert message in str(caught.value) and "\n" not in str(caught.value), name


def test_an_export_without_its_description_is_one_line(tmp_path: Path) -> None:
    save_file(tiny().state_dict(), tmp_path / "model.safetensors")
    for content in ("", "[]", json.dumps({"network": {"name": "small_cnn"}})):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(TuneCureError, match=r"config\.json"):
            load_trained(str(tmp_path))


def test_a_file_that_holds_code_is_not_run(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "whole.pth")  # a pickled network
    with pytest.raises(FolderError, match="holds more than tensors and plain values"):
        load_trained(f"{tmp_path}/whole.pth@{__name__}:tiny")


def test_a_network_of_the_zoo_is_asked_for_by_its_threat_model(monkeypatch: pytest.MonkeyPatch) -> None:
    package, utils = ModuleType("robustbench"), ModuleType("robustbench.utils")
    asked: list[tuple[str, str, str]] = []

    def load_model(model_name: str, *, dataset: str, threat_model: str) -> nn.Module:
        asked.append((model_name, dataset, threat_model))
        if model_name == "Unknown":
            raise ValueError("Unknown model")
        return tiny()

    utils.load_model = load_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.utils", utils)
    trained = load_trained("robustbench:Wong2020Fast", norm="l2")
    assert asked == [("Wong2020Fast", "cifar10", "L2")]
    assert trained.origin == "RobustBench's Wong2020Fast" and not trained.network.training
    with pytest.raises(ModelError, match="cannot be loaded for cifar10 and Linf: ValueError: Unknown model"):
        load_trained("robustbench:Unknown")
    with pytest.raises(ModelError, match="RobustBench has networks for linf and l2, not for l1"):
        load_trained("robustbench:Wong2020Fast", norm="l1")


def test_without_the_zoos_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustbench.utils", None)
    with pytest.raises(ModelError, match="the package robustbench cannot be imported"):
        load_trained("robustbench:Wong2020Fast")
