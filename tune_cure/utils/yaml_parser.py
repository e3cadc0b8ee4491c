"""Safe parser of YAML as people write it: `off` and dates stay text, a key given twice is an error, size is bounded."""

import itertools
from collections import Counter
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from tune_cure.utils.formatting import shorten_repr

MAX_VALUES = 10_000  # values of a document with its aliases expanded: a few lines of aliases can stand for billions
MAX_LENGTH = 2**19  # characters of a document: the parser takes a second for each million
MAX_INTEGER = 2**53  # above it a float, and so the YAML of other programs, cannot hold every whole number


class _Loader(yaml.SafeLoader):
    """Safe loader in which `off`, `no` and dates stay strings (`amp: off`), and a key given twice is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # what PyYAML raises for `!!int x`
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"{shorten_repr(node.value)} is no {kind}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):  # `!!map x` gives another kind of node
            node.value = [(_as_text(key), value) for key, value in node.value]
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key, number in Counter(keys).items():
                if number > 1:
                    raise ConstructorError(None, None, f"the key {shorten_repr(key)} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _as_text(key: yaml.Node) -> yaml.Node:
    """Return a key that looks like a number, a boolean or null (`1: x`) as text."""
    if isinstance(key, yaml.ScalarNode) and key.tag.rpartition(":")[2] in ("int", "float", "bool", "null"):
        return yaml.ScalarNode("tag:yaml.org,2002:str", key.value, key.start_mark, key.end_mark)
    return key


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    """Return a whole number. Text that only looks like one (`0x_`) and a number above `MAX_INTEGER` stay text."""
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
    """Parse a YAML document.

    Raises:
        yaml.YAMLError: It is not valid YAML, or is larger than any configuration.
    """
    if len(text) > MAX_LENGTH:
        raise yaml.YAMLError(f"it is longer than {MAX_LENGTH:,} characters")
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


def describe_yaml_error(error: yaml.YAMLError) -> str:
    """Return where `parse` failed, if that is known, and what is wrong there, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
    return " ".join(": ".join(filter(None, (place, error.context, error.problem))).split())


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Return the number of values in a node with its aliases expanded.

    Args:
        node: The node.
        sizes: The sizes of nodes that were counted before; this node is added.
    """
    if node not in sizes:
        sizes[node] = 0  # marks a node that contains itself, until its size is known
        inner = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[node] = 1 + sum(_size(child, sizes) for child in inner) if isinstance(node, yaml.CollectionNode) else 1
    elif sizes[node] == 0:
        raise ConstructorError(None, None, "an alias stands within what it is an alias of", node.start_mark)
    return sizes[node]
