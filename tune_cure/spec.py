"""The YAML of a search: read, checked, resolved, written back. Every error is one line that says where and what.

The sections' models stand beside the code that uses them (`DataSpec`, `ModelConfig`, `TrainingConfig`,
`EvaluationConfig`); this file adds the search's own and checks what spans sections.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, PlainValidator, StrictInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tune_cure.config import TOGETHER, ModelConfig, TrainingConfig, contradiction
from tune_cure.data import DataSpec
from tune_cure.evaluation import EvaluationConfig
from tune_cure.samplers import SAMPLERS
from tune_cure.schema import Number, Schema, did_you_mean, one_of

METRICS = ("pgd_accuracy_best", "pgd_accuracy", "fgsm_accuracy", "clean_accuracy")
HYPERPARAMETERS = {field.alias or name: name for name, field in TrainingConfig.model_fields.items()}  # YAML -> code


class SpecError(ValueError):
    """A search space that cannot be run. Its text is one line: file, key's path, what was found, what is allowed."""


class Distribution(Schema):
    """Where one hyperparameter is drawn from: exactly one of uniform, loguniform, int and choice."""

    uniform: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="[low, high], both included; with `step`, low + a multiple of it."
    )
    loguniform: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="[low, high] with 0 < low; the logarithm is uniform."
    )
    int_: Annotated[list[StrictInt], Field(min_length=2, max_length=2)] | None = Field(
        default=None, alias="int", description="[low, high], whole numbers, both included; with `step` as above."
    )
    choice: Annotated[list[Any], Field(min_length=1)] | None = Field(default=None, description="One of these values.")
    step: Number | None = Field(default=None, gt=0, description="Grid width, for uniform and int.")

    @model_validator(mode="after")
    def _is_one_valid_distribution(self) -> "Distribution":
        kinds = [name for name in ("uniform", "loguniform", "int", "choice") if self._values(name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            raise ValueError(f"exactly one of uniform, loguniform, int, choice is needed, but found {found}")
        if self.kind == "choice":
            if len({repr(value) for value in self.values}) < len(self.values):
                raise ValueError(f"choice: a value is listed twice in {self.values}")
        else:
            low, high = self.values
            if not low < high:
                raise ValueError(f"{self.kind}: low < high must hold, but got [{low:g}, {high:g}]")
            if self.kind == "loguniform" and low <= 0:
                raise ValueError(f"loguniform: 0 < low must hold, but got [{low:g}, {high:g}]")
            if self.step is not None and self.step > high - low:
                raise ValueError(f"step: must be at most high - low = {high - low:g}, but got {self.step:g}")
        if self.step is not None and self.kind in ("loguniform", "choice"):
            raise ValueError(f"step: goes with uniform and int, not with {self.kind}")
        if self.step is not None and self.kind == "int" and self.step != int(self.step):
            raise ValueError(f"step: must be a whole number with int, but got {self.step:g}")
        return self

    def _values(self, kind: str) -> list[Any] | None:
        values: list[Any] | None = getattr(self, "int_" if kind == "int" else kind)
        return values

    @property
    def kind(self) -> str:
        """uniform, loguniform, int or choice."""
        return next(kind for kind in ("uniform", "loguniform", "int", "choice") if self._values(kind) is not None)

    @property
    def values(self) -> list[Any]:
        """[low, high], or the choices."""
        values = self._values(self.kind)
        assert values is not None
        return values

    def contains(self, value: Any) -> bool:
        """Whether the sampler could propose `value` (the grid of `step` aside)."""
        return value in self.values if self.kind == "choice" else bool(self.values[0] <= value <= self.values[1])

    def __str__(self) -> str:
        values = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in self.values)
        return f"{self.kind} [{values}]" + (f" step {self.step:g}" if self.step is not None else "")


class SearchConfig(Schema):
    """What is proposed, how often, and what counts."""

    trials: int = Field(default=64, ge=1, description="Trials in all, those of start_from included.")
    sampler: Annotated[str, one_of(SAMPLERS)] = Field(default="tpe", description="Who proposes hyperparameters.")
    seed: int = Field(default=0, ge=0, description="Of the proposals and of every trial's training.")
    metric: Annotated[str, one_of(METRICS)] = Field(default="pgd_accuracy_best", description="What is optimised.")
    mode: Literal["max", "min"] = Field(default="max", description="Whether more of it is better.")


class AshaConfig(Schema):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934): which trials are stopped early, and when."""

    grace_period: int = Field(default=1, ge=1, description="Epochs that every trial gets: the first rung.")
    reduction_factor: Number = Field(default=3, gt=1, description="Of those at a rung, one in so many goes on.")
    brackets: int = Field(default=1, ge=1, description="Bracket k starts at rung k; trials are shared out at random.")


def _count_or_auto(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError(f"a whole number of at least 1, or auto, is needed, but found {_describe(value)}")
    return value


class ResourcesConfig(Schema):
    """What one trial takes. Without a GPU, trials run on CPUs alone."""

    gpus_per_trial: Number = Field(default=0, ge=0, description="May be a fraction: 0.5 puts two trials on a GPU.")
    cpus_per_trial: int = Field(default=1, ge=1, description="CPU cores, and so threads, of a trial.")
    concurrent: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = Field(
        default="auto", description="Trials at a time; auto: as many as the devices hold."
    )


class SearchSpec(Schema):
    """A whole search, as loaded from its YAML."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the folder results/NAME.")
    data: DataSpec
    model: ModelConfig
    training: dict[str, Any] = Field(default_factory=dict, description="The hyperparameters that are fixed.")
    space: dict[str, Distribution] = Field(min_length=1, description="Those that are searched.")
    start_from: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Run first, to their end: values for every key of space, or a best_config.yaml.",
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    asha: AshaConfig = AshaConfig()
    resources: ResourcesConfig = ResourcesConfig()

    def training_config(self, hyperparameters: dict[str, Any]) -> TrainingConfig:
        """The configuration of a trial with these values of the searched hyperparameters."""
        return TrainingConfig.model_validate({**self.training, **hyperparameters})

    @property
    def max_epochs(self) -> int:
        """The most epochs that a trial can train."""
        searched = self.space.get("epochs")
        return int(max(searched.values)) if searched else self.training_config({}).epochs

    @property
    def rungs(self) -> list[int]:
        """The epochs after which ASHA may stop a trial (of the first bracket)."""
        rungs, rung = [], float(self.asha.grace_period)
        while rung < self.max_epochs:
            rungs.append(math.ceil(rung))
            rung *= self.asha.reduction_factor
        return rungs

    def to_yaml(self) -> str:
        """The resolved search: every default written out, loadable again as the same search."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"space", "training"})
        fixed = self.training_config({}).model_dump(mode="json", by_alias=True)
        content["training"] = {key: value for key, value in fixed.items() if key not in self.space}
        content["space"] = {
            key: distribution.model_dump(mode="json", by_alias=True, exclude_none=True)
            for key, distribution in self.space.items()
        }
        order = list(SearchSpec.model_fields)
        return yaml.safe_dump(dict(sorted(content.items(), key=lambda item: order.index(item[0]))), sort_keys=False)


def load(path: str | Path, overrides: Sequence[str] = ()) -> SearchSpec:
    """Reads a search space from a YAML file.

    Args:
        path: The file.
        overrides: `training.epochs=5` and the like: a key's path, an equals sign, a YAML value.

    Raises:
        SpecError: The file cannot be read, or what it asks for cannot be run.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        if not isinstance(content, dict):
            raise _ProblemError("", f"a mapping of keys is needed, but found {_describe(content)}")
        if isinstance(content.get("model"), str):
            content["model"] = {"name": content["model"]}
        for override in overrides:
            _apply(content, override)
        _read_starts(content)
        return _check(content)
    except _ProblemError as problem:
        where = f"{problem.path}: " if problem.path else ""
        raise SpecError(f"{path}: {where}{problem.message}") from problem


class _Loader(yaml.SafeLoader):
    """Safe YAML, but `off`, `no` and the like stay strings (`amp: off`), and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if first in "tTfF" or tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _ProblemError(Exception):
    """What is wrong, and at which key."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path, self.message = path, message


def _apply(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise _ProblemError("", f"--set {override}: KEY.PATH=VALUE is needed, for example training.epochs=5")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _ProblemError("", f"--set {override}: the value is not valid YAML") from error
    section = content
    for depth, key in enumerate(keys[:-1]):
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            where = ".".join(keys[: depth + 1])
            raise _ProblemError(where, f"--set {override}: is {_describe(section)}, not a section")
    section[keys[-1]] = {"name": value} if keys == ["model"] and isinstance(value, str) else value


def _read_starts(content: dict[str, Any]) -> None:
    """Puts the searched hyperparameters of a best_config.yaml in the place of its file name under start_from."""
    starts, space = content.get("start_from"), content.get("space")
    if not isinstance(starts, list) or not isinstance(space, dict):
        return  # the models say what is wrong with these
    for index, start in enumerate(starts):
        if isinstance(start, str):
            where = f"start_from[{index}]"
            try:
                best = yaml.load(Path(start).read_text(encoding="utf-8"), Loader=_Loader)
            except (OSError, yaml.YAMLError) as error:
                raise _ProblemError(where, f"{start}: cannot be read as YAML") from error
            if not isinstance(best, dict):
                raise _ProblemError(where, f"{start}: a mapping of keys is needed, but found {_describe(best)}")
            starts[index] = {key: value for key, value in best.items() if key in space}


def _check(content: dict[str, Any]) -> SearchSpec:
    try:
        spec = SearchSpec.model_validate(content)
    except ValidationError as error:
        raise _first_problem(error, SearchSpec) from error
    training = {key: _field(key, value, f"training.{key}") for key, value in spec.training.items()}
    space = {key: _resolve(key, distribution) for key, distribution in spec.space.items()}
    for key in space:
        if key in training:
            raise _ProblemError(f"space.{key}", "is also fixed under training; keep one of the two")
    spec = spec.model_copy(update={"training": training, "space": space})
    for values in itertools.product(*(_values(spec, key) for key in TOGETHER)):
        if problem := contradiction(spec.training_config(dict(zip(TOGETHER, values, strict=True)))):
            raise _ProblemError(f"{'space' if problem[0] in space else 'training'}.{problem[0]}", problem[1])
    if spec.asha.grace_period > spec.max_epochs:
        limit = f"must be at most training.epochs ({spec.max_epochs})"
        raise _ProblemError("asha.grace_period", f"{limit}, but got {spec.asha.grace_period}")
    if len(spec.start_from) > spec.search.trials:
        limit = f"must be at least the number of start_from ({len(spec.start_from)})"
        raise _ProblemError("search.trials", f"{limit}, but got {spec.search.trials}")
    starts = [_start(space, start, f"start_from[{index}]") for index, start in enumerate(spec.start_from)]
    return spec.model_copy(update={"start_from": starts})


def _field(key: str, value: Any, path: str) -> Any:
    """`value` of hyperparameter `key` as TrainingConfig understands it; what is wrong with it is reported at `path`."""
    if key not in HYPERPARAMETERS:
        raise _ProblemError(path, _unknown(key, HYPERPARAMETERS))
    try:
        return getattr(TrainingConfig.model_validate({key: value}), HYPERPARAMETERS[key])
    except ValidationError as error:
        raise _ProblemError(path, _first_problem(error, TrainingConfig).message) from error


def _resolve(key: str, distribution: Distribution) -> Distribution:
    """`distribution` with both ends, or all choices, accepted and typed by TrainingConfig."""
    path = f"space.{key}"
    kind = "int_" if distribution.kind == "int" else distribution.kind
    if key not in HYPERPARAMETERS:
        raise _ProblemError(path, _unknown(key, HYPERPARAMETERS))
    takes = TrainingConfig.model_fields[HYPERPARAMETERS[key]].annotation
    if takes is str and kind != "choice":
        raise _ProblemError(path, f"takes names: use choice, not {distribution.kind}")
    if takes is int and kind in ("uniform", "loguniform"):
        raise _ProblemError(path, f"takes whole numbers: use int or choice, not {kind}")
    values = [
        _field(key, value, f"{path}.{distribution.kind}[{index}]") for index, value in enumerate(distribution.values)
    ]
    return distribution.model_copy(update={kind: [int(value) for value in values] if kind == "int_" else values})


def _values(spec: SearchSpec, key: str) -> list[Any]:
    """The ends or choices of a searched hyperparameter; the one value of a fixed one."""
    if key in spec.space:
        return spec.space[key].values
    return [getattr(spec.training_config({}), HYPERPARAMETERS[key])]


def _start(space: dict[str, Distribution], start: dict[str, Any], path: str) -> dict[str, Any]:
    for key in start:
        if key not in space:
            raise _ProblemError(f"{path}.{key}", _unknown(key, space))
    missing = [key for key in space if key not in start]
    if missing:
        raise _ProblemError(path, f"gives no value for {', '.join(missing)}; every key of space needs one")
    values = {key: _field(key, value, f"{path}.{key}") for key, value in start.items()}
    for key, value in values.items():
        if not space[key].contains(value):
            raise _ProblemError(f"{path}.{key}", f"{value!r} is outside of space.{key}, {space[key]}")
    return values


def _unknown(key: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    return f"unknown key; allowed are {', '.join(choices)}{did_you_mean(key, choices)}"


def _describe(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"


def _first_problem(error: ValidationError, model: type[BaseModel]) -> _ProblemError:
    """Pydantic's first error in our words: the path, then what was found and what is allowed."""
    first = error.errors()[0]
    location = list(first["loc"])
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return _ProblemError(path, _message(first, model, location))


def _message(error: ErrorDetails, model: type[BaseModel], location: Sequence[str | int]) -> str:
    context = error.get("ctx", {})
    found = f"but found {_describe(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            return _unknown(str(location[-1]), _keys(model, location[:-1]))
        case "missing":
            return "is needed, but not given"
        case "value_error":
            return str(context["error"])
        case "float_type" | "int_type" | "int_from_float":
            return f"a {'number' if error['type'] == 'float_type' else 'whole number'} is needed, {found}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"a mapping of keys is needed, {found}"
        case _:
            return f"{error['msg'][0].lower()}{error['msg'][1:]}, {found}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that the section at `location` may have."""
    section: type[BaseModel] = model
    for part in location:
        annotation = section.model_fields[str(part)].annotation if str(part) in section.model_fields else Distribution
        section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else Distribution
    return [field.alias or name for name, field in section.model_fields.items()]
