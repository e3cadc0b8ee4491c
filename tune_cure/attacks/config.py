"""Configuration of the training attack."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tune_cure.attacks.registry import ATTACKS, NORMS
from tune_cure.gradients.registry import STATISTICS_NAMES
from tune_cure.utils.schema import Number, Schema, one_of, with_hyperparameters


def is_linf(section: Mapping[str, Any]) -> bool:
    """Return whether a section of a YAML file, as it was written, has the norm linf, which is the default."""
    return str(section.get("norm", "linf")).lower() == "linf"


def needs_radius(norm: str) -> str:
    """Return the message for a radius that is absent beside a norm other than linf."""
    return f"is needed with norm {norm}: its default is a radius in linf"


class SharedAttackConfig(Schema):
    """The hyperparameters that all attacks share."""

    attack: Annotated[str, one_of(ATTACKS)] = Field(
        default="fgsm",
        description="What is trained on; zerograd: fgsm without the smallest gradients; none: clean.",
    )
    norm: Annotated[str, one_of(NORMS, any_case=True)] = Field(
        default="linf", description="Norm of the training attack's ball."
    )
    epsilon: Number = Field(
        default=8 / 255,
        gt=0,
        description="Radius of the training attack, in pixel units; other norms than linf need one.",
    )
    attack_statistics: Annotated[str, one_of(STATISTICS_NAMES)] = Field(
        default="running", description="What batch norm normalizes by in the attack, as in penalty_statistics."
    )


if TYPE_CHECKING:

    class AttackConfig(SharedAttackConfig):
        """Those, and the hyperparameters that the project's attacks declare."""

        def __getattr__(self, name: str) -> Any: ...
else:
    AttackConfig = with_hyperparameters("AttackConfig", SharedAttackConfig, ATTACKS.declarations)
