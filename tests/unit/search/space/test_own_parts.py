"""The `parts` of a search: imported where networks are built, and never by what only reads."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registered_parts import forget_afterwards
from tests.support.spaces import TINY
from tune_cure.models.registry import MODELS
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space import registration
from tune_cure.search.space.loading import load, load_mapping
from tune_cure.search.space.own_parts import import_parts_of_run, own_part_files
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.utils.yaml_config import SpecError
from tune_cure.utils.yaml_parser import parse

PARTS = """
from dataclasses import dataclass

from torch import nn

import tune_cure
from tune_cure.regularizers.regularizer import Regularizer
from tune_cure.utils.hyperparameters import hyperparameter
import beside_parts


def flat(num_classes, in_channels, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))


@dataclass(kw_only=True)
class Length(Regularizer):
    h: float
    power: float = hyperparameter(1.0, "Length: a power.", ge=1)

    def __call__(self, step):
        return self.h


tune_cure.register("network", "flat", flat)
tune_cure.register("regularizer", "length", Length)
tune_cure.register("direction", "diagonal", lambda point: point.h * point.gradient)
"""
NAMES = ["model=flat", "space.power={uniform: [1, 2]}", "start_from=[]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a search space and the file of its parts; what they register is forgotten afterwards."""
    forget_afterwards(monkeypatch)
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "new_parts.py").write_text(PARTS)
    (tmp_path / "spaces" / "beside_parts.py").write_text("x = 1\n")
    (tmp_path / "spaces" / "space.yaml").write_text("parts: new_parts.py\n" + TINY)
    yield tmp_path / "spaces"
    for name in ("new_parts", "beside_parts"):
        sys.modules.pop(name, None)


def own(folder: Path, *overrides: str) -> str:
    """The YAML of a run that searched with the parts, and that this process has forgotten."""
    spec = load(folder / "space.yaml", [*NAMES, "training.regularizer=length", *overrides], import_parts=True)
    content = spec.to_yaml()
    for file, imported in list(registration._files.items()):
        registration._forget(file, imported)
    return content


def test_a_file_of_parts_is_found_beside_the_yaml_and_its_names_are_known(folder: Path) -> None:
    spec = load(folder / "space.yaml", [*NAMES, "training.regularizer=length"], import_parts=True)
    assert spec.parts == [str(folder / "new_parts.py")]
    assert spec.model.name == "flat"
    assert spec.space["power"].values == [1.0, 2.0]


def test_a_search_given_as_a_mapping_finds_its_parts_in_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    content = {**parse((folder / "space.yaml").read_text()), "parts": ["new_parts.py"], "model": "flat"}
    assert load_mapping(content, import_parts=True).parts == [str(folder / "new_parts.py")]


def test_a_module_of_parts_is_imported_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    spec = load(folder / "space.yaml", ["parts=new_parts", "model=flat"], import_parts=True)
    assert spec.parts == ["new_parts"]


@pytest.mark.parametrize("setting", [["training.regularizer=length"], ["training.direction=diagonal"]])
def test_h_has_an_effect_in_a_part_that_uses_it(folder: Path, setting: list[str]) -> None:
    spec = load(folder / "space.yaml", ["start_from=[]", *setting], import_parts=True)
    assert "h" in spec.space
    assert "h" not in inactive_hyperparameters(spec.training_config({}))
    assert "h" in spec.propose(lambda key: spec.space[key].values[0])


def test_a_run_with_parts_is_read_without_importing_them(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / run_files.SPEC).write_text(own(folder))
    (run / run_files.JOURNAL).touch()
    (folder / "new_parts.py").write_text("raise SystemExit('was imported')")
    spec = SearchResult(run).spec
    assert spec.model.name == "flat"
    assert spec.training["regularizer"] == "length"
    assert spec.to_yaml() == load(run / run_files.SPEC).to_yaml()
    assert "new_parts" not in sys.modules
    assert MODELS.is_unread("flat")


def test_the_parts_of_a_run_are_imported_where_its_networks_are_built(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / run_files.SPEC
    file.write_text(own(folder))
    import_parts_of_run(load(file), file)
    assert "flat" in MODELS


def test_parts_that_have_moved_are_named_by_the_user(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / run_files.SPEC
    file.write_text(own(folder))
    moved = tmp_path / "new_parts.py"
    (folder / "new_parts.py").rename(moved)
    with pytest.raises(SpecError, match=r"new_parts\.py: there is no such file any more; name it with --parts FILE"):
        import_parts_of_run(load(file), file)
    assert import_parts_of_run(load(file), file, moved).parts == [str(moved)]
    assert "flat" in MODELS


def test_code_in_a_runs_folder_is_not_imported_unless_the_user_names_it(folder: Path) -> None:
    file = folder / run_files.SPEC
    file.write_text(own(folder))
    with pytest.raises(SpecError, match="is in the run's folder, which somebody may have sent"):
        import_parts_of_run(load(file), file)
    assert "new_parts" not in sys.modules
    import_parts_of_run(load(file), file, folder / "new_parts.py")
    assert "flat" in MODELS


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("3", "parts: a file such as my_parts.py, or a module, is needed, but found 3"),
        ("[a.py, {b: c}]", "parts: a file such as my_parts.py, or a module, is needed, but found {'b': 'c'}"),
        ("not a module", "parts: a file such as my_parts.py, or a module, is needed, but found 'not a module'"),
        ("missing.py", "missing.py: cannot be read: No such file or directory"),
        ("no_such_module", "parts 'no_such_module': module no_such_module cannot be imported: ModuleNotFoundError"),
        ("faulty.py", "faulty.py: cannot be imported: ValueError: no"),
        ("json.py", "json.py: there is another module json"),
        ("two-words.py", "two-words.py: its name cannot be that of a module"),
    ],
)
def test_parts_that_cannot_be_imported_are_one_line(folder: Path, value: str, said: str) -> None:
    for name, content in {"faulty.py": "raise ValueError('no')", "json.py": "", "two-words.py": ""}.items():
        (folder / name).write_text(content)
    with pytest.raises(SpecError) as raised:
        load(folder / "space.yaml", [f"parts={value}"], import_parts=True)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{folder / 'space.yaml'}")
    assert "\n" not in str(raised.value)


def test_a_name_that_the_parts_do_not_register_is_an_error_that_lists_them(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"'flatt' is not one of .*; did you mean 'flat'\?"):
        load(folder / "space.yaml", ["model=flatt"], import_parts=True)


def test_a_file_that_has_changed_is_imported_anew(folder: Path) -> None:
    load(folder / "space.yaml", ["model=new_parts:flat"], import_parts=True)
    before = MODELS["flat"]
    load(folder / "space.yaml", ["model=flat"], import_parts=True)
    assert MODELS["flat"] is before
    (folder / "new_parts.py").write_text(PARTS + "\n# changed")
    load(folder / "space.yaml", ["model=new_parts:flat"], import_parts=True)
    assert MODELS["flat"] is not before
    assert MODELS["flat"] is MODELS["new_parts:flat"]


def test_another_machine_is_sent_the_parts_and_what_they_import_from_their_folder(folder: Path) -> None:
    spec = load(folder / "space.yaml", ["model=flat"], import_parts=True)
    assert sorted(file.name for file in own_part_files(spec)) == ["beside_parts.py", "new_parts.py"]


def test_another_machine_is_sent_the_parts_of_all_searches_and_those_of_other_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    plain = load(folder / "space.yaml", ["parts=[]"])
    with_parts = load(folder / "space.yaml", ["model=flat"], import_parts=True)
    assert own_part_files(plain, with_parts) == own_part_files(with_parts)
    load(folder / "space.yaml", ["model=new_parts:flat"], import_parts=True)
    assert "new_parts.py" in {file.name for file in own_part_files(plain, also=["fgsm", "new_parts:flat"])}
    assert own_part_files(plain, also=["fgsm", "preact_resnet18"]) == []


def test_a_search_without_parts_says_nothing_of_them(folder: Path) -> None:
    spec = load(folder / "space.yaml", ["parts=[]"])
    assert "parts" not in parse(spec.to_yaml())
    assert own_part_files(spec) == []


def test_a_process_without_the_file_imports_the_module_that_it_was_sent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    registration.import_sent_parts([str(tmp_path / "elsewhere" / "new_parts.py")])
    assert "flat" in MODELS
