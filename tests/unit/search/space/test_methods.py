"""`training.method` in a search space, in the file of its run, and as a part of the user's own."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.registered_parts import forget_afterwards
from tune_cure.search import run_files
from tune_cure.search.space import registration
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load, load_mapping
from tune_cure.training.presets import METHODS
from tune_cure.utils import registry
from tune_cure.utils.yaml_config import SpecError
from tune_cure.utils.yaml_parser import parse

SPACE = """
name: methods
data: {dataset: digits, validation: 100}
model: small_cnn
training: {method: gat, epochs: 4}
space: {method: default, lr_max: {loguniform: [0.01, 0.5]}}
start_from: [{method: default, lr_max: 0.05}]
"""
PARTS = """
from dataclasses import dataclass
import tune_cure
from tune_cure.regularizers.regularizer import Regularizer
from tune_cure.training.presets import Preset
from tune_cure.utils.hyperparameters import hyperparameter


@dataclass(kw_only=True)
class Spread(Regularizer):
    spread: float = hyperparameter(1.0, "Spread: a factor.", gt=0)

    def __call__(self, step):
        return self.spread * step.network(step.images).square().mean(dim=1)


tune_cure.register("regularizer", "spread", Spread)
tune_cure.register(
    "method",
    "spreading",
    Preset("a method", "a paper", {"regularizer": "spread", "spread": 2.0}, {"spread": {"uniform": [1, 3]}}, "why"),
)
"""


def given(**sections: Any) -> SearchSpec:
    return load_mapping({**parse(SPACE), **sections})


def test_a_method_fills_training_space_and_start(tmp_path: Path) -> None:
    spec = given()
    assert spec.training == {
        "method": "gat",
        "epochs": 4,
        **{key: value for key, value in METHODS["gat"].keys.items() if key not in ("lambda", "guide_weight")},
    }
    assert list(spec.space) == ["lambda", "guide_weight", "lr_max"]
    assert spec.start_from == [{"lambda": 40.0, "guide_weight": 40.0, "lr_max": 0.05}]


def test_overrides_count_before_the_method_does() -> None:
    spec = load_mapping(parse(SPACE), ["training.method=nuat", "training.lambda=3", "training.guide_every=1"])
    assert (spec.training["regularizer"], spec.training["lambda"], spec.training["guide_every"]) == ("nuat", 3.0, 1)
    assert list(spec.space) == ["guide_weight", "lr_max"]
    assert spec.start_from == [{"guide_weight": 4.0, "lr_max": 0.05}]


def test_the_recorded_search_has_the_method_and_every_key_so_that_a_later_preset_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = given()
    recorded = spec.to_yaml()
    assert "method: gat" in recorded
    assert parse(recorded)["training"]["regularizer"] == "gat"
    (tmp_path / run_files.SPEC).write_text(recorded)
    (tmp_path / run_files.JOURNAL).touch()
    later = replace(METHODS["gat"], keys={"regularizer": "nuat", "lambda": 40.0, "cutout": 2})
    monkeypatch.setattr(METHODS, "_parts", {**METHODS._parts, "gat": later})
    assert load(tmp_path / run_files.SPEC).to_yaml() == recorded
    assert given().to_yaml() != recorded


def test_a_copy_of_a_recorded_search_is_the_same_search(tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text(given().to_yaml())
    assert load(tmp_path / "copy.yaml").to_yaml() == given().to_yaml()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"method": "gta"}}, "training.method: 'gta' is not one of none, fgsm_rs"),
        ({"training": {"method": 3}}, "training.method: a name is needed, but found 3 (int)"),
        ({"training": {}}, "training.method: is needed: space.method"),
        ({"space": {"method": {"choice": ["gat"]}}}, "space.method: takes default"),
        ({"start_from": [{"method": "gat", "lr_max": 0.05}]}, "start_from[0].method: takes default"),
    ],
)
def test_what_is_wrong_with_a_method_is_said_in_one_line(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        given(**sections)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    forget_afterwards(monkeypatch)
    (tmp_path / "spreading_parts.py").write_text(PARTS)
    (tmp_path / "space.yaml").write_text("parts: spreading_parts.py\n" + SPACE.replace("gat", "spreading"))
    yield tmp_path
    sys.modules.pop("spreading_parts", None)


def test_a_method_from_outside_takes_one_file_and_one_line_of_registration(folder: Path) -> None:
    spec = load(folder / "space.yaml", import_parts=True)
    assert (spec.training["regularizer"], list(spec.space)) == ("spread", ["spread", "lr_max"])
    assert spec.start_from == [{"spread": 2.0, "lr_max": 0.05}]
    recorded = spec.to_yaml()
    for file, imported in list(registration._files.items()):
        registration._forget(file, imported)
    (folder / "run").mkdir()
    (folder / "run" / run_files.SPEC).write_text(recorded)
    (folder / "run" / run_files.JOURNAL).touch()
    read = load(folder / "run" / run_files.SPEC)  # as `report` does, which imports nothing
    assert read.training["method"] == "spreading"
    assert read.to_yaml() == recorded


def test_an_installed_package_adds_a_method_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_methods.py").write_text(
        "from tune_cure.training.presets import Preset\n"
        "keys = {'alpha': 1.5, 'regularizer': 'none'}\n"
        "large = Preset('large steps', 'a paper', keys, {'alpha': {'uniform': [1, 2]}})\n"
    )
    metadata = tmp_path / "plugin_methods-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-methods\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tune_cure.methods]\nlarge = plugin_methods:large\n")
    forget_afterwards(monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entry_points.cache_clear()
    try:
        spec = given(training={"method": "large"})
        assert (spec.training["regularizer"], list(spec.space)) == ("none", ["alpha", "lr_max"])
        assert "large" in METHODS
    finally:
        sys.modules.pop("plugin_methods", None)
        registry._entry_points.cache_clear()
