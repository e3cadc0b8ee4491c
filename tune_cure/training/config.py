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
from tune_cure.training.averaging import AVERAGINGS
from tune_cure.training.delta import DELTA, check_delta, collapse_delta, expand_delta
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.utils.hyperparameters import build_part, declared_hyperparameters
from tune_cure.utils.registry import PartError, Registry, is_reference
from tune_cure.utils.schema import Number, Schema, choices, one_of, with_hyperparameters
from tune_cure.utils.yaml_config import ProblemError, first_problem, problem_at, unknown

MAX_EPOCHS = 100_000  # a plot has a point for each
AMP_MODES = ("auto", "bf16", "fp16", "tf32", "off")


class ModelConfig(Schema):
    """Which network."""

    name: Annotated[str, one_of(MODELS)] = Field(description="The network.")
    width: int | None = Field(default=None, ge=1, description="Channels of its first stage; its own default if absent.")


def expand_model_name(content: dict[str, Any]) -> None:
    """Turn the short form `model: preact_resnet18` into the long one, in which keys can be set."""
    if isinstance(content.get("model"), str):
        content["model"] = {"name": content["model"]}


class OptimizerConfig(Schema):
    """Length of the training, batches and optimizer."""

    epochs: int = Field(default=30, ge=1, le=MAX_EPOCHS, description="Passes over the training images.")
    batch_size: int = Field(default=128, ge=2, description="Images in a step.")
    cutout: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Side of a square of each training image that is hidden, in pixels; 0: none.",
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(default="sgd", description="The optimizer.")
    momentum: Number = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(default=False, description="Nesterov's momentum for SGD, which needs a momentum.")
    weight_decay: Number = Field(default=5e-4, ge=0, description="L2 penalty on the parameters; decoupled with adamw.")
    decay_vectors: bool = Field(
        default=True, description="Weight decay on all parameters; false spares batch norm's, and biases."
    )
    gradient_clip: Number = Field(default=0.0, ge=0, description="Clip the gradient's L2 norm to this; 0: do not.")


class ScheduleConfig(Schema):
    """Learning rate."""

    lr_schedule: Annotated[str, one_of(SCHEDULES)] = Field(
        default="piecewise", description="The learning rate's course, iteration by iteration."
    )
    lr_max: Number = Field(default=0.1, gt=0, description="Highest learning rate of the schedule.")
    lr_min: Number = Field(default=0.0, ge=0, description="Lowest learning rate of the schedule.")


class LossConfig(Schema):
    """Weights of the loss terms other than the penalty."""

    adversarial_weight: Number = Field(default=1.0, ge=0, description="Weight of the attack's cross-entropy.")
    clean_weight: Number = Field(default=0.0, ge=0, description="Weight of the unattacked images' cross-entropy.")
    trades_weight: Number = Field(default=0.0, ge=0, description="Weight of KL(clean, adversarial prediction).")
    hat_weight: Number = Field(
        default=0.0, ge=0, description="Weight of the cross-entropy at twice the perturbation (HAT)."
    )
    label_smoothing: Number = Field(
        default=0.0, ge=0, lt=1, description="Label smoothing of the cross-entropies with the labels."
    )


class AveragingConfig(Schema):
    """Average of the weights."""

    averaging: Annotated[str, one_of(AVERAGINGS)] = Field(
        default="none", description="Which average of the weights is judged and kept; none: the weights themselves."
    )
    ema_decay: Number = Field(default=0.999, ge=0, lt=1, description="Share that averaging ema keeps in a step.")
    swa_start: Number = Field(default=0.75, ge=0, lt=1, description="Fraction of training before averaging swa.")


class PrecisionConfig(Schema):
    """Mixed precision."""

    amp: Annotated[str, one_of(AMP_MODES)] = Field(
        default="auto", description="Mixed precision; auto: fp16 on CUDA, off on the CPU."
    )


class TrainingConfig(  # pydantic takes the fields of the last base first
    PrecisionConfig, AveragingConfig, RegularizerConfig, LossConfig, AttackConfig, ScheduleConfig, OptimizerConfig
):
    """Hyperparameters of one training run. Every field may be searched."""

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
        own = {*_declared([ATTACKS.get(self.attack), REGULARIZERS.get(self.regularizer)])}
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
    return _composed(TrainingConfig, tuple(ATTACKS.own), tuple(REGULARIZERS.own))


@cache
def _composed(base: type[TrainingConfig], attacks: tuple[Any, ...], penalties: tuple[Any, ...]) -> type[TrainingConfig]:
    parts = [part for part in (*attacks, *penalties) if part not in _BUILT_IN]
    if not any(declared_hyperparameters(part) for part in parts):
        return base
    composed = with_hyperparameters("TrainingConfig", base, parts, beside=_BUILT_IN)
    assert issubclass(composed, TrainingConfig)
    return composed


_BUILT_IN = (*ATTACKS.own, *REGULARIZERS.own)
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
            registry.get(values[key])
    base = _PartlyReadConfig if partly or has_unread_parts(values) else TrainingConfig
    return _composed(base, tuple(ATTACKS.own), tuple(REGULARIZERS.own)).model_validate(dict(values))


def _parse(values: Any) -> Any:
    return parse_training(values) if isinstance(values, Mapping) else values


AnyTrainingConfig = Annotated[SerializeAsAny[TrainingConfig], BeforeValidator(_parse)]
"""A field of a configuration that holds a TrainingConfig, with the hyperparameters of the user's own parts."""


def has_unread_parts(values: Mapping[str, Any]) -> bool:
    """Return whether an attack or penalty in `values` (by YAML names) is a `module:name` that is not imported here."""
    return any(is_reference(values.get(key)) and values[key] not in registry for key, registry in _PARTS.items())


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


def _declared(parts: Iterable[Any]) -> list[str]:
    """Return the hyperparameters that parts declare, each once; None stands for a part that is not imported."""
    return list(dict.fromkeys(key for part in parts if part is not None for key in declared_hyperparameters(part)))


CONFLICTING_KEYS = (
    "lr_min",
    "lr_max",
    "attack",
    "norm",
    "epsilon",
    "regularizer",
    "direction",
    DELTA,
    "optimizer",
    "momentum",
    "nesterov",
    "adversarial_weight",
    "clean_weight",
    "trades_weight",
    "hat_weight",
)
"""The hyperparameters, by their YAML names, that `find_conflict` looks at."""


def find_conflict(config: TrainingConfig) -> tuple[str, str] | None:
    """Return a hyperparameter (by its YAML name) and why its value conflicts with another's; None without conflict."""
    if config.lr_min > config.lr_max:
        return (
            "lr_min",
            f"must be at most lr_max, but lr_min can be {config.lr_min:g} where lr_max is {config.lr_max:g}",
        )
    if config.norm == "linf" and config.epsilon > 1:
        return "epsilon", f"must be at most 1 with norm linf, but can be {config.epsilon:g}: images are in [0, 1]"
    if config.optimizer == "sgd" and config.nesterov and config.momentum == 0:
        return "nesterov", "needs a momentum above 0, but momentum can be 0"
    if config.adversarial_weight == 0 and config.clean_weight == 0:
        return "adversarial_weight", "can be 0 where clean_weight is 0 too: then nothing would be learnt from labels"
    if config.attack == "none":
        penalty = _known_part(REGULARIZERS, config.regularizer, config)
        if penalty is not None and penalty.needs_attack:
            key = "direction" if config.regularizer == "cure" else "regularizer"
            name = getattr(config, key)
            return key, f"{name} needs the adversarial examples of an attack, but attack can be none"
        for name in ("clean_weight", "trades_weight", "hat_weight"):
            if getattr(config, name) > 0:
                return name, "goes with an attack, but attack can be none, which trains on clean images as they are"
    return None


def _known_part(registry: Registry[Any], name: str, config: TrainingConfig) -> Any:
    """Return the part as `config` says; None if it is a `module:name` that is not imported here."""
    part = registry.get(name)
    return None if part is None else build_part(part, config)


_OF_ALL_PENALTIES = ("penalty_two_sided", "penalty_statistics", "penalty_fraction", "penalty_every")


def inactive_hyperparameters(config: TrainingConfig) -> dict[str, str]:
    """Return the hyperparameters (by their YAML names) that make no difference to this training, and why."""
    idle: dict[str, str] = {}
    if config.optimizer != "sgd":
        idle |= dict.fromkeys(("momentum", "nesterov"), f"optimizer is {config.optimizer}")
    if config.weight_decay == 0:
        idle["decay_vectors"] = "weight_decay is 0"
    if config.lr_schedule == "fixed":
        idle["lr_min"] = "lr_schedule is fixed"
    if config.averaging != "ema":
        idle["ema_decay"] = f"averaging is {config.averaging}"
    if config.averaging != "swa":
        idle["swa_start"] = f"averaging is {config.averaging}"
    return idle | _inactive_of_attack(config) | _inactive_of_penalty(config)


def _inactive_of_attack(config: TrainingConfig) -> dict[str, str]:
    reason = f"attack is {config.attack}"
    attack = _known_part(ATTACKS, config.attack, config)
    idle = _of_other_parts(ATTACKS, config.attack, reason)
    if config.attack == "none":
        idle["attack_statistics"] = reason
    return idle | (attack.inactive() if attack else {})


def _inactive_of_penalty(config: TrainingConfig) -> dict[str, str]:
    penalty = _known_part(REGULARIZERS, config.regularizer, config)
    if config.regularizer == "none":
        penalized, idle = False, dict.fromkeys(("lambda", *_OF_ALL_PENALTIES), "regularizer is none")
        idle |= _of_other_parts(REGULARIZERS, "none", "regularizer is none")
    elif config.lambda_ == 0:
        penalized, idle = False, dict.fromkeys(("regularizer", DELTA, *_OF_ALL_PENALTIES), "lambda is 0")
        idle |= dict.fromkeys(_yaml_names(_declared(REGULARIZERS.own)), "lambda is 0")
    else:
        reason = f"regularizer is {config.regularizer}"
        penalized, idle = True, _of_other_parts(REGULARIZERS, config.regularizer, reason)
        if penalty:
            idle |= penalty.inactive() | ({} if penalty.uses_two_sided else {"penalty_two_sided": reason})
    if config.attack == "none" and not (penalized and (penalty is None or penalty.uses_ball)):
        idle |= dict.fromkeys(("epsilon", "norm"), "attack is none")
    return idle


def _of_other_parts(registry: Registry[Any], name: str, reason: str) -> dict[str, str]:
    """Return the hyperparameters that other parts than `name` declare, with `reason`."""
    own = _declared([registry.get(name)])
    return dict.fromkeys(_yaml_names(key for key in _declared(registry.own) if key not in own), reason)


def _yaml_names(fields: Iterable[str]) -> list[str]:
    return [name.removesuffix("_") for name in fields]


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
    return {field.alias or name: name for name, field in config.model_fields.items()}


HYPERPARAMETERS = _Hyperparameters()
"""The name in Python of each hyperparameter that this process knows, by its YAML name."""


def deciding_keys() -> tuple[str, ...]:
    """Return the hyperparameters, by YAML names, that `inactive_hyperparameters` looks at.

    Each stands after those that decide about it. Among the hyperparameters of attacks and penalties, those with names
    for values can decide.
    """
    fields = config_class().model_fields
    of_attacks = [key for key in _declared(ATTACKS.own) if choices(fields[key])]
    of_penalties = [key for key in _declared(REGULARIZERS.own) if choices(fields[key])]
    first = ("attack", *of_attacks, "optimizer", "lr_schedule", "averaging", "regularizer", *of_penalties)
    return (*first, DELTA, "lambda")


def parse_hyperparameter(key: str, value: Any, path: str) -> Any:
    """Return `value` of hyperparameter `key` as TrainingConfig understands it.

    Raises:
        ProblemError: The key is unknown, or the value is of the wrong kind; the error names `path`.
    """
    if key == DELTA:
        return check_delta(value, path)
    if key not in HYPERPARAMETERS:
        raise ProblemError(path, unknown(key, HYPERPARAMETERS))
    try:
        return getattr(config_class().model_validate({key: value}), HYPERPARAMETERS[key])
    except ValidationError as error:
        raise ProblemError(path, first_problem(error, TrainingConfig).message) from error


def hyperparameter_value(config: TrainingConfig, key: str) -> Any:
    """Return the value of a hyperparameter by its YAML name; `delta` is put together from regularizer and direction."""
    return (
        collapse_delta(config.regularizer, config.direction) if key == DELTA else getattr(config, HYPERPARAMETERS[key])
    )


def describe_hyperparameter(key: str) -> str:
    """Return what a hyperparameter is, by its YAML name; empty if this process does not know it."""
    if key == DELTA:
        return "The regularizer and, for CURE, its direction, in one word."
    name = HYPERPARAMETERS.get(key)
    return config_class().model_fields[name].description or "" if name else ""
