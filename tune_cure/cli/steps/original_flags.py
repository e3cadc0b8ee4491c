"""Translation of the original project's command line, `CURE_fast_adversarial`, into this project's names and units.

`tune-cure train` takes that command line as it is. Where the number that is used is not the number that was typed, a
line says so.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from tune_cure.attacks.config import is_linf
from tune_cure.training.config import HYPERPARAMETERS, TrainingConfig, config_class, parse_hyperparameter
from tune_cure.training.delta import DELTA
from tune_cure.utils.registry import is_reference
from tune_cure.utils.schema import choices
from tune_cure.utils.yaml_config import parse_value

FLAGS = {  # of the original project, beside this project's; `--lambda_` is its way around Python's keyword
    "optimizer": ["--opt"],
    "init": ["--delta-init"],
    "lambda": ["--lambda_"],
    "clean_weight": ["--kapa"],
    "trades_weight": ["--betta"],
    "hat_weight": ["--gamma"],
}
VALUES = {
    "lr_schedule": {"fix": "fixed", "steplr": "fixed"},  # its StepLR never steps
    "init": {"random": "uniform"},
}
WITHOUT_EFFECT = {  # flags of the original project that change nothing here, each with the reason
    "--interpol": "nor has it there",
    "--loss-scale": "the scale of fp16 losses adapts itself",
    "--master-weights": "weights are float32 always",
    "--lr-drop-epoch": "onedrop drops after half of the epochs",
    "--lr-one-drop": "onedrop drops to a tenth of lr_max",
}
HAT_WEIGHT = 0.5  # the original's weight of the HAT term where --gamma is not given
ALPHA_LIMIT = 4  # an alpha from here on is in 1/255 in any case: no step is that many times epsilon


@dataclass(frozen=True)
class OriginalFlags:
    """Flags of the original project that have no counterpart of the same meaning here; each is None if not given.

    Attributes:
        hat: Whether the HAT term is in the loss.
        opt_level: Apex's level of mixed precision.
        without_effect: The flags of `WITHOUT_EFFECT` that were given.
    """

    hat: str | None = None
    opt_level: str | None = None
    without_effect: tuple[str, ...] = ()

    @property
    def given(self) -> list[str]:
        """The flags that were given."""
        named = [("--hat", self.hat), ("--opt-level", self.opt_level)]
        return [flag for flag, value in named if value is not None] + list(self.without_effect)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that the help does not show."""
    parser.add_argument("--hat", choices=("0", "1", "True", "False", "true", "false"), help=argparse.SUPPRESS)
    parser.add_argument("--opt-level", choices=("O0", "O1", "O2"), help=argparse.SUPPRESS)
    for flag in WITHOUT_EFFECT:
        parser.add_argument(flag, nargs="?", const=True, help=argparse.SUPPRESS)


def read_options(parsed: argparse.Namespace) -> OriginalFlags:
    """Return the original project's flags of a parsed command line."""
    without_effect = [flag for flag in WITHOUT_EFFECT if getattr(parsed, flag[2:].replace("-", "_")) is not None]
    return OriginalFlags(parsed.hat, parsed.opt_level, tuple(without_effect))


def translate(given: Mapping[str, str], original: OriginalFlags, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the hyperparameters that were typed after their flags, typed and under this project's names of values.

    Args:
        given: The texts by the names of the hyperparameters.
        original: The original project's other flags.
        say: Prints a line.

    Raises:
        ProblemError: A text is no value of its hyperparameter.
    """
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key == DELTA or _field(key).annotation is str:
            text = text if _is_name(key, text) else VALUES.get(key, {}).get(text.lower(), text.lower())
        flag = f"--{key.replace('_', '-')}"
        values[key] = parse_hyperparameter(key, parse_value(text, flag), flag)
    for flag in original.without_effect:
        say(f"{flag} has no effect: {WITHOUT_EFFECT[flag]}")
    if original.opt_level:
        values["amp"] = "off" if original.opt_level == "O0" else "auto"
    if original.hat in ("0", "False", "false"):
        values["hat_weight"] = 0.0
    elif original.hat and "hat_weight" not in values:
        values["hat_weight"] = HAT_WEIGHT
        say(f"--hat is taken as --hat-weight {HAT_WEIGHT}")
    return values


def rescale(content: dict[str, Any], given: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Turn an epsilon and an alpha that were typed in 1/255, as the original takes them, into this project's units.

    An alpha beside such an epsilon is in 1/255, too. Any other is from `ALPHA_LIMIT` on.

    Args:
        content: The sections of the run; changed in place.
        given: The texts that were typed, by the names of the hyperparameters.
        say: Prints a line.
    """
    training = content.get("training")
    if not isinstance(training, dict):
        return  # `resolve` says what is wrong
    in_pixels = "epsilon" in given and training["epsilon"] >= 1 and is_linf(training)
    if in_pixels:
        say(f"--epsilon {training['epsilon']:g} is taken as {training['epsilon']:g}/255")
        training["epsilon"] /= 255
    if "alpha" in given and (in_pixels or training["alpha"] >= ALPHA_LIMIT):
        step = training["alpha"] / 255
        epsilon = parse_hyperparameter("epsilon", training.get("epsilon", TrainingConfig().epsilon), "training.epsilon")
        training["alpha"] = step / epsilon
        say(f"--alpha {255 * step:g} is taken as a step of {255 * step:g}/255, {training['alpha']:.4g} times epsilon")


def _is_name(key: str, text: str) -> bool:
    """Return whether `text` is a name as it stands, capitals included: of a part of the user's own, perhaps."""
    return is_reference(text) or (key != DELTA and text in choices(_field(key)))


def _field(key: str) -> FieldInfo:
    """Return the field of a hyperparameter, or of `method`."""
    return config_class().model_fields[HYPERPARAMETERS.get(key, key)]
