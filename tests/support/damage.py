"""Damage to files, drawn by hypothesis: to their bytes, or to the values that they hold."""

import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

Damage = Callable[[bytes], bytes]

TOKENS = [
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b]0;owned\x07", b"\x9b2J", "\u202e".encode(), b"\r\n", b"\n", b"'",
    b'"', b",", b"NaN", b"Infinity", b"1e999", b"-1e308", b"1" * 5000, b"[" * 3000, b"{" * 3000, b"null", b"true",
    b"../../x", b"/etc/passwd", b"=1+1", b"@x", b"<script>", b"$\\frac{$", b"x" * 5000, b"\x80\x05.", b"PK\x03\x04",
    b"SQLite format 3\0", b"!!python/name:os.system ", b"&a [*a]", b"\x89PNG\r\n\x1a\n", b"os:system",
]  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.sampled_from([-(10**30), 2**31, 2**53, 2**63, 10**30, 10**400, 9 * 10**15]),
    st.floats(),
    st.sampled_from([1e308, -1e308, 5e-324, 1e100, 0.5, -0.0]),
    st.text(max_size=6),
    st.sampled_from(
        [
            "\x1b]0;x\x07",
            "\u202ex",
            "\ud800",
            "=1+1",
            "<b>",
            "$\\frac{$",
            "../..",
            "/",
            "os:system",
            "x" * 5000,
            "8/255",
        ]
    ),
)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with a key or an index in a tree of dictionaries and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


@st.composite
def of_values(draw: st.DrawFn, values: Any = junk) -> Callable[[Any], Any]:
    """Return a function that damages a tree: a value is gone, replaced, renamed, doubled, or all is something else."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["delete", "replace", "replace", "replace", "rename", "swap"]),
                st.integers(0, 500),
                st.integers(0, 500),
                values,
                st.text(max_size=4),
            ),
            min_size=1,
            max_size=2,
        )
    )
    whole = draw(st.integers(0, 30))
    other = draw(values)

    def damage(tree: Any) -> Any:
        if whole == 0:
            return other
        tree = copy.deepcopy(tree)
        for kind, at, where, value, name in steps:
            places = list(_places(tree))
            if not places:
                return value
            container, key = places[at % len(places)]
            if kind == "delete":
                del container[key]
            elif kind == "replace":
                container[key] = value
            elif kind == "rename" and isinstance(container, dict):
                container[name] = container.pop(key)
            else:
                source, source_key = places[where % len(places)]
                container[key] = copy.deepcopy(source[source_key])
        return tree

    return damage


@st.composite
def of_bytes(draw: st.DrawFn) -> Damage:
    """Return a function that damages bytes: cut short, overwritten, doubled, or something else altogether."""
    kind = draw(st.sampled_from(["edit", "edit", "edit", "cut", "flip", "whole"]))
    places = draw(st.lists(st.integers(0, 2**20), min_size=1, max_size=3))
    token = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6)))
    removed = draw(st.sampled_from([0, 0, 1, 4, 30, 300]))
    bit = draw(st.integers(0, 7))

    def damage(content: bytes) -> bytes:
        if kind == "whole":
            return token
        if kind == "cut":
            return content[: places[0] % (len(content) + 1)]
        changed = bytearray(content)
        for place in places:
            at = place % max(len(changed), 1)
            if kind == "flip" and changed:
                changed[at] ^= 1 << bit
            elif kind == "edit":
                changed[at : at + removed] = token
        return bytes(changed)

    return damage


def _lines(content: bytes) -> list[Any]:
    return [json.loads(line) for line in content.splitlines()]


def _json_lines(tree: Any) -> bytes:
    lines = tree if isinstance(tree, list) else [tree]
    return "".join(json.dumps(line, default=str) + "\n" for line in lines).encode("utf-8", "surrogatepass")


def _yaml(tree: Any) -> bytes:
    return yaml.dump(tree, Dumper=yaml.SafeDumper, sort_keys=False).encode("utf-8", "surrogatepass")


def _tensors(tree: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def _arrays(tree: Any) -> bytes:
    file = io.BytesIO()
    tree = tree if isinstance(tree, dict) else {"clean": tree}
    with np.errstate(all="ignore"):
        np.savez(
            file,
            **{str(name).replace("/", "_").replace("file", "x"): np.asarray(value) for name, value in tree.items()},
        )
    return file.getvalue()


def _read_arrays(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content)) as file:
        return {name: file[name] for name in file.files}


def _cells(content: bytes) -> list[list[str]]:
    return [line.split(",") for line in content.decode().splitlines()]


def _csv(tree: Any) -> bytes:
    rows = tree if isinstance(tree, list) else [tree]
    lines = (",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


tensors = st.sampled_from(
    [
        torch.tensor(float("nan")),
        torch.zeros(0),
        torch.ones(3, 3),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(1, dtype=torch.bool),
        torch.full((4, 4), float("inf")),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(1, 1).to_sparse(),
    ]
)
arrays = st.sampled_from(
    [
        np.zeros(0, bool),
        np.ones((2, 2), bool),
        np.ones(30, bool),
        np.ones(31, bool),
        np.array("x"),
        np.array(np.nan),
        np.ones(30) * np.nan,
        np.array(-1.0),
        np.array([None], dtype=object),
        np.array(1j),
        np.zeros(30, "datetime64[s]"),
        np.array(np.inf),
        np.ones(30, "S3"),
    ]
)
FORMATS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes], st.SearchStrategy[Any]]] = {
    "json": (json.loads, lambda tree: _json_lines([tree]), junk),
    "jsonl": (_lines, _json_lines, junk),
    "yaml": (yaml.safe_load, _yaml, junk),
    "csv": (_cells, _csv, st.one_of(scalars, st.sampled_from([token.decode("utf-8", "replace") for token in TOKENS]))),
    "pt": (
        lambda content: torch.load(io.BytesIO(content), weights_only=True),
        _tensors,
        st.one_of(junk, tensors),
    ),
    "npz": (_read_arrays, _arrays, arrays),
}
"""For each format: how it is read into a tree, how a tree is written, and what values are replaced by."""


@st.composite
def damages(draw: st.DrawFn, kind: str) -> Damage:
    """Return a function that damages the content of a file of a format: one of `FORMATS`, or any other."""
    if kind not in FORMATS or draw(st.integers(0, 2)) == 0:
        return draw(of_bytes())
    read, write, values = FORMATS[kind]
    change = draw(of_values(values))
    return lambda content: write(change(read(content)))
