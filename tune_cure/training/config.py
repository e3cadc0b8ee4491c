"""Configuration of one training run: the network, and the hyperparameters, every one of which may be searched.

`TrainingConfig` is composed of the configurations of attack, penalty, losses, optimizer, schedule, averaging and
precision. `parse_training` adds the hyperparameters that the user's own attacks and penalties declare.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from tune_cure.attacks.config import AttackConfig
from tune_cure.attacks.registry import ATTACKS
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.config import RegularizerConfig
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.training.delta import DELTA, check_delta, collapse_delta, expand_delta
from tune_cure.training.presets import METHOD, MethodConfig
from tune_cure.training.sections import (
    AveragingConfig,
    LossConfig,
    OptimizerConfig,
    PrecisionConfig,
    ScheduleConfig,
    WeightPerturbationConfig,
)
from tune_cure.utils.hyperparameters import declared_hyperparameters
from tune_cure.utils.registry import PartError, Registry, is_reference
from tune_cure.utils.schema import Schema, choices, one_of, with_hyperparameters
from tune_cure.utils.yaml_config import ProblemError, first_problem, problem_at, unknown


class ModelConfig(Schema):
    """Which network."""

    name: Annotated[str, one_of(MODELS)] = Field(description="The network.")
    width: int | None = Field(default=None, ge=1, description="Channels of its first stage; its own default if absent.")


def expand_model_name(content: dict[str, Any]) -> None:
    """Turn the short form `model: preact_resnet18` into the long one, in which keys can be set."""
    if isinstance(content.get("model"), str):
        content["model"] = {"name": content["model"]}


class TrainingConfig(  # pydantic takes the fields of the last base first
    PrecisionConfig,
    AveragingConfig,
    WeightPerturbationConfig,
    RegularizerConfig,
    LossConfig,
    AttackConfig,
    ScheduleConfig,
    OptimizerConfig,
    MethodConfig,
):
    """Hyperparameters of one training run. Every field but `method` may be searched."""

    # `method` changes nothing here: `presets.expand_method` has put its keys where they were not given.

    @model_validator(mode="before")
    @classmethod
    def _read_other_words(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("step_size") is not None and "alpha" in values:
            raise problem_at("step_size", "is alpha × epsilon in pixel units; give one of step_size and alpha")
        try:
            return expand_delta(values)
        except ProblemError as problem:
            raise problem_at(problem.path, problem.message) from problem

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what could not be read again: alpha beside step_size, and keys of parts that this run lacks."""
        content: dict[str, Any] = handler(self)
        if self.step_size is not None:
            content.pop("alpha", None)
        own = {*declared_keys([ATTACKS.declaration(self.attack), REGULARIZERS.declaration(self.regularizer)])}
        for key in type(self).model_fields.keys() - TrainingConfig.model_fields.keys() - own:
            content.pop(key, None)
        return content

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return parse_training, (self.model_dump(by_alias=True),)


class _PartlyReadConfig(TrainingConfig):
    """A configuration with parts that this process has not imported: their hyperparameters are taken as they are."""

    model_config = ConfigDict(extra="allow")


def config_class() -> type[TrainingConfig]:
    """Return TrainingConfig with the hyperparameters of all attacks and penalties that this process knows."""
    return _composed(TrainingConfig, tuple(ATTACKS.declarations), tuple(REGULARIZERS.declarations))


@cache
def _composed(base: type[TrainingConfig], attacks: tuple[Any, ...], penalties: tuple[Any, ...]) -> type[TrainingConfig]:
    parts = [part for part in (*attacks, *penalties) if part not in _BUILT_IN]
    if not any(declared_hyperparameters(part) for part in parts):
        return base
    composed = with_hyperparameters("TrainingConfig", base, parts, beside=_BUILT_IN)
    assert issubclass(composed, TrainingConfig)
    return composed


_BUILT_IN = (*ATTACKS.declarations, *REGULARIZERS.declarations)
_PARTS: dict[str, Registry[Any]] = {"attack": ATTACKS, "regularizer": REGULARIZERS}


def parse_training(values: Mapping[str, Any], *, partly: bool = False) -> TrainingConfig:
    """Return the configuration with these values, by YAML names.

    Parts of installed packages are imported if they are named. Of a `module:name` that this process has not imported,
    nothing is imported, and its hyperparameters are not checked.

    Args:
        values: The hyperparameters that are given.
        partly: Take unknown hyperparameters as they are, because they may belong to a part that is not imported.

    Raises:
        ValidationError: A key is unknown, or a value is of the wrong kind.
    """
    for key, registry in _PARTS.items():
        if isinstance(values.get(key), str):
            registry.declaration(values[key])
    base = _PartlyReadConfig if partly or has_unread_parts(values) else TrainingConfig
    return _composed(base, tuple(ATTACKS.declarations), tuple(REGULARIZERS.declarations)).model_validate(dict(values))


def _parse(values: Any) -> Any:
    return parse_training(values) if isinstance(values, Mapping) else values


AnyTrainingConfig = Annotated[SerializeAsAny[TrainingConfig], BeforeValidator(_parse)]
"""A field of a configuration that holds a TrainingConfig, with the hyperparameters of the user's own parts."""


def has_unread_parts(values: Mapping[str, Any]) -> bool:
    """Return whether an attack or penalty in `values` (by YAML names) is the user's own and not imported here."""
    return any(registry.is_unread(values.get(key)) for key, registry in _PARTS.items())


def import_parts(values: Mapping[str, Any], path: str) -> None:
    """Import the attack and the penalty in `values` (by YAML names), so that their hyperparameters are known.

    Raises:
        ProblemError: A name stands for no part. The error names `path` and the key.
    """
    for key, registry in _PARTS.items():
        if is_reference(values.get(key)):
            try:
                registry.resolve(values[key])
            except PartError as error:
                raise ProblemError(f"{path}.{key}", str(error)) from error


def declared_keys(parts: Iterable[Any]) -> list[str]:
    """Return the hyperparameters that parts declare, each once; None stands for a part that is not imported."""
    return list(dict.fromkeys(key for part in parts if part is not None for key in declared_hyperparameters(part)))


class _Hyperparameters(Mapping[str, str]):
    """The name in Python of each hyperparameter that this process knows, by its YAML name."""

    def __getitem__(self, key: str) -> str:
        return _field_names(config_class())[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_field_names(config_class()))

    def __len__(self) -> int:
        return len(_field_names(config_class()))


@cache
def _field_names(config: type[TrainingConfig]) -> dict[str, str]:
    return {field.alias or name: name for name, field in config.model_fields.items() if name != METHOD}


HYPERPARAMETERS = _Hyperparameters()
"""The name in Python of each hyperparameter that this process knows, by its YAML name."""


def deciding_keys() -> tuple[str, ...]:
    """Return the hyperparameters, by YAML names, that `inactive_hyperparameters` looks at.

    Each stands after those that decide about it. Among the hyperparameters of attacks and penalties, those with names
    for values can decide, and `guide_weight`.
    """
    fields = config_class().model_fields
    of_attacks = [key for key in declared_keys(ATTACKS.declarations) if choices(fields[key])]
    of_penalties = [key for key in declared_keys(REGULARIZERS.declarations) if choices(fields[key])]
    others = ("optimizer", "weight_decay", "lr_schedule", "averaging", "awp_gamma")
    return ("attack", "guide_weight", *of_attacks, *others, "regularizer", *of_penalties, DELTA, "lambda")


def parse_hyperparameter(key: str, value: Any, path: str) -> Any:
    """Return `value` of hyperparameter `key`, or of `method`, as TrainingConfig understands it.

    Raises:
        ProblemError: The key is unknown, or the value is of the wrong kind; the error names `path`.
    """
    if key == DELTA:
        return check_delta(value, path)
    if key not in HYPERPARAMETERS and key != METHOD:
        raise ProblemError(path, unknown(key, [METHOD, *HYPERPARAMETERS]))
    try:
        return getattr(config_class().model_validate({key: value}), HYPERPARAMETERS.get(key, key))
    except ValidationError as error:
        raise ProblemError(path, first_problem(error, TrainingConfig).message) from error


def hyperparameter_value(config: TrainingConfig, key: str) -> Any:
    """Return the value of a hyperparameter, or of `method`, by its YAML name.

    `delta` is put together from regularizer and direction.
    """
    if key == DELTA:
        return collapse_delta(config.regularizer, config.direction)
    return getattr(config, HYPERPARAMETERS.get(key, key))


def describe_hyperparameter(key: str) -> str:
    """Return what a hyperparameter is, by its YAML name; empty if this process does not know it."""
    if key == DELTA:
        return "The regularizer and, for CURE, its direction, in one word."
    name = HYPERPARAMETERS.get(key)
    return config_class().model_fields[name].description or "" if name else ""
