"""Declarations of the project's penalties: their hyperparameters, which of these make no difference, what they need.

They need no torch, so that a YAML file is read without it. What a penalty computes is in the file of its name.
"""

from dataclasses import dataclass
from typing import ClassVar

from tune_cure.regularizers.directions import DIRECTIONS, LENGTH_H, WITHIN_BALL
from tune_cure.utils.hyperparameters import hyperparameter


@dataclass(kw_only=True)
class RegularizerDeclaration:
    """What a configuration has to know of a penalty.

    A penalty declares its own hyperparameters as dataclass fields (`utils.hyperparameters.hyperparameter`). The fields
    below are shared by all penalties.

    Attributes:
        epsilon: Radius of the training attack's ball, in pixel units.
        norm: Norm of that ball, a name of `NORMS`.
        penalty_two_sided: Whether the gradient at the image is differentiated with respect to the parameters, too.
        penalty_statistics: What batch norm normalizes by in the penalty, a key of `batch_norm_mode.STATISTICS`.
        points: The points whose logits the penalty takes from `step.logits`: names of `regularizer.POINTS`. Empty for a
            penalty that makes its own forward passes.
    """

    points: ClassVar[tuple[str, ...]] = ()

    epsilon: float
    norm: str
    penalty_two_sided: bool
    penalty_statistics: str

    @property
    def needs_attack(self) -> bool:
        """Return True if the penalty needs adversarial images."""
        return "start" in self.points or "adversarial" in self.points

    @property
    def uses_two_sided(self) -> bool:
        """Return True if `penalty_two_sided` makes a difference: the penalty compares two gradients."""
        return True

    @property
    def uses_ball(self) -> bool:
        """Return True if the penalty itself depends on epsilon and norm."""
        return True

    def inactive(self) -> dict[str, str]:
        """Return the penalty's own hyperparameters that make no difference beside its others, and why."""
        return {}


@dataclass(kw_only=True)
class CureDeclaration(RegularizerDeclaration):
    """The hyperparameters of CURE."""

    direction: str = hyperparameter(
        "classic", "CURE: the direction along which gradients are compared.", choices=DIRECTIONS
    )
    h: float = hyperparameter(1.5, "CURE: L2 length of the displacement, in pixel units.", gt=0, unit="pixel units")
    penalty_squared: bool = hyperparameter(False, "CURE: the norm is squared.")
    penalty_divide_by_h: bool = hyperparameter(False, "CURE: divide the difference by the length of z.")

    @property
    def needs_attack(self) -> bool:
        return self.direction == "fgsm"

    @property
    def uses_ball(self) -> bool:
        return self.direction not in LENGTH_H

    def inactive(self) -> dict[str, str]:
        return {"h": f"direction is {self.direction}"} if self.direction in WITHIN_BALL else {}


@dataclass(kw_only=True)
class ElleDeclaration(RegularizerDeclaration):
    """ELLE compares losses, not gradients."""

    @property
    def uses_two_sided(self) -> bool:
        return False


@dataclass(kw_only=True)
class AdaptiveElleDeclaration(ElleDeclaration):
    """The hyperparameters of ELLE-A."""

    elle_sensitivity: float = hyperparameter(
        2.0, "Standard deviations by which the error must jump for the full lambda of elle_a.", ge=0
    )
    elle_decay: float = hyperparameter(0.99, "Share of the weight of elle_a that is left in the next step.", ge=0, le=1)


@dataclass(kw_only=True)
class LogitDeclaration(RegularizerDeclaration):
    """A penalty that is a function of the logits at its `points` alone."""

    @property
    def uses_two_sided(self) -> bool:
        return False

    @property
    def uses_ball(self) -> bool:
        return False


@dataclass(kw_only=True)
class GuidedDeclaration(LogitDeclaration):
    """GAT and NuAT compare the image with the adversarial image."""

    points: ClassVar[tuple[str, ...]] = ("clean", "adversarial")


@dataclass(kw_only=True)
class StartDeclaration(LogitDeclaration):
    """FGSM-PGI and AAER compare the attack's start with its end."""

    points: ClassVar[tuple[str, ...]] = ("start", "adversarial")


@dataclass(kw_only=True)
class NoRegularizerDeclaration(RegularizerDeclaration):
    """No penalty."""

    @property
    def uses_ball(self) -> bool:
        return False
