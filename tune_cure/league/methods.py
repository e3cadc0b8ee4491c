"""Methods of a league: how they are named, and the search that each of them gets.

A search space is shared by all methods. The keys that belong to a method (its attack, its penalty, their weights) are
left out of it: each method brings its own values and its own ranges, from its preset.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from tune_cure.attacks.registry import ATTACKS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load_mapping, read_start_file
from tune_cure.training.config import declared_keys, parse_hyperparameter
from tune_cure.training.delta import DELTA, SAME_AS
from tune_cure.training.presets import DEFAULT, METHOD, METHODS, NO_METHOD, find_preset
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import join_words, shorten_repr
from tune_cure.utils.schema import Schema, absolute_path
from tune_cure.utils.yaml_config import ProblemError, read_mapping, unknown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RESERVED = ("confirm",)  # a folder of the league's own, beside those of the methods
PRESET_SUFFIX = "-preset"  # after a method's name: its untuned preset, in the league's confirmation
SECTIONS = ("training", "space")  # of a method's file, and of what all methods share
UNEQUAL = ("patience", "warm_start", "budget_seconds", "budget_epochs")
"""Keys of `search` that would give methods unequal searches; absent or null in a league's space."""


class LeagueError(TuneCureError):
    """A league that cannot be run as asked for."""


class Entry(Schema):
    """A method as it takes part in a league."""

    training: dict[str, Any] = Field(description="Its fixed hyperparameters, `method` among them.")
    space: dict[str, Any] = Field(default_factory=dict, description="Distributions in place of the preset's.")


def read_entries(words: Sequence[str]) -> dict[str, Entry]:
    """Return the methods that a command line names, in its order: METHOD, NAME=METHOD or NAME=FILE.yaml.

    Raises:
        LeagueError: A method is unknown, a name is given twice or cannot name a folder, or there are fewer than two.
        SpecError: A file cannot be read, or is no method's file.
    """
    entries: dict[str, Entry] = {}
    for word in words:
        name, is_named, method = word.partition("=")
        method = method if is_named else name
        if name in entries:
            raise LeagueError(f"--methods: {name} is given twice; a copy gets a name of its own: {name}2={method}")
        if Path(method).suffix in (".yaml", ".yml"):
            if not is_named:
                raise LeagueError(f"--methods: {word} needs a name: NAME={word}")
            entry = _read_file(Path(method))
        else:
            entry = Entry(training={METHOD: _check_method(method)})
        if name.endswith(PRESET_SUFFIX):
            raise LeagueError(f"--methods: {name}: a name that ends in {PRESET_SUFFIX} is that of an untuned preset")
        if not NAME.fullmatch(name) or name in RESERVED:
            rule = f"a name of letters, digits, '.', '_' and '-' is needed, and not {join_words(RESERVED, 'or')}"
            raise LeagueError(f"--methods: {rule}, but found {shorten_repr(name)}; NAME={method} gives one")
        entries[name] = entry
    if len(entries) < 2:
        raise LeagueError(f"--methods: a league needs at least two methods, but found {len(entries)}")
    return entries


def _check_method(method: str) -> str:
    """Return the name of a method that there is.

    Raises:
        LeagueError: There is none of this name.
    """
    if method == NO_METHOD:
        raise LeagueError(f"--methods: {NO_METHOD} stands for no method; NAME=FILE.yaml describes one of your own")
    if not (method in METHODS or METHODS.is_unread(method)):
        raise LeagueError(f"--methods: {METHODS.unknown(method)}")
    return method


def _read_file(file: Path) -> Entry:
    """Return the method that a file describes: the sections `training`, with `method`, and `space`.

    Raises:
        SpecError: It describes none.
    """
    content = read_mapping(file)
    try:
        for key, value in content.items():
            if key not in SECTIONS:
                raise ProblemError(key, unknown(key, SECTIONS))
            _check_mapping(key, value)
        training = content.get("training", {})
        if METHOD not in training:
            raise ProblemError(f"training.{METHOD}", "is needed: it names the method that the other keys change")
        find_preset(training)
    except ProblemError as problem:
        raise problem.within(file) from problem
    return Entry(training=training, space=content.get("space", {}))


def _check_mapping(section: str, value: Any) -> None:
    """Raise an error if a section of a YAML file is no mapping."""
    if not isinstance(value, dict):
        raise ProblemError(section, f"a mapping is needed, but found {shorten_repr(value)}")


def own_keys() -> set[str]:
    """Return the hyperparameters, by their YAML names, that belong to methods and not to all of a league."""
    keys = {METHOD, DELTA, *declared_keys([*ATTACKS.declarations, *REGULARIZERS.declarations])}
    for name in METHODS:
        preset = METHODS.resolve(name)
        keys |= {*preset.keys, *preset.space}
    return keys | {other for key in keys for other in SAME_AS.get(key, ())}


def take_shared(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the part of a search space that all methods share, and the paths of the keys that were left out.

    It holds in every working directory: the folder of the data is absolute, and a file under `start_from` is read.

    Args:
        content: The mapping of a search space's YAML file.

    Raises:
        ProblemError: A key would make the methods' searches unequal, or a file cannot be read.
    """
    shared, left_out, own = copy.deepcopy(dict(content)), [], own_keys()
    search = shared.get("search")
    for key in UNEQUAL:
        if isinstance(search, dict) and search.get(key) is not None:
            raise ProblemError(f"search.{key}", "is not for a league, which gives each method the same budget")
    for section in SECTIONS:
        if isinstance(shared.get(section), dict):
            left_out += [f"{section}.{key}" for key in shared[section] if key in own and key != METHOD]
            shared[section] = {key: value for key, value in shared[section].items() if key not in own}
    starts = shared.get("start_from")
    if isinstance(starts, list) and starts and isinstance(starts[0], dict | str):
        first = read_start_file(starts[0], 0) if isinstance(starts[0], str) else starts[0]
        shared["start_from"] = [{key: value for key, value in first.items() if key not in own}]
    data = shared.get("data")
    if isinstance(data, dict) and isinstance(data.get("root"), str):
        data["root"] = _absolute_root(data["root"])
    return shared, left_out


def _absolute_root(root: str) -> str:
    """Return `data.root` as an absolute path, as `DataSpec` does.

    Raises:
        ProblemError: No folder can have this path.
    """
    try:
        return absolute_path(root)
    except ValueError as error:
        raise ProblemError("data.root", str(error)) from error


def compose_spec(shared: Mapping[str, Any], name: str, entry: Entry, source: str) -> SearchSpec:
    """Return the search of a method: its own space and the shared keys, begun with its untuned preset.

    Args:
        shared: The part of the search space that all methods share.
        name: The method's name in the league.
        entry: The method.
        source: Names the search space in errors; paths in it are relative to the folder of this file.

    Raises:
        SpecError: The search cannot be run.
    """
    content = copy.deepcopy(dict(shared))
    starts = content.pop("start_from", None) or []
    fixed = {other for key in entry.training for other in (key, *SAME_AS.get(key, ()))}
    where = f"{source} (method {name})"
    try:
        for section in SECTIONS:
            _check_mapping(section, content.setdefault(section, {}))
    except ProblemError as problem:
        raise problem.within(where) from problem
    content["name"] = name
    content["training"] |= entry.training
    searched = {key: value for key, value in content["space"].items() if key not in fixed}
    content["space"] = {METHOD: DEFAULT, **searched, **entry.space}
    spec = load_mapping(copy.deepcopy(content), source=where, import_parts=True)
    try:
        content["start_from"] = [_preset_start(spec, _read_first(spec, starts))]
    except ProblemError as problem:
        raise problem.within(where) from problem
    return load_mapping(content, source=where, import_parts=True)


def _read_first(spec: SearchSpec, starts: Any) -> dict[str, Any]:
    """Return the first configuration of `start_from`, for the shared keys.

    Raises:
        ProblemError: It is none, or a value is none of its key.
    """
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts[:1]):
        rule = "a list of configurations or of files is needed"
        raise ProblemError("start_from", f"{rule}, but found {shorten_repr(starts)}")
    shared = spec.space.keys() - own_keys()
    return {
        key: parse_hyperparameter(key, value, f"start_from[0].{key}")
        for start in starts[:1]
        for key, value in start.items()
        if key in shared
    }


def _preset_start(spec: SearchSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the untuned configuration of a method: the paper's values of its own keys, usual ones of the rest.

    Its radius is the one that it is judged at, as in papers.

    Args:
        spec: The method's search.
        given: Values of shared keys that the search space begins with.
    """
    from tune_cure.search.duration import typical_hyperparameters  # imports torch: not before the names are known

    preset = METHODS.resolve(spec.training[METHOD])
    usual = spec.training_config({}).model_dump(mode="json", by_alias=True)
    middle = typical_hyperparameters(spec)
    judged = {"epsilon": spec.evaluation.epsilon} if spec.evaluation.norm == usual["norm"] else {}

    def value(key: str) -> Any:
        for values in (judged, given, preset.keys, usual):
            if key in values and spec.space[key].contains(values[key]):
                return values[key]
        return middle[key]

    return spec.propose(value)


def describe_left_out(paths: Iterable[str]) -> str:
    """Return which keys of a search space a league does not use, and why; empty if it uses all."""
    paths = list(paths)
    if not paths:
        return ""
    verb = "are" if len(paths) > 1 else "is"
    return f"{join_words(paths)} {verb} left out: each method brings its own (NAME=FILE.yaml changes them)"
