"""Damaged YAML files, thousands of them where asked: TUNE_CURE_FUZZ=5000 makes that many of each kind.

Whatever is in the file, the command runs the search it describes or exits with 2 and one line that says where and what.
"""

import contextlib
import copy
import datetime
import functools
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hypothesis")
from hypothesis import given, strategies as st

from tests.support.fuzzing import fuzzed
from tune_cure.cli.main import main
from tune_cure.cli.steps import search_run, train_run
from tune_cure.data import splits
from tune_cure.data.source import NotHereError
from tune_cure.search.space import config as config_module, loading
from tune_cure.training.config import HYPERPARAMETERS
from tune_cure.utils.formatting import one_line
from tune_cure.utils.yaml_config import SpecError
from tune_cure.utils.yaml_parser import parse

SPACES = sorted(Path("search_spaces").glob("*.yaml"))
BASES = [path.read_text(encoding="utf-8") for path in SPACES]
RUN = """
data: {dataset: digits, validation: 100}
model: {name: small_cnn, width: 4}
training: {epochs: 2, batch_size: 50, lambda: 0.1, lr_schedule: cosine, epsilon: 8/255}
evaluation: {epsilon: 0.05, steps: 3, examples: 100}
seed: 3
early_stop: true
"""

# ---- Damage

TOKENS = [
    "!!python/object/apply:os.system ['touch fuzzed']", "!!python/name:os.system ", "!!map x", "!!int x", "!!float x",
    "!!bool maybe", "!!timestamp x", "!!binary é", "!!set {a}", "!!omap [a]", "!!seq x", "!!str {}", "!!null {}", "!x ",
    "&a ", "*a", "*nowhere", "&a [*a]", "&a {x: *a}", "<<: *a\n", "<<: x\n", "<<: {epochs: 2}\n", "? [a]\n",
    "? {a: b}\n: c\n",
    "0b_", "0x_", "1" * 5000, "1e999", "-.inf", ".nan", "1:60:60", "2001-99-99", "2001-01-01", "1/0", "8/255/2", "٣/٤",
    "[" * 2000, "{a: " * 500, "- " * 500, "---\n", "...\n", "%YAML 9.9\n", "%TAG ! x\n", "\t", "\0", "\x1b[31m", "\x85",
    "\u2028", "\ufeff", '"\\ud800"', '"\\0"', '"\\n"', "'", '"', "|\n", ">\n", ": ", "- ", "#", "@", "`", "~", "=",
    "\r", "é", "💥",
    "off", "null", "true", "[/]", "[bold]", "../../x", "/etc/passwd", "x" * 5000,
]  # fmt: skip

junk_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([-(10**30), 2**31, 2**53, 2**63, 10**30, 10**400]),
    st.floats(),
    st.sampled_from([1e-320, 1e308, -0.0, 1.0000000001, 0.5, 1.5]),
    st.text(max_size=8),
    st.sampled_from([*TOKENS, "auto", "sgd", "none", "digits", "cifar10", "cyclic", "8/255", "1e-4", "~x/y", "\ud800"]),
    st.dates(),
    st.datetimes(timezones=st.just(datetime.UTC)),
    st.binary(max_size=4),
)
keys = st.one_of(
    st.sampled_from(
        [*config_module.SearchSpec.model_fields, *HYPERPARAMETERS, "choice", "uniform", "int", "step", "root"]
    ),
    st.text(max_size=6),
    st.sampled_from(["lamda", "a\nb", "\x1b[2J", "x" * 5000, "<<", "=", "~"]),
    st.integers(-2, 2),
    st.none(),
    st.booleans(),
    st.floats(),
)
junk = st.recursive(
    junk_scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)


def places(tree: Any, above: tuple[int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in a tree of dictionaries and lists, which may hold themselves."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items if id(tree) not in above else ():
        yield tree, key
        yield from places(value, (*above, id(tree)))


@functools.cache
def parsed(text: str) -> Any:
    """The tree of a text that many examples start from; to be copied before it is changed."""
    return parse(text)


@st.composite
def damaged_trees(draw: st.DrawFn, texts: list[str]) -> str:
    """A search space with some of its keys and values gone, renamed, moved, or replaced by junk; as YAML."""
    tree = copy.deepcopy(parsed(draw(st.sampled_from(texts))))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["delete", "replace", "replace", "rename", "add", "copy"])):
            case "delete":
                del container[key]
            case "replace":
                container[key] = draw(junk)
            case "rename" if isinstance(container, dict):
                container[draw(keys)] = container.pop(key)
            case "add" if isinstance(container, dict):
                container[draw(keys)] = draw(junk)
            case _:  # what stands elsewhere; twice the same object is an alias in the file, and may be of itself
                source, other = found[draw(st.integers(0, len(found) - 1))]
                container[key] = source[other]
    return yaml.dump(tree, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=draw(st.booleans()))


@st.composite
def damaged_texts(draw: st.DrawFn, texts: list[str]) -> bytes:
    """A search space with lines and bytes gone, doubled or changed, and hostile YAML in their place."""
    content = draw(st.sampled_from(texts)).encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 2, 5, 20, 200])))
        middle = draw(
            st.one_of(
                st.just(b""),
                st.sampled_from(TOKENS).map(str.encode),
                st.sampled_from(TOKENS).map(lambda token: f"\n{token}\n".encode()),
                st.binary(max_size=4),
                st.just(content[start:end] * 2),
                st.just(b" ".join(content.splitlines()[-3:])),
            )
        )
        content = content[:start] + middle + content[end:]
    return content


@st.composite
def damaged_values(draw: st.DrawFn, texts: list[str]) -> str:
    """A search space one of whose values is a hostile piece of YAML, or one of whose lines is there twice."""
    lines = draw(st.sampled_from(texts)).splitlines(keepends=True)
    number = draw(st.integers(0, len(lines) - 1))
    values = list(re.finditer(r"(?<=[:,\[] )[^\s,\]}{:]+|(?<=\[)[^\s,\]]+", lines[number]))
    if values:
        value = values[draw(st.integers(0, len(values) - 1))]
        token = draw(st.sampled_from(TOKENS))
        lines[number] = lines[number][: value.start()] + token + lines[number][value.end() :]
    else:
        lines.insert(number, lines[number])
    return "".join(lines)


# ---- What must hold


GOES_ON = "it goes on to the data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands work; those that find nothing wrong get as far as the data."""

    def begin(*_: Any, **__: Any) -> None:
        raise NotHereError(GOES_ON)

    def never(*_: Any) -> None:
        raise AssertionError("a search was started")

    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(splits, "load", begin)
        patch.setattr(search_run, "run_trials", never)
        patch.setattr(train_run, "Run", never)
        yield folder


def exit_code(*arguments: str) -> tuple[int | None, str, str]:
    """Of a command, None if it went on to the data; and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return None if GOES_ON in err.getvalue() else code, out.getvalue(), err.getvalue()


def is_one_line_that_names_a_key(line: str, file: Path, content: bytes | str, sections: set[str]) -> None:
    start = f"tune-cure: {file}: "
    assert line.startswith(start)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    assert len(line) < 3000
    said = line.removeprefix(start)
    try:
        tree = parse(content if isinstance(content, str) else content.decode())
    except (yaml.YAMLError, UnicodeDecodeError):
        assert said.startswith("is not valid YAML: ")
        return
    if not isinstance(tree, dict):
        assert said.startswith("a mapping of keys is needed, but found ")
        return
    assert any(said.startswith(one_line(key)[:500]) for key in [*tree, *sections])


def check_search(file: Path, content: bytes | str) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    code, out, err = exit_code("search", "--space", str(file))
    if code is None:
        assert isinstance(loading.load(file), config_module.SearchSpec)
        code, out, err = exit_code("search", "--space", str(file), "--check")
        # None: data is not here, nor downloaded into a folder that only a YAML names
        assert code in (0, None) or (code == 2 and err.startswith("tune-cure: resources: a trial takes "))
        return
    assert (code, out) == (2, "")
    is_one_line_that_names_a_key(err, file, content, set(config_module.SearchSpec.model_fields))
    with pytest.raises(SpecError):
        loading.load(file)
    assert {path.name for path in file.parent.iterdir()} == {file.name}


@fuzzed(30)
@given(content=damaged_trees(BASES))
def test_a_space_of_damaged_structure_is_a_search_or_one_line(content: str, folder: Path) -> None:
    check_search(folder / "space.yaml", content)


@fuzzed(30)
@given(content=damaged_texts(BASES))
def test_a_space_of_damaged_bytes_is_a_search_or_one_line(content: bytes, folder: Path) -> None:
    check_search(folder / "space.yaml", content)


@fuzzed(30)
@given(content=damaged_values(BASES))
def test_a_space_with_hostile_yaml_for_a_value_is_a_search_or_one_line(content: str, folder: Path) -> None:
    check_search(folder / "space.yaml", content)


@fuzzed(30)
@given(content=st.one_of(damaged_trees([RUN]), damaged_values([RUN]), damaged_texts([RUN])))
def test_a_damaged_configuration_of_a_run_is_a_run_or_one_line(content: bytes | str, folder: Path) -> None:
    file = folder / "space.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    code, out, err = exit_code("train", "--config", str(file))
    if code is None:
        return
    assert (code, out) == (2, "")
    line = err.removeprefix("tune-cure: ")
    assert line.startswith(f"{file}: ")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("space", range(len(SPACES)), ids=[path.stem for path in SPACES])
def test_every_value_that_is_replaced_by_junk_is_named_by_its_path(space: int, folder: Path) -> None:
    file = folder / "space.yaml"
    tree = parse(BASES[space])
    kinds = itertools.islice(itertools.cycle([{"x": 1}, [[]], float("nan")]), space, None)  # in turn
    for number, (container, key) in enumerate(list(places(tree))):
        intact, container[key] = container[key], next(kinds)
        file.write_text(yaml.safe_dump(tree))
        container[key] = intact
        code, _, err = exit_code("search", "--space", str(file))
        assert code == 2
        path = re.sub(r"^search\.metric\[\d\]$", "search.metric", path_of(tree, number))  # judged as a whole
        assert err.startswith(f"tune-cure: {file}: {path}"), err


def path_of(tree: Any, number: int) -> str:
    """The path of the place with this number, as messages write it."""
    container, key = list(places(tree))[number]
    if container is tree:
        return str(key)
    above = next(index for index, (holder, name) in enumerate(places(tree)) if holder[name] is container)
    return path_of(tree, above) + (f"[{key}]" if isinstance(key, int) else f".{key}")
