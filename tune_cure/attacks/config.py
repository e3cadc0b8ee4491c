"""Configuration of the training attack."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tune_cure.attacks.registry import ATTACKS, NORMS
from tune_cure.gradients.registry import STATISTICS_NAMES
from tune_cure.utils.schema import Number, Schema, one_of, with_hyperparameters


class SharedAttackConfig(Schema):
    """The hyperparameters that all attacks share."""

    attack: Annotated[str, one_of(ATTACKS)] = Field(
        default="fgsm",
        description="What is trained on; zerograd: fgsm without the smallest gradients; none: clean.",
    )
    norm: Annotated[str, one_of(NORMS, any_case=True)] = Field(
        default="linf", description="Norm of the training attack's ball."
    )
    epsilon: Number = Field(default=8 / 255, gt=0, description="Radius of the training attack, in pixel units.")
    attack_statistics: Annotated[str, one_of(STATISTICS_NAMES)] = Field(
        default="running", description="What batch norm normalizes by in the attack, as in penalty_statistics."
    )


if TYPE_CHECKING:

    class AttackConfig(SharedAttackConfig):
        """Those, and the hyperparameters that the project's attacks declare."""

        def __getattr__(self, name: str) -> Any: ...
else:
    AttackConfig = with_hyperparameters("AttackConfig", SharedAttackConfig, ATTACKS.declarations)
