"""Hyperparameters that contradict each other, make no difference beside others, or need a longer training."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from tune_cure.attacks.config import needs_radius
from tune_cure.attacks.registry import ATTACKS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.schedules import LAMBDA_SCHEDULES
from tune_cure.training.config import TrainingConfig, declared_keys
from tune_cure.training.delta import DELTA
from tune_cure.utils.formatting import format_count
from tune_cure.utils.hyperparameters import build_part
from tune_cure.utils.registry import Registry

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
    "boosted_weight",
    "mart_weight",
    "hat_weight",
    "awp_gamma",
)
"""The hyperparameters, by their YAML names, that `find_conflict` looks at."""


def find_conflict(config: TrainingConfig) -> tuple[str, str] | None:
    """Return a hyperparameter (by its YAML name) and why its value conflicts with another's; None without conflict."""
    if config.lr_min > config.lr_max:
        return (
            "lr_min",
            f"must be at most lr_max, but lr_min can be {config.lr_min:g} where lr_max is {config.lr_max:g}",
        )
    if problem := _wrong_radius(config):
        return "epsilon", problem
    if config.optimizer == "sgd" and config.nesterov and config.momentum == 0:
        return "nesterov", "needs a momentum above 0, but momentum can be 0"
    if config.adversarial_weight == 0 and config.clean_weight == 0:
        return "adversarial_weight", "can be 0 where clean_weight is 0 too: then nothing would be learnt from labels"
    penalty = _known_part(REGULARIZERS, config.regularizer, config)
    if config.attack == "none":
        if penalty is not None and penalty.needs_attack:
            key = "direction" if config.regularizer == "cure" else "regularizer"
            name = getattr(config, key)
            return key, f"{name} needs the adversarial examples of an attack, but attack can be none"
        for name in ("clean_weight", "trades_weight", "boosted_weight", "mart_weight", "hat_weight"):
            if getattr(config, name) > 0:
                return name, "goes with an attack, but attack can be none, which trains on clean images as they are"
    attack = ATTACKS.declaration(config.attack)
    if penalty is not None and attack is not None and "start" in penalty.points and not attack.keeps_start:
        return "regularizer", f"{config.regularizer} needs the start of the attack, which {config.attack} does not keep"
    return _conflict_of_one_pass(config, penalty) if attack is not None and attack.learns_from_loss else None


def _wrong_radius(config: TrainingConfig) -> str:
    """Return why the radius of the training attack cannot be one in its norm; empty if it can."""
    if config.norm == "linf" and config.epsilon > 1:
        return f"must be at most 1 with norm linf, but can be {config.epsilon:g}: images are in [0, 1]"
    is_absent = "epsilon" not in config.model_fields_set and "epsilon" not in inactive_hyperparameters(config)
    return needs_radius(config.norm) if config.norm != "linf" and is_absent else ""


def _conflict_of_one_pass(config: TrainingConfig, penalty: Any) -> tuple[str, str] | None:
    """Return what an attack that takes its step from the loss's own backward pass cannot go with."""
    if penalty is not None and penalty.points:
        reason = f"shares the loss's backward pass, from which attack {config.attack} takes its step"
        return "regularizer", f"{config.regularizer} {reason}"
    if config.awp_gamma > 0:
        return "awp_gamma", f"needs a backward pass of its own, but attack {config.attack} makes one for all"
    return None


def _known_part(registry: Registry[Any], name: str, config: TrainingConfig) -> Any:
    """Return a part's declaration with the values of `config`; None if the part is not imported here."""
    declaration = registry.declaration(name)
    return None if declaration is None else build_part(declaration, config)


_OF_ALL_PENALTIES = ("lambda_schedule", "penalty_two_sided", "penalty_statistics", "penalty_fraction", "penalty_every")


def inactive_hyperparameters(config: TrainingConfig) -> dict[str, str]:
    """Return the hyperparameters (by their YAML names) that make no difference to this training, and why."""
    idle: dict[str, str] = {}
    if config.optimizer != "sgd":
        idle |= dict.fromkeys(("momentum", "nesterov"), f"optimizer is {config.optimizer}")
    if config.weight_decay == 0:
        idle["decay_vectors"] = "weight_decay is 0"
    if config.lr_schedule == "fixed":
        idle["lr_min"] = "lr_schedule is fixed"
    if config.awp_gamma == 0:
        idle["awp_start"] = "awp_gamma is 0"
    if config.averaging != "ema":
        idle["ema_decay"] = f"averaging is {config.averaging}"
    if config.averaging != "swa":
        idle["swa_start"] = f"averaging is {config.averaging}"
    attack = _known_part(ATTACKS, config.attack, config)
    idle |= _inactive_of_attack(config, attack) | _inactive_of_penalty(config)
    if attack and attack.uses_lambda_schedule:
        idle.pop("lambda_schedule", None)
    return idle


def _inactive_of_attack(config: TrainingConfig, attack: Any) -> dict[str, str]:
    reason = f"attack is {config.attack}"
    idle = _of_other_parts(ATTACKS, config.attack, reason)
    if config.attack == "none" or (attack and attack.learns_from_loss):
        idle["attack_statistics"] = reason
    return idle | (attack.inactive() if attack else {})


def _inactive_of_penalty(config: TrainingConfig) -> dict[str, str]:
    penalty = _known_part(REGULARIZERS, config.regularizer, config)
    if config.regularizer == "none":
        penalized, idle = False, dict.fromkeys(("lambda", *_OF_ALL_PENALTIES), "regularizer is none")
        idle |= _of_other_parts(REGULARIZERS, "none", "regularizer is none")
    elif config.lambda_ == 0:
        penalized, idle = False, dict.fromkeys(("regularizer", DELTA, *_OF_ALL_PENALTIES), "lambda is 0")
        idle |= dict.fromkeys(_yaml_names(declared_keys(REGULARIZERS.declarations)), "lambda is 0")
    else:
        reason = f"regularizer is {config.regularizer}"
        penalized, idle = True, _of_other_parts(REGULARIZERS, config.regularizer, reason)
        if penalty:
            idle |= penalty.inactive() | ({} if penalty.uses_two_sided else {"penalty_two_sided": reason})
            idle |= {"penalty_statistics": reason} if penalty.points else {}
    if config.attack == "none" and not (penalized and (penalty is None or penalty.uses_ball)):
        idle |= dict.fromkeys(("epsilon", "norm"), "attack is none")
    return idle


def _of_other_parts(registry: Registry[Any], name: str, reason: str) -> dict[str, str]:
    """Return the hyperparameters that others declare and `name` has no field for, with `reason`; {} if not imported."""
    if (part := registry.declaration(name)) is None:
        return {}
    used = {field.name for field in dataclasses.fields(part)}
    return dict.fromkeys(_yaml_names(key for key in declared_keys(registry.declarations) if key not in used), reason)


def _yaml_names(fields: Iterable[str]) -> list[str]:
    return [name.removesuffix("_") for name in fields]


LENGTH_KEYS = ("epochs", "attack", "guide_weight", "regularizer", "lambda", "lambda_schedule", "awp_gamma", "awp_start")
"""The hyperparameters, by their YAML names, that `explain_short_training` looks at."""


def explain_short_training(config: TrainingConfig) -> list[str]:
    """Return a line for each of `lambda_schedule` and `awp_start` for whose full course the epochs are too few.

    Both count in fractions of the training, and the last of few epochs begins early: the last of 2 after a half.
    """
    idle, name = inactive_hyperparameters(config), config.lambda_schedule
    schedule = LAMBDA_SCHEDULES[name]
    last, epochs, lines = (config.epochs - 1) / config.epochs, format_count(config.epochs, "epoch"), []
    if "lambda_schedule" not in idle and schedule(last) < 1:
        needed = _fewest_epochs(lambda fraction: schedule(fraction) == 1)
        lines.append(f"lambda_schedule {name} reaches {schedule(last):.0%} in {epochs}, and 100% in {needed} or more")
    if "awp_start" not in idle and last < config.awp_start:
        needed = _fewest_epochs(lambda fraction: fraction >= config.awp_start)
        lines.append(
            f"awp_start {config.awp_start:g} is not reached in {epochs}, so AWP never begins; {needed} or more reach it"
        )
    return lines


def _fewest_epochs(is_reached: Callable[[float], bool]) -> int:
    """Return the fewest epochs the last of which begins after a fraction of the training with a property."""
    return next(epochs for epochs in itertools.count(1) if is_reached((epochs - 1) / epochs))
