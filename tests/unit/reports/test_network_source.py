"""Export of a network of the user's own, named `module:name`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.confirmations import write_quick_search
from tests.support.exported_models import write_best_model, write_bundle
from tune_cure.models import registry
from tune_cure.reports import tables
from tune_cure.reports.export import bundle
from tune_cure.reports.export.measurements import ExportError
from tune_cure.search.results import SearchResult

FLAT = """
from torch import nn


def flat(num_classes, in_channels, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))


def build(num_classes, in_channels, width=4):
    return flat(num_classes, in_channels)


def config(num_classes, in_channels, width=4):
    return flat(num_classes, in_channels)


def tied(num_classes, in_channels, width=4):
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, second, nn.Linear(64, num_classes))


nested = flat if False else (lambda num_classes, in_channels: flat(num_classes, in_channels))
"""
SIZES = {"num_classes": 10, "in_channels": 1}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of importable modules."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, lines in {
        "flat_nets": "",
        "model": "",
        "with_neighbor": "import flat_nets\n",
        "with_project": "from tune_cure.models import networks\n",
    }.items():
        (folder / f"{name}.py").write_text(lines + FLAT)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry.MODELS, "_imported", {})
    return folder


FLAT_WEIGHTS = {
    "0.mean": torch.full((1, 1, 1), 0.5),
    "0.std": torch.full((1, 1, 1), 0.25),
    "1.1.weight": torch.linspace(0, 1, 640).view(10, 64),
    "1.1.bias": torch.zeros(10),
}


def search_of(name: str, folder: Path, weights: Mapping[str, Tensor] = FLAT_WEIGHTS) -> SearchResult:
    result = write_quick_search(folder)
    tables.write_tables(result)
    write_best_model(result, model={"name": name, **SIZES}, weights=weights)
    return result


def export(result: SearchResult, folder: Path) -> Path:
    return write_bundle(bundle.collect_search_model(result, trust_code=True), result, folder)


def load_exported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return the network of the folder's load.py."""
    for name in ("model", "flat_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    namespace: dict[str, Any] = {"__file__": str(folder / "load.py"), "__name__": "load"}
    exec((folder / "load.py").read_text(), namespace)
    network = namespace["model"]
    assert isinstance(network, nn.Module)
    return network


@pytest.mark.usefixtures("modules")
def test_nothing_is_imported_unless_the_folder_is_trusted(tmp_path: Path) -> None:
    result = search_of("flat_nets:flat", tmp_path)
    with pytest.raises(ExportError, match=r"its network 'flat_nets:flat' is code .* add --trust-code"):
        bundle.collect_search_model(result)
    assert "flat_nets" not in sys.modules


@pytest.mark.parametrize("function", ["flat", "build", "config"])
def test_the_folder_has_the_networks_file_and_a_loader_that_uses_it_whatever_the_function_is_called(
    function: str, modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(search_of(f"flat_nets:{function}", tmp_path), tmp_path / "out")
    assert (folder / "flat_nets.py").read_bytes() == (modules / "flat_nets.py").read_bytes()
    assert json.loads((folder / "config.json").read_text())["network"]["name"] == f"flat_nets:{function}"
    images = torch.rand(3, 1, 8, 8)
    expected = ((images - 0.5) / 0.25).flatten(1) @ torch.linspace(0, 1, 640).view(10, 64).t()
    torch.testing.assert_close(load_exported(folder, monkeypatch)(images), expected)
    assert sys.modules["flat_nets"].__file__ == str(folder / "flat_nets.py")


@pytest.mark.usefixtures("modules")
def test_a_network_with_tied_weights_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = registry.build("flat_nets:tied", **SIZES)
    folder = export(search_of("flat_nets:tied", tmp_path, network.state_dict()), tmp_path / "out")
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(load_exported(folder, monkeypatch)(images), network(images))


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model:flat", "needs another name"),
        ("with_neighbor:flat", "imports flat_nets, which the folder would lack"),
        ("with_project:flat", "imports tune_cure.models, which the folder would lack"),
        ("flat_nets:nested", "it is no function or class of a module of its own"),
    ],
)
def test_a_network_that_would_not_work_in_another_folder_is_refused(name: str, message: str, tmp_path: Path) -> None:
    result = search_of(name, tmp_path)
    with pytest.raises(ExportError) as caught:
        export(result, tmp_path / "out")
    assert str(caught.value).startswith(f"network {name!r}: cannot be exported: ")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
