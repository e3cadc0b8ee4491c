"""Registries: names, `module:name`, entry points of installed packages, and one-line errors."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tune_cure.utils import registry
from tune_cure.utils.registry import Declared, PartError, Registry, is_reference, local_modules


def first() -> str:
    return "first"


def make() -> Registry[Callable[[], str]]:
    return Registry("network", {"first": first})


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the module `some_parts` in it."""
    file = tmp_path / "some_parts.py"
    file.write_text("def second():\n    return 'second'\n\nnumber = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield file
    sys.modules.pop("some_parts", None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that adds the networks `third` and `broken` by entry points."""
    (tmp_path / "plugin_parts.py").write_text("def third():\n    return 'third'\n")
    metadata = tmp_path / "plugin_parts-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-parts\nVersion: 1.0\n")
    lines = ["[tune_cure.networks]", "third = plugin_parts:third", "broken = plugin_parts_missing:x"]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entry_points.cache_clear()
    yield
    sys.modules.pop("plugin_parts", None)
    registry._entry_points.cache_clear()


def test_it_reads_like_a_dictionary() -> None:
    networks = make()
    assert (list(networks), len(networks), networks["first"], "first" in networks) == (["first"], 1, first, True)
    assert networks.get("other") is None
    with pytest.raises(KeyError):
        networks["other"]


def test_a_part_of_the_project_may_be_given_as_the_module_and_name_of_its_file() -> None:
    path, modules = list(sys.path), Registry("network", {"join": "posixpath:join"})
    import posixpath

    assert modules.resolve("join") is posixpath.join
    assert sys.path == path  # the working directory counts for the user's own modules alone
    with pytest.raises(PartError, match="network 'posixpath:jion': module posixpath has no jion; did you mean 'join'"):
        Registry("network", {"join": "posixpath:jion"})["join"]


def test_a_part_of_the_project_is_imported_when_it_is_first_looked_up(own_module: Path) -> None:
    networks: Registry[Callable[[], str]] = Registry("network", {"second": "some_parts:second", "first": first})
    sys.path.append(str(own_module.parent))
    assert (list(networks), "second" in networks, networks.is_builtin("second")) == (["second", "first"], True, True)
    assert "some_parts" not in sys.modules
    assert networks["second"]() == "second"
    assert "some_parts" in sys.modules


class Wide:
    """A declaration."""


def test_a_declaration_stands_for_a_part_that_is_not_imported() -> None:
    networks: Registry[Callable[[], str]] = Registry(
        "network", {"wide": Declared("no_such_parts:Wide", Wide), "first": first}
    )
    assert networks.declaration("wide") is Wide
    assert networks.declaration("first") is first
    assert networks.declaration("other") is None
    assert networks.declarations == [Wide, first]


def test_a_registered_part_has_a_name_and_a_name_stands_for_one_part() -> None:
    networks = make()
    networks.register("other", len)  # type: ignore[arg-type]
    networks.register("other", len)  # type: ignore[arg-type]
    assert networks.resolve("other") is len
    with pytest.raises(PartError, match="there is a network named 'first' already"):
        networks.register("first", len)  # type: ignore[arg-type]
    with pytest.raises(PartError, match="'a:b' cannot be the name of a network"):
        networks.register("a:b", first)
    with pytest.raises(PartError, match="network 'seven': a function or a class is needed, but found 7"):
        networks.register("seven", 7)  # type: ignore[arg-type]


def test_an_unknown_name_is_answered_with_the_choices() -> None:
    with pytest.raises(PartError, match=r"^'frist' is not one of first; did you mean 'first'\?$"):
        make().resolve("frist")


@pytest.mark.usefixtures("own_module")
def test_a_module_in_the_working_directory_is_imported_by_resolve_alone() -> None:
    networks = make()
    name = "some_parts:second"
    assert name not in networks
    assert networks.get(name) is None
    assert "some_parts" not in sys.modules
    assert networks.resolve(name)() == "second"
    assert name in networks
    assert list(networks) == ["first"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_parts:x",
            "network 'no_such_parts:x': module no_such_parts cannot be imported: ModuleNotFoundEr",
        ),
        ("some_parts:secnd", r"network 'some_parts:secnd': module some_parts has no secnd; did you mean 'second'\?"),
        ("some_parts:number", "network 'some_parts:number': a function or a class is needed, but found 7"),
        ("some_parts:", "'some_parts:' is not one of first"),
    ],
)
@pytest.mark.usefixtures("own_module")
def test_what_is_wrong_with_a_module_name_is_one_line(name: str, message: str) -> None:
    with pytest.raises(PartError, match=message) as caught:
        make().resolve(name)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_is_one_line(own_module: Path) -> None:
    own_module.write_text("raise RuntimeError('one\\ntwo')\n")
    with pytest.raises(PartError, match=r"module some_parts cannot be imported: RuntimeError: one$"):
        make().resolve("some_parts:second")


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_names_and_is_imported_when_one_is_used() -> None:
    networks = make()
    assert list(networks) == ["first", "third", "broken"]
    assert "third" in networks
    assert "plugin_parts" not in sys.modules
    assert networks.resolve("third")() == "third"
    with pytest.raises(PartError, match="network 'broken': plugin_parts_missing:x cannot be imported: ModuleNotFound"):
        networks.resolve("broken")


@pytest.mark.parametrize("name", ["a:b", "a.b:c", "_a1.b_2:C"])
def test_references(name: str) -> None:
    assert is_reference(name)


@pytest.mark.parametrize("name", ["a", "a:", ":b", "a:b:c", "a b:c", "1a:b", "a.:b", "../a:b", "a:b.c", 7, None])
def test_what_is_no_reference(name: object) -> None:
    assert not is_reference(name)


def test_local_modules_are_the_files_that_another_machine_lacks(own_module: Path) -> None:
    package = own_module.parent / "more_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    found = local_modules(["some_parts:second", "some_parts:number", "more_parts.inner:x", "torch.nn:Linear"])
    assert found == [own_module, package]
