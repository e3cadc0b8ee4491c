"""The schema that editors read, against what the loader says: of every bundled file, and of 204 damaged ones."""

import copy
import json
import logging
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tune_cure.search.space.json_schema import build_json_schema
from tune_cure.search.space.loading import load_mapping
from tune_cure.utils.yaml_config import SpecError
from tune_cure.utils.yaml_parser import parse

BUNDLED = sorted(Path("search_spaces").glob("*.yaml"))
DAMAGED = int(os.environ.get("TUNE_CURE_FUZZ", "17"))  # of each file

# What only the loader finds, as docs/search_space.md lists it.
OF_SEVERAL_KEYS = (
    "low < high must hold|is outside of space|gives no value for|is also fixed under training|unknown key; allowed are|"
    "must be at most|must be at least the number of|says the same as|says regularizer and direction in one word|"
    "makes no difference|is needed: space.method|which it needs|goes with|give one of|needs a momentum"
)
WITH_A_POINT = "a whole number( of at least 1, or auto,)? is needed, but found -?[0-9.e+]+ \\(float\\)"
OF_TEXTS = "divides by zero|input should be (greater|less)"
OF_FILES = "there is no such file"
ONLY_THE_LOADER = re.compile(f"{OF_SEVERAL_KEYS}|{WITH_A_POINT}|{OF_TEXTS}|{OF_FILES}")
OWN_PART = re.compile(r"'\w+:\w+'")  # a module:name may have hyperparameters that the schema does not know

VALUES = [
    None, True, 0, 1, 2, 3, -1, 0.5, -0.5, 1.5, 2.0, 1e200, float("inf"), "8/255", "1e-4", "-1/2", "1/0", "x", "",
    "auto", "none", "sgd", "cure", "linf", "LINF", "module:part", "timm:resnet18", [], [1, 2], [2, 1], ["a"],
    [0.1, "1/2"], {}, {"a": 1}, {"uniform": [0, 1]}, {"loguniform": ["1e-3", 1]}, {"int": [1, 4]}, {"choice": [1, 2]},
    {"choice": ["adam", "sgd"]}, {"choice": []}, {"uniform": [0.1, 0.5], "step": 0.1}, {"int": [2, 8], "step": "2"},
]  # fmt: skip
KEYS = [
    "lamda", "epochs", "lambda", "h", "lr_max", "optimizer", "method", "delta", "regularizer", "batch_size", "norm",
    "steps", "trials", "choice", "uniform", "step", "parts", "name", "width", "metric", "constraints", "concurrent",
    "gpus_per_trial", "root", "attack", "step_size", "awp_gamma",
]  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = build_json_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a tree, with each of its keys or indices."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from places(value)


def damage(tree: Any, draw: random.Random) -> None:
    """Delete, replace, rename, add or copy a value somewhere in a tree, once or twice."""
    for _ in range(draw.choice([1, 1, 2])):
        container, key = draw.choice(list(places(tree)))
        kind = draw.choice(["delete", "replace", "replace", "replace", "rename", "add", "add", "copy"])
        if kind == "delete":
            del container[key]
        elif kind == "rename" and isinstance(container, dict):
            container[draw.choice(KEYS)] = container.pop(key)
        elif kind == "add" and isinstance(container, dict):
            container[draw.choice(KEYS)] = copy.deepcopy(draw.choice(VALUES))
        elif kind == "copy":
            source, other = draw.choice(list(places(tree)))
            container[key] = copy.deepcopy(source[other])
        else:
            container[key] = copy.deepcopy(draw.choice(VALUES))


def refusal(tree: Any) -> str:
    """What the loader says against a search space; empty if it takes it."""
    try:
        load_mapping(copy.deepcopy(tree), source="space.yaml")
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_bundled_file_is_valid_and_names_the_schema_in_its_first_line(path: Path, validator: Draft7Validator) -> None:
    text = path.read_text(encoding="utf-8")
    assert [error.message for error in validator.iter_errors(parse(text))] == []
    modeline = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert modeline is not None
    assert json.loads((path.parent / modeline[1]).read_text(encoding="utf-8")) == validator.schema, "make reference"


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_damaged_file_is_judged_as_the_loader_judges_it(path: Path, validator: Draft7Validator) -> None:
    refused = 0
    for number in range(DAMAGED):
        tree = parse(path.read_text(encoding="utf-8"))
        damage(tree, random.Random(f"{path.stem} {number}"))
        found, said = [error.message for error in validator.iter_errors(tree)], refusal(tree)
        refused += bool(found)
        if found:
            assert said or OWN_PART.search(str(tree)), f"the loader takes what the schema refuses: {found[0][:200]}"
        elif said:
            assert ONLY_THE_LOADER.search(said), f"the schema takes what the loader refuses: {said}"
    assert refused > DAMAGED / 2


@pytest.mark.parametrize(
    ("section", "key", "good", "bad"),
    [
        ("training", "epsilon", ["8/255", "1e-2", 0.03, " 8 / 255 "], ["-8/255", "8/", "eight", 0, True, "8/255/2"]),
        ("training", "momentum", [0, 0.9, "9/10"], [1, -0.1, None]),
        ("training", "step_size", [None, "8/255"], [0, "x"]),
        ("training", "norm", ["linf", "LInf", "my_norms:l1"], ["l1", 2]),
        ("training", "method", ["gat", "none"], ["gatt", None]),
        ("training", "delta", ["classic", "gradalign", "none"], ["cure", "clasic"]),
        ("training", "epochs", [1, 30], [0, "30", 1.5, 10**6]),
        ("training", "nesterov", [True], [1, "true"]),
        ("data", "dataset", ["digits", "medmnist:pathmnist", "my_data:shapes"], ["digit", "medmnist:", None]),
        ("search", "metric", ["pgd_accuracy", ["pgd_accuracy", "clean_accuracy"]], ["pgd", [], ["pgd_accuracy"] * 2]),
        ("search", "constraints", [["clean_accuracy >= 0.8", "pgd_accuracy<=1/2"]],
         [["clean_accuracy > 0.8"], ["clean_accuracy >= -0.8"], "x"]),
        ("resources", "gpus_per_trial", ["auto", 0, 0.5, 2, "1/2"], [1.5, -1, "all"]),
        ("resources", "concurrent", ["auto", 3], [0, "3"]),
        ("space", "lambda", [{"loguniform": ["1e-3", 1]}, {"choice": [0, "1/2"]}, {"uniform": [0, 1], "step": 0.1}],
         [{"loguniform": [0, 1]}, {"uniform": [0, 1], "int": [0, 1]}, {"uniform": [0]}, {"choice": [-1]}, [0, 1]]),
        ("space", "optimizer", [{"choice": ["sgd", "adam"]}], [{"uniform": [0, 1]}, {"choice": ["sdg"]}]),
        ("space", "batch_size", [{"int": [2, 8], "step": 2}], [{"uniform": [2, 8]}, {"int": [1, 8]}]),
        ("space", "step_size", [{"uniform": [0.01, 0.1]}], [{"uniform": [0, 0.1]}]),
    ],
)  # fmt: skip
def test_a_value_is_judged_as_the_loader_judges_it(
    section: str, key: str, good: list[Any], bad: list[Any], validator: Draft7Validator
) -> None:
    for value, is_good in [*((value, True) for value in good), *((value, False) for value in bad)]:
        tree: Any = {
            "name": "x",
            "data": {"dataset": "digits"},
            "model": "small_cnn",
            "space": {"lr_max": {"int": [1, 2]}},
        }
        tree.setdefault(section, {"epsilon": 0.1} if key == "norm" else {})[key] = value
        assert validator.is_valid(tree) == is_good, value
        said = refusal(tree)
        assert not said if is_good else said, value


def test_every_key_and_name_says_what_it_is(validator: Draft7Validator) -> None:
    sections = validator.schema["properties"]
    for section in ("data", "evaluation", "search", "asha", "rescore", "resources", "space"):
        assert all(node["description"] for node in sections[section]["properties"].values())
    regularizer = validator.schema["definitions"]["regularizer"]["anyOf"]
    assert next(name for name in regularizer if name.get("const") == "none")["description"] == "No penalty."
    for key in ("attack", "optimizer", "lr_schedule", "method", "amp"):
        assert all(name["description"] for name in validator.schema["definitions"][key]["anyOf"])
