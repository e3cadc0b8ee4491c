"""Writes the tables of docs/search_space.md from the models that read the YAML: `python -m tools.reference`."""

import functools
import inspect
import itertools
import operator
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tools import marked_page
from tune_cure.attacks.registry import ATTACKS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.distributions import Distribution
from tune_cure.search.space.name_meanings import AS_OF, FAMILIES, MEANINGS, describe_name
from tune_cure.search.space.objectives import METRICS
from tune_cure.training.config import HYPERPARAMETERS, TrainingConfig, deciding_keys
from tune_cure.training.delta import DELTA
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.utils.hyperparameters import declared_hyperparameters
from tune_cure.utils.registry import Registry
from tune_cure.utils.schema import OneOf, choices

DECIDING_KEYS = [key for key in deciding_keys() if key != DELTA]
DECIDING_ALONE = ("optimizer", "weight_decay", "lr_schedule", "averaging", "awp_gamma")
"""Deciding keys of which each decides about keys that no other decides about."""
DECLARED = {
    key: declared
    for part in (*ATTACKS.declarations, *REGULARIZERS.declarations)
    for key, declared in declared_hyperparameters(part).items()
}
PAGE = marked_page.DOCS / "search_space.md"

TAKES = {  # where the type alone does not say it
    "search.metric": f"one of {', '.join(f'`{name}`' for name in METRICS)}, or a list of several",
    "search.constraints": "list of `METRIC >= NUMBER` or `METRIC <= NUMBER`",
    "resources.gpus_per_trial": "whole number ≥ 0, fraction from 0.0001 to 1, or `auto` (GPUs)",
    "resources.concurrent": "whole number ≥ 1, or `auto` (trials)",
    "start_from": "list of mappings of the keys of `space` to values, or of file names",
    "parts": "file or module, or a list of these",
    "training": "mapping of [these keys](#training)",
    "space": "mapping of keys of [training](#training) to [distributions](#distributions)",
    "model": "mapping of [these keys](#model), or the network's name alone",
    "name": "letters, digits, dots, dashes and underscores; 100 at most",
    "data.root": "folder; `~` is your home",
    "distribution.choice": "list of values",
}
UNITS = {  # of every number
    "images": "data.validation data.train_examples training.batch_size evaluation.examples rescore.examples",
    "pixels": "data.image_size training.cutout",
    "channels": "model.width",
    "epochs": "training.epochs asha.grace_period search.budget_epochs",
    "seconds": "search.budget_seconds",
    "steps": "training.penalty_every evaluation.steps asha.steps rescore.steps",
    "starts": "evaluation.restarts rescore.restarts",
    "trials": "search.trials search.patience rescore.top",
    "times": "search.retries",
    "brackets": "asha.brackets",
    "CPU cores": "resources.cpus_per_trial",
    "a seed": "data.split_seed search.seed",
    "pixel units": "training.epsilon evaluation.epsilon",
    "a share": "training.momentum training.label_smoothing training.penalty_fraction "
    "training.ema_decay training.swa_start training.awp_gamma training.awp_start asha.control",
    "a weight": "training.weight_decay training.adversarial_weight training.clean_weight training.trades_weight "
    "training.boosted_weight training.mart_weight training.hat_weight training.lambda",
    "a learning rate": "training.lr_max training.lr_min",
    "a length of the gradient": "training.gradient_clip",
    "a factor": "asha.reduction_factor",
    "as the hyperparameter": "distribution.step",
}


def written(page: str) -> str:
    """Return `page` with what stands between the marks written anew."""
    return marked_page.rewrite(page, "reference", tables())


def tables() -> str:
    """The generated part."""
    parts = ["## Sections", _table("", SearchSpec)]
    for key, field in SearchSpec.model_fields.items():
        section = TrainingConfig if key == "training" else field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts += [f"## {key}", _about(section), _table(f"{key}.", section)]
            if key == "training":
                parts += ["### Which keys have no effect, and when", *_idle()]
            parts += list(_names(f"{key}.", section))
        elif key == "space":
            parts += ["## Distributions", _about(Distribution), _table("distribution.", Distribution)]
    return "\n\n".join(parts) + "\n"


def _about(model: type[BaseModel]) -> str:
    return " ".join(str(inspect.getdoc(model)).split())


def _table(prefix: str, model: type[BaseModel]) -> str:
    rows = ["| key | default | takes | what it is |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        assert field.description or prefix == "", f"{prefix}{key} has no description"
        section = field.annotation if prefix == "" and _is_section(field) else None
        described = field.description or (_about(section) if section else "")
        takes = TAKES.get(prefix + key) or (
            f"mapping of [these keys](#{key})" if section else _takes(prefix + key, field)
        )
        rows.append(f"| `{key}` | {_default(field, section is not None)} | {takes} | {described} |")
    return "\n".join(rows)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _default(field: FieldInfo, is_section: bool) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is None or is_section or default in ([], {}):
        return "–"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        fraction = Fraction(default).limit_denominator(255)
        return f"{fraction}" if fraction.denominator == 255 else f"{default:g}"
    return f"`{default}`" if isinstance(default, str) else f"{default}"


def _takes(key: str, field: FieldInfo) -> str:
    if choices(field):
        told = AS_OF.get(key, key)
        return f"one of [these names](#names-of-{told.replace('.', '')})"
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not NoneType]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(f"`{kind}`" for kind in kinds)
    kind = kinds[0]
    nested = [inner for inner in get_args(kind) if inner is not NoneType]
    if get_origin(kind) is list or (nested and get_origin(nested[0]) is list):
        whole = "int" in str(kind)
        return f"two {'whole ' * whole}numbers, [low, high]"
    words = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    while get_args(kind):
        kind = get_args(kind)[0]
    return f"{words[kind]}{_bounds(field)}" + (_unit(key) if kind in (int, float) else "")


def _unit(key: str) -> str:
    """Return the unit of a number in parentheses; empty for one whose part says it in the description."""
    declared = DECLARED.get(key.removeprefix("training."))
    if key.startswith("training.") and declared is not None:
        return f" ({declared.unit})" if declared.unit else ""
    units = [unit for unit, keys in UNITS.items() if key in keys.split()]
    assert len(units) == 1, f"{key}: what is its unit?"
    return f" ({units[0]})"


def _bounds(field: FieldInfo) -> str:
    signs = {at.Ge: ("≥", "ge"), at.Gt: (">", "gt"), at.Le: ("≤", "le"), at.Lt: ("<", "lt")}
    found = []
    for metadata in field.metadata:
        if type(metadata) in signs:
            sign, name = signs[type(metadata)]
            found.append(f" {sign} {getattr(metadata, name)}")
    return ",".join(found)


def _names(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """A table of the names that each field may have."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if not choices(field) or key in AS_OF:
            continue
        (registry,) = (of.func.choices for of in field.metadata if isinstance(getattr(of, "func", None), OneOf))
        meanings = MEANINGS.get(key, {})
        rows = [f"### Names of {key}", "\n".join(["| name | what it is |", "|---|---|", *_rows(key, registry)])]
        assert set(meanings) <= set(registry), f"{key}: {set(meanings) - set(registry)} are no names of it"
        yield from rows


def _rows(key: str, registry: Mapping[str, Any] | tuple[str, ...]) -> Iterator[str]:
    for name in registry:
        meaning = describe_name(key, registry, name)
        assert meaning, f"{key}: nothing says what {name} is"
        if key == "data.dataset":
            meaning += f". Defaults of `tune-cure train`: {registry[name].describe_defaults()}"
        yield f"| `{name}` | {meaning.replace('|', chr(92) + '|').rstrip('.')} |"
    for family in registry.families if isinstance(registry, Registry) else ():
        yield f"| `{family}:NAME` | {FAMILIES[family]} |"


@functools.cache
def _idle() -> tuple[str, str]:
    """Return the table of hyperparameters without effect beside some values of others."""
    together = [key for key in DECIDING_KEYS if key not in DECIDING_ALONE]
    conditions: dict[str, str] = {}
    for keys in ([key] for key in DECIDING_ALONE):
        conditions |= _idle_beside(keys)
    conditions |= _idle_beside(together)
    rows = [f"| `{key}` | {conditions[key]} |" for key in HYPERPARAMETERS if key in conditions]
    sentence = "A search omits a key from trials in which it has no effect; the tables show a dash."
    return sentence, "\n".join(["| key | has no effect where |", "|---|---|", *rows])


def _idle_beside(deciding: list[str]) -> dict[str, str]:
    """Return where hyperparameters have no effect, for those about which `deciding` decide, from all combinations."""
    fields = TrainingConfig.model_fields
    values = {key: choices(fields[HYPERPARAMETERS[key]]) or [0, 1] for key in deciding}
    cases = list(itertools.product(*values.values()))
    names = [HYPERPARAMETERS[key] for key in values]
    base = TrainingConfig()  # every value is one that its key may have: the copies need no check
    idle = [
        inactive_hyperparameters(base.model_copy(update=dict(zip(names, case, strict=True)))).keys() for case in cases
    ]
    having = {
        (key, value): _mask(case[index] == value for case in cases)
        for index, (key, of_key) in enumerate(values.items())
        for value in of_key
    }
    masks = {key: _mask(key in keys for keys in idle) for key in HYPERPARAMETERS}
    always = (1 << len(cases)) - 1  # the mask of a key about which others decide
    return {key: _conditions(mask, having) for key, mask in masks.items() if mask not in (0, always)}


def _mask(flags: Iterable[bool]) -> int:
    """Return a set of cases as an integer with a bit for each: operations on it are quick."""
    return int("".join("01"[flag] for flag in flags), 2)


def _conditions(idle: int, having: Mapping[tuple[str, Any], int]) -> str:
    """Return the values, pairs or triples of values that exactly the cases in `idle` have.

    Args:
        idle: The cases, as a mask.
        having: The cases that have a value, as masks, by key and value.
    """
    alone = [pair for pair, cases in having.items() if not cases & ~idle]
    covered = functools.reduce(operator.or_, (having[pair] for pair in alone), 0)
    said = [f"`{key}` is {_any_of(pairs)}" for key, pairs in _by_key(alone)]
    both: dict[tuple[str, Any], list[tuple[str, Any]]] = defaultdict(list)
    for one, other in itertools.permutations(having, 2):
        cases = having[one] & having[other]
        if cases and not cases & ~idle and cases & ~covered:
            both[one].append(other)
    for one, others in sorted(both.items(), key=lambda item: -len(item[1])):  # the one that goes with most comes first
        for key, pairs in _by_key(others):
            cases = having[one] & functools.reduce(operator.or_, (having[pair] for pair in pairs))
            if cases & ~covered:
                covered |= cases
                said.append(f"`{one[0]}` is {one[1]} and `{key}` is {_any_of(pairs)}")
    three: dict[tuple[tuple[str, Any], ...], list[tuple[str, Any]]] = defaultdict(list)
    for *first, last in itertools.combinations(sorted(having, key=lambda pair: DECIDING_KEYS.index(pair[0])), 3):
        cases = having[first[0]] & having[first[1]] & having[last]
        if cases and not cases & ~idle and cases & ~covered:
            covered |= cases
            three[tuple(first)].append(last)
    for first, others in three.items():
        both_words = " and ".join(f"`{key}` is {name}" for key, name in first)
        said += [f"{both_words} and `{key}` is {_any_of(pairs)}" for key, pairs in _by_key(others)]
    assert covered == idle, "more than three values decide together"
    return "; or ".join(said)


def _by_key(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    for key, of in itertools.groupby(
        sorted(pairs, key=lambda pair: DECIDING_KEYS.index(pair[0])), lambda pair: pair[0]
    ):
        yield key, list(of)


def _any_of(pairs: list[tuple[str, Any]]) -> str:
    *before, last = (str(name) for _, name in pairs)
    return f"{', '.join(before)} or {last}" if before else last


if __name__ == "__main__":
    sys.exit(marked_page.write_or_check(PAGE, written, __doc__))
