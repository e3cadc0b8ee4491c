"""JSON schema of a search space's YAML file, by which editors complete keys and names and mark mistakes.

It is made from the models that read the file. What spans several keys, and what depends on other files, is left to
the loader; docs/search_space.md lists where the two differ.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import KINDS
from tune_cure.search.space.name_meanings import FAMILIES, describe_name
from tune_cure.search.space.objectives import METRICS
from tune_cure.training.config import config_class
from tune_cure.training.delta import DELTA, delta_names
from tune_cure.training.presets import DEFAULT, METHOD
from tune_cure.utils.registry import Registry
from tune_cure.utils.schema import MAX_NUMBER, OneOf

DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest that common editors read whole
NUMERIC = ("number", "integer")
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")

_DIGITS = r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_IDENTIFIER = r"[A-Za-z_]\w*"
_MODULE = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"
_LINK = re.compile(r" \(\[[^]]*\]\([^)]*\)\)")  # of the reference, which an editor has not at hand

Node = dict[str, Any]


def build_json_schema() -> Node:
    """Return the schema of a search space, with the hyperparameters and names of all parts that this process knows."""
    values = _value_schemas()
    space, shared = _space(values)
    sections = {key: _section(key, field) for key, field in SearchSpec.model_fields.items() if _model_of(field)}
    name = SearchSpec.model_json_schema()["properties"]["name"]
    sections["model"] = {"anyOf": [_model_names(), sections["model"]], "description": "Which network, or its name."}
    described = {key: field.description for key, field in SearchSpec.model_fields.items()}
    return {
        "$schema": DRAFT,
        "title": "Search space of tune-cure",
        **_mapping(
            {
                "name": _without_title(name),
                **sections,
                "training": _mapping(_references(values)) | {"description": described["training"]},
                "space": _mapping(space) | {"minProperties": 1, "description": described["space"]},
                "start_from": {
                    "type": "array",
                    "items": {"anyOf": [{"type": "string"}, _mapping(_references(values) | {METHOD: _DEFAULT_METHOD})]},
                    "description": described["start_from"],
                },
                "parts": {
                    "anyOf": [_PART, {"type": "array", "items": _PART}],
                    "description": described["parts"],
                },
            }
        ),
        "required": [key for key, field in SearchSpec.model_fields.items() if field.is_required()],
        "definitions": {**values, **shared, **_TEXTS},
    }


_PART = {"type": "string", "pattern": rf"(\.py$|^{_MODULE}$)"}
_DEFAULT_METHOD = {"const": DEFAULT, "description": "What training.method stands for."}


def _mapping(properties: Mapping[str, Node]) -> Node:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _section(section: str, field: FieldInfo) -> Node:
    """Return the schema of a section that is a model of its own."""
    model = _model_of(field)
    assert model is not None
    properties = _properties(model, section)
    required = [inner.alias or name for name, inner in model.model_fields.items() if inner.is_required()]
    about = (model.__doc__ or "").strip().partition("\n")[0]
    return _mapping(properties) | {"description": about} | ({"required": required} if required else {})


def _model_names() -> Node:
    model = _model_of(SearchSpec.model_fields["model"])
    assert model is not None
    return _properties(model, "model")["name"]


def _value_schemas() -> dict[str, Node]:
    """Return the schemas of the values of all hyperparameters, of `method` and of `delta`, by YAML names."""
    delta = [{"const": name} for name in delta_names()]
    about = "The older key for regularizer and direction in one word."
    return {**_properties(config_class(), "training"), DELTA: {"anyOf": delta, "description": about}}


def _references(values: Mapping[str, Node]) -> dict[str, Node]:
    return {key: _reference(key) for key in values}


def _reference(key: str) -> Node:
    return {"$ref": f"#/definitions/{key}"}


def _properties(model: type[BaseModel], section: str) -> dict[str, Node]:
    """Return the schemas of a model's keys."""
    plain = model.model_json_schema()["properties"]
    found = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        node = _without_title(plain[key])
        if choices := _choices_of(field):
            node = _names(f"{section}.{key}", choices) | {"default": node.get("default")}
            if field.is_required():
                del node["default"]
        else:
            node = _SPECIAL.get(f"{section}.{key}") or _with_texts(node)
            node |= {"default": plain[key]["default"]} if "default" in plain[key] else {}
        found[key] = node | {"description": _LINK.sub("", field.description or "")}
    return found


def _without_title(node: Node) -> Node:
    return {key: value for key, value in node.items() if key != "title"}


def _choices_of(field: FieldInfo) -> OneOf | None:
    checks = (getattr(metadata, "func", None) for metadata in field.metadata)
    return next((check for check in checks if isinstance(check, OneOf)), None)


def _names(key: str, names: OneOf) -> Node:
    """Return the schema of a name, with what each means."""
    spellings = [{"const": name, "description": describe_name(key, names.choices, name)} for name in names.choices]
    if names.any_case:
        any_case = "|".join("".join(_any_case(character) for character in name) for name in names.choices)
        spellings.append({"type": "string", "pattern": f"^({any_case})$"})
    if isinstance(names.choices, Registry):
        own = {"type": "string", "pattern": f"^{_MODULE}:{_IDENTIFIER}$", "description": "A part of your own."}
        families = [
            {"type": "string", "pattern": f"^{family}:.", "description": FAMILIES[family]}
            for family in names.choices.families
        ]
        spellings += [*families, own]
    return {"anyOf": spellings}


def _any_case(character: str) -> str:
    return f"[{character.lower()}{character.upper()}]" if character.isalpha() else re.escape(character)


def _with_texts(node: Node) -> Node:
    """Return the schema of a value with the texts that may stand for its numbers, as `8/255` does."""
    if "anyOf" in node:
        return node | {"anyOf": [inner for option in node["anyOf"] for inner in _options(option)]}
    options = _options(node)
    if len(options) == 1:
        return node
    return {"anyOf": options} | {key: node[key] for key in ("default", "description") if key in node}


def _options(node: Node) -> list[Node]:
    if node.get("type") != "number":
        return [node]
    bounds = {name: node[name] for name in BOUNDS if name in node}
    # pydantic leaves the bound under this name where null is allowed, too.
    return _number(**bounds, **({"exclusiveMinimum": node["gt"]} if "gt" in node else {}))


def _number(**bounds: float) -> list[Node]:
    """Return the schemas of a number and of the text for one, which has no minus sign where no number below 0 fits."""
    least = max(bounds.get("minimum", -MAX_NUMBER), bounds.get("exclusiveMinimum", -MAX_NUMBER))
    limits = {"minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}
    if "exclusiveMinimum" in bounds:
        del limits["minimum"]
    if "exclusiveMaximum" in bounds:
        del limits["maximum"]
    number = {"type": "number", **limits, **bounds}
    return [number, {"$ref": "#/definitions/number_text" if least >= 0 else "#/definitions/signed_number_text"}]


def _number_text(sign: str) -> Node:
    pattern = rf"^\s*{sign}{_DIGITS}\s*(/\s*{sign}{_DIGITS}\s*)?$"
    return {"type": "string", "pattern": pattern, "description": "A fraction such as 8/255, or a number such as 1e-4."}


def _space(values: Mapping[str, Node]) -> tuple[dict[str, Node], dict[str, Node]]:
    """Return the schemas of the distributions of all hyperparameters, and definitions that they share."""
    found: dict[str, Node] = {}
    shared: dict[str, Node] = {}
    for key, value in values.items():
        if key == METHOD:
            found[key] = {"const": DEFAULT, "description": "The ranges of training.method's own hyperparameters."}
            continue
        number: Node = next((option for option in value.get("anyOf", [value]) if option.get("type") in NUMERIC), {})
        bounds = {name: number[name] for name in BOUNDS if abs(number.get(name, MAX_NUMBER)) < MAX_NUMBER}
        kind = number.get("type", "choice")
        name = "_".join(["distribution", kind, *(f"{bound}_{limit:g}" for bound, limit in bounds.items())])
        shared.setdefault(name, _distribution(kind, bounds))
        chosen = {"properties": {"choice": {"items": _reference(key)}}}
        found[key] = {"allOf": [_reference(name), chosen], "description": value["description"]}
    return found, shared


def _distribution(kind: str, bounds: Mapping[str, float]) -> Node:
    """Return the schema of a distribution, but for the values of a choice.

    Args:
        kind: What is drawn: `number`, `integer`, or `choice` for what can only be chosen.
        bounds: Of these numbers.
    """
    positive = {name: bound for name, bound in bounds.items() if name != "minimum"} | {"exclusiveMinimum": 0}
    pairs: dict[str, list[Node]] = {"int": [{"type": "integer", **bounds}]}
    pairs |= {"uniform": _number(**bounds), "loguniform": _number(**positive)}
    shapes: dict[str, Node] = {
        name: {"type": "array", "items": {"anyOf": ends}, "minItems": 2, "maxItems": 2} for name, ends in pairs.items()
    }
    shapes["choice"] = {"type": "array", "minItems": 1, "uniqueItems": True}
    text = _number(exclusiveMinimum=0)[1]
    steps = {
        "uniform": [*_number(exclusiveMinimum=0), _NULL],
        "int": [{"type": "number", "multipleOf": 1, "exclusiveMinimum": 0}, text, _NULL],
    }
    options = [
        {
            "required": [name],
            "properties": {
                name: shapes[name],
                "step": {"anyOf": steps.get(name, [_NULL])},
                **{other: _NULL for other in KINDS if other != name},
            },
        }
        for name in {"number": KINDS, "integer": ("int", "choice")}.get(kind, ("choice",))
    ]
    return {"type": "object", "propertyNames": {"enum": [*KINDS, "step"]}, "anyOf": options}


_NULL = {"type": "null"}
_TEXTS = {"number_text": _number_text(r"\+?"), "signed_number_text": _number_text("[+-]?")}
_NUMBER_TEXT = rf"\+?{_DIGITS}(/\+?{_DIGITS})?"
_METRIC = {"enum": list(METRICS)}
_SPECIAL: dict[str, Node] = {
    "search.metric": {"anyOf": [_METRIC, {"type": "array", "items": _METRIC, "minItems": 1, "uniqueItems": True}]},
    "search.constraints": {
        "type": "array",
        "items": {"type": "string", "pattern": rf"^\s*({'|'.join(METRICS)})\s*(>=|<=)\s*{_NUMBER_TEXT}\s*$"},
    },
    "resources.gpus_per_trial": {
        "anyOf": [
            {"const": "auto"},
            {"type": "integer", "minimum": 0},
            {"type": "number", "minimum": 1e-4, "maximum": 1},
            {"type": "string", "pattern": rf"^\s*{_NUMBER_TEXT}\s*$"},
        ]
    },
    "resources.concurrent": {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]},
}
