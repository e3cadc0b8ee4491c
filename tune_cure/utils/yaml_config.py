"""Configurations as people write them: YAML files, overrides of single keys, and errors of one line.

An error names the file, the path of the key, what was found and what is allowed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails

from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import join_words, shorten_repr
from tune_cure.utils.registry import did_you_mean
from tune_cure.utils.schema import choices
from tune_cure.utils.yaml_parser import MAX_LENGTH, describe_yaml_error, parse


class SpecError(TuneCureError):
    """A configuration that cannot be run. The text says file, path of the key, what was found and what is allowed."""


class ProblemError(Exception):
    """A value that is wrong, before it is known which file holds it; see `within`.

    Attributes:
        path: The path of its key, as in `training.epochs`; empty if the problem is not at a key.
        message: What is wrong.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path, self.message = path, message

    def within(self, source: object) -> SpecError:
        """Return the error for users; `source` is the file that holds the key, or other words for its place."""
        return SpecError(f"{source}: {self.path}: {self.message}" if self.path else f"{source}: {self.message}")


def parse_value(text: str, where: str) -> Any:
    """Parse a YAML value that was typed on a command line.

    Args:
        text: The value.
        where: The path of its key, or the flag, for the error.

    Raises:
        ProblemError: The text is not valid YAML.
    """
    try:
        return parse(text)
    except yaml.YAMLError as error:
        raise ProblemError(where, f"{shorten_repr(text)} is not a valid YAML value") from error


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 2h, 1h30m, 45min or 90s.

    Raises:
        ValueError: The text is not such a duration, or is zero.
    """
    parts = _DURATION.fullmatch(text.replace(" ", ""))
    hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise ValueError(f"{text!r} is not a duration such as 2h, 1h30m, 45min or 90s")
    return total


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping of keys.

    Raises:
        SpecError: The file cannot be read, is not valid YAML, or holds something other than a mapping.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            content = parse(file.read(MAX_LENGTH + 1))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: is not valid YAML: {describe_yaml_error(error)}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path}: a mapping of keys is needed, but found {describe(content)}")
    return content


def by_path(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration by the paths of their keys, as in `training.epochs`."""
    values: dict[str, Any] = {}
    for section, inner in content.items():
        if isinstance(inner, dict):
            values |= {f"{section}.{key}": value for key, value in inner.items()}
        else:
            values[section] = inner
    return values


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each path at which two configurations differ, with the value before and the value now."""
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key):
            yield key, before.get(key, "absent"), now.get(key, "absent")


def describe_differences(changes: Iterable[tuple[str, Any, Any]]) -> str:
    """Return `differences` in one line: training.epochs was 4 and is 2; …"""
    return "; ".join(f"{key} was {before} and is {now}" for key, before, now in changes)


def override(content: dict[str, Any], assignment: str) -> None:
    """Set one key of a configuration in place.

    Args:
        content: The configuration.
        assignment: The key's path, an equals sign and a YAML value: `training.epochs=5`.

    Raises:
        ProblemError: The assignment has another form, or a part of the path is a value and not a section.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise ProblemError("", f"--set {assignment}: KEY.PATH=VALUE is needed, for example training.epochs=5")
    put(content, path.strip(), parse_value(text, f"--set {assignment}"))


def put(content: dict[str, Any], path: str, value: Any) -> None:
    """Set the key at `path`, as in `training.epochs`, in place; missing sections are added.

    Raises:
        ProblemError: A part of the path is a value and not a section.
    """
    keys = path.split(".")
    for depth, key in enumerate(keys[:-1], start=1):
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            where = ".".join(keys[:depth])
            raise ProblemError(where, f"is {describe(content)}, not a section, so {path} cannot be set")
    content[keys[-1]] = value


def unknown(key: str, choices: Iterable[str]) -> str:
    """Return the message for a key that is not one of `choices`."""
    choices = list(choices)
    return f"unknown key; allowed are {', '.join(choices)}{did_you_mean(key, choices)}"


def describe(value: Any) -> str:
    """Return a value with its type, as errors say what was found."""
    return "nothing" if value is None else f"{shorten_repr(value)} ({type(value).__name__})"


def problem_at(key: str, message: str) -> ValidationError:
    """Return an error at a key, to be raised by a validator of the mapping that has this key."""
    details = InitErrorDetails(type="value_error", loc=(key,), input=None, ctx={"error": ValueError(message)})
    return ValidationError.from_exception_data(key, [details])


def first_problem(
    error: ValidationError, model: type[BaseModel], paths_of: Callable[[str], Sequence[str]] = lambda key: ()
) -> ProblemError:
    """Return pydantic's first error in plain words: the path, what was found and what is allowed.

    Args:
        error: The error.
        model: The model that was validated.
        paths_of: Returns the paths at which a key is allowed, for a key that stands elsewhere.
    """
    first = error.errors()[0]
    location = list(first["loc"])
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if first["type"] == "extra_forbidden" and (paths := paths_of(str(location[-1]))):
        return ProblemError(path, f"unknown key; did you mean {join_words(paths, 'or')}?")
    return ProblemError(path, _message(first, model, location))


def _message(error: ErrorDetails, model: type[BaseModel], location: Sequence[str | int]) -> str:
    """Return the message of one of pydantic's errors in plain words."""
    context = error.get("ctx", {})
    but_found = f"but found {describe(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            return unknown(str(location[-1]), _keys(model, location[:-1]))
        case "missing":
            return "is needed, but not given"
        case "value_error":
            return str(context["error"])
        case "float_type" | "int_type" | "int_from_float":
            return f"a {'number' if error['type'] == 'float_type' else 'whole number'} is needed, {but_found}"
        case "bool_type" | "bool_parsing":
            return f"true or false is needed, {but_found}"
        case "list_type":
            return f"a list is needed, {but_found}"
        case "string_type":
            names = ", ".join(_find_choices(model, location))
            return f"{f'one of {names}' if names else 'a text'} is needed, {but_found}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"a mapping of keys is needed, {but_found}"
        case _:
            return f"{error['msg'][0].lower()}{error['msg'][1:]}, {but_found}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the keys that the section at `location` may have."""
    return [field.alias or name for name, field in _find_section(model, location).model_fields.items()]


def _find_choices(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the names that the value at `location` may have; empty where it may be something else, too."""
    section = _find_section(model, location[:-1])
    fields = section.model_fields if _is_model(section) else {}
    return next((choices(field) for name, field in fields.items() if location[-1] in (name, field.alias)), [])


def _find_section(model: type[BaseModel], location: Sequence[str | int]) -> Any:
    """Return the type of the section at `location`."""
    section: Any = model
    for part in location:
        # In a dictionary or list, the part is a key or an index, and the section what they all hold.
        section = _if_given(section.model_fields[str(part)].annotation if _is_model(section) else get_args(section)[-1])
    return section


def _is_model(section: Any) -> bool:
    return isinstance(section, type) and issubclass(section, BaseModel)


def _if_given(annotation: Any) -> Any:
    """Return the X of `X | None`, and any other annotation as it is."""
    return get_args(annotation)[0] if type(None) in get_args(annotation)[1:] else annotation
