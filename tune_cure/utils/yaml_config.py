"""Configurations as people write them: YAML files, overrides of single keys, and errors of one line.

An error names the file, the key's path, what was found and what is allowed.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails
from yaml.constructor import ConstructorError

from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.registry import did_you_mean

MAX_VALUES = 10_000  # of a configuration whose aliases are written out: a few lines of them can make billions
MAX_INTEGER = 2**53  # from here on floats, and so YAML files of other programs, leave whole numbers out


class SpecError(TuneCureError):
    """A configuration that cannot be run. The text says file, path of the key, what was found and what is allowed."""


class ProblemError(Exception):
    """What is wrong, and at which key."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path, self.message = path, message

    def within(self, source: object) -> SpecError:
        """The error for people: `source` is the file, or what else holds the key."""
        return SpecError(f"{source}: {self.path}: {self.message}" if self.path else f"{source}: {self.message}")


class _Loader(yaml.SafeLoader):
    """Safe YAML, but `off`, `no`, dates and the like stay strings (`amp: off`), and a key given twice is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # how PyYAML takes `!!int x`, `!!timestamp x`
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"{shorten_repr(node.value)} is no {kind}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):  # with `!!map x` it is none
            node.value = [(_as_text(key), value) for key, value in node.value]
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key, number in Counter(keys).items():
                if number > 1:
                    raise ConstructorError(None, None, f"the key {shorten_repr(key)} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _as_text(key: yaml.Node) -> yaml.Node:
    """A key that looks like a number, a truth or nothing (`1: x`) as the text that it is."""
    if isinstance(key, yaml.ScalarNode) and key.tag.rpartition(":")[2] in ("int", "float", "bool", "null"):
        return yaml.ScalarNode("tag:yaml.org,2002:str", key.value, key.start_mark, key.end_mark)
    return key


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    """A whole number; text that only looks like one (`0x_`), or is one of too many digits, stays text."""
    text = str(loader.construct_scalar(node))
    try:
        number = loader.construct_yaml_int(node)
    except ValueError:
        return text
    return number if abs(number) <= MAX_INTEGER else text


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:timestamp" and (first in "tTfF" or tag != "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> Any:
    """A YAML document.

    Raises:
        yaml.YAMLError: It is not valid, or larger than any configuration.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"it holds more than {MAX_VALUES} values, those of aliases counted")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """The number of values in a node, aliases written out; `sizes` has those of the nodes that were seen before."""
    if node not in sizes:
        sizes[node] = 0  # of a node within itself, until its own size is known
        inner = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[node] = 1 + sum(_size(child, sizes) for child in inner) if isinstance(node, yaml.CollectionNode) else 1
    elif sizes[node] == 0:
        raise ConstructorError(None, None, "an alias stands within what it is an alias of", node.start_mark)
    return sizes[node]


def parse_value(text: str, where: str) -> Any:
    """A YAML value that was typed on a command line, at `where`.

    Raises:
        ProblemError: It is not valid.
    """
    try:
        return parse(text)
    except yaml.YAMLError as error:
        raise ProblemError(where, f"{shorten_repr(text)} is not a valid YAML value") from error


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as 2h, 1h30m, 45min or 90s.

    Raises:
        ValueError: It is none, or is zero.
    """
    parts = _DURATION.fullmatch(text.replace(" ", ""))
    hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise ValueError(f"{text!r} is not a duration such as 2h, 1h30m, 45min or 90s")
    return total


def read_mapping(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping of keys.

    Raises:
        SpecError: The file cannot be read, is not valid YAML, or holds something else.
    """
    try:
        content = parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path}: a mapping of keys is needed, but found {describe(content)}")
    return content


def by_path(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration by the paths of their keys, as in `training.epochs`."""
    values: dict[str, Any] = {}
    for section, inner in content.items():
        values |= {f"{section}.{key}": of for key, of in inner.items()} if isinstance(inner, dict) else {section: inner}
    return values


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The paths at which two configurations differ, each with what was there and what is."""
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key):
            yield key, before.get(key, "absent"), now.get(key, "absent")


def override(content: dict[str, Any], assignment: str) -> None:
    """Sets in `content` what `training.epochs=5` and the like say: a key's path, an equals sign, a YAML value.

    Raises:
        ProblemError: The assignment is none, or leads through a value.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise ProblemError("", f"--set {assignment}: KEY.PATH=VALUE is needed, for example training.epochs=5")
    put(content, path.strip(), parse_value(text, f"--set {assignment}"))


def put(content: dict[str, Any], path: str, value: Any) -> None:
    """Sets the key at `path`, as in `training.epochs`; sections on the way are made.

    Raises:
        ProblemError: The path leads through a value.
    """
    keys = path.split(".")
    for depth, key in enumerate(keys[:-1], start=1):
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            where = ".".join(keys[:depth])
            raise ProblemError(where, f"is {describe(content)}, not a section, so {path} cannot be set")
    content[keys[-1]] = value


def unknown(key: str, choices: Iterable[str]) -> str:
    """What to say of a key that is none of `choices`."""
    choices = list(choices)
    return f"unknown key; allowed are {', '.join(choices)}{did_you_mean(key, choices)}"


def describe(value: Any) -> str:
    """A value and its type, as an error says what was found."""
    return "nothing" if value is None else f"{shorten_repr(value)} ({type(value).__name__})"


def problem_at(key: str, message: str) -> ValidationError:
    """Return an error at a key, to be raised by a validator of the mapping that has this key."""
    details = InitErrorDetails(type="value_error", loc=(key,), input=None, ctx={"error": ValueError(message)})
    return ValidationError.from_exception_data(key, [details])


def first_problem(error: ValidationError, model: type[BaseModel]) -> ProblemError:
    """Pydantic's first error in our words: the path, then what was found and what is allowed."""
    first = error.errors()[0]
    location = list(first["loc"])
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return ProblemError(path, _message(first, model, location))


def _message(error: ErrorDetails, model: type[BaseModel], location: Sequence[str | int]) -> str:
    context = error.get("ctx", {})
    found = f"but found {describe(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            return unknown(str(location[-1]), _keys(model, location[:-1]))
        case "missing":
            return "is needed, but not given"
        case "value_error":
            return str(context["error"])
        case "float_type" | "int_type" | "int_from_float":
            return f"a {'number' if error['type'] == 'float_type' else 'whole number'} is needed, {found}"
        case "bool_type" | "bool_parsing":
            return f"true or false is needed, {found}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"a mapping of keys is needed, {found}"
        case _:
            return f"{error['msg'][0].lower()}{error['msg'][1:]}, {found}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that the section at `location` may have."""
    section: Any = model
    for part in location:
        is_model = isinstance(section, type) and issubclass(section, BaseModel)
        # In a dictionary or list, the part is a key or an index, and the section what they all hold.
        section = section.model_fields[str(part)].annotation if is_model else get_args(section)[-1]
    return [field.alias or name for name, field in section.model_fields.items()]
