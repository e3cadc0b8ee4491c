"""Declarations of the project's attacks: their hyperparameters, and which of these make no difference.

They need no torch, so that a YAML file is read without it. What an attack computes is in the file of its name.
"""

from dataclasses import dataclass
from typing import ClassVar

from tune_cure.gradients.registry import DISTANCE_NAMES
from tune_cure.utils.hyperparameters import hyperparameter

INITS = ("uniform", "zero", "previous", "noise", "clipped_noise", "bernoulli")
NOISES = ("noise", "clipped_noise")
"""The starts that may lie outside of the ball, and from which the step is not projected into it."""


@dataclass(kw_only=True)
class AttackDeclaration:
    """Declaration of an attack: its hyperparameters and what a configuration has to know of it.

    An attack declares its own hyperparameters as dataclass fields (`utils.hyperparameters.hyperparameter`). The fields
    below are shared by all attacks.

    Attributes:
        epsilon: Radius of the ball, in pixel units.
        norm: Norm of the ball, a name of `NORMS`.
        attack_statistics: What batch norm normalizes by in the attack, a key of `batch_norm_mode.STATISTICS`.
        keeps_start: Whether the attack sets `start`.
        learns_from_loss: Whether the attack makes no pass of its own, but takes its step from the backward pass of the
            training loss (`Attack.learn`).
    """

    keeps_start: ClassVar[bool] = False
    learns_from_loss: ClassVar[bool] = False

    epsilon: float
    norm: str
    attack_statistics: str

    @property
    def uses_lambda_schedule(self) -> bool:
        """True if `lambda_schedule` scales a weight of the attack, too."""
        return False

    def inactive(self) -> dict[str, str]:
        """Return the attack's own hyperparameters that make no difference beside its others, and why."""
        return {}


@dataclass(kw_only=True)
class FgsmDeclaration(AttackDeclaration):
    """The hyperparameters of one step from a starting point."""

    keeps_start: ClassVar[bool] = True

    alpha: float = hyperparameter(1.25, "Step of one-step attacks as a multiple of epsilon.", gt=0, unit="of epsilon")
    step_size: float | None = hyperparameter(
        None, "Step of one-step attacks in pixel units, in the place of alpha.", gt=0, unit="pixel units"
    )
    init: str = hyperparameter(
        "uniform", "Start of one-step attacks; noise, clipped_noise: uniform, not projected.", choices=INITS
    )
    noise: float = hyperparameter(
        2.0, "Radius of init noise and clipped_noise as a multiple of epsilon.", gt=0, unit="of epsilon"
    )

    def inactive(self) -> dict[str, str]:
        reasons = {} if self.init in NOISES else {"noise": f"init is {self.init}"}
        return reasons if self.step_size is None else reasons | {"alpha": "step_size is given"}


@dataclass(kw_only=True)
class ZeroGradDeclaration(FgsmDeclaration):
    """The hyperparameters of FGSM without the smallest gradient entries."""

    zero_fraction: float = hyperparameter(
        0.35, "Share of the gradient entries that zerograd leaves out.", ge=0, lt=1, unit="a share"
    )


@dataclass(kw_only=True)
class PgdDeclaration(AttackDeclaration):
    """The hyperparameters of several steps of epsilon / 4."""

    attack_steps: int = hyperparameter(7, "Steps of attack pgd, each a quarter of epsilon.", ge=1, unit="steps")


@dataclass(kw_only=True)
class FreeDeclaration(AttackDeclaration):
    """The hyperparameters of free adversarial training."""

    learns_from_loss: ClassVar[bool] = True

    replays: int = hyperparameter(
        8,
        "Steps in a row on each batch with attack free; a pass over the images takes this many epochs.",
        ge=1,
        unit="steps",
    )


@dataclass(kw_only=True)
class FgsmPgiDeclaration(FgsmDeclaration):
    """The hyperparameters of FGSM from each image's own start."""

    pgi_momentum: float = hyperparameter(
        0.3,
        "Share of an image's accumulated gradient that fgsm_pgi keeps in the next epoch.",
        ge=0,
        lt=1,
        unit="a share",
    )
    pgi_reset: int = hyperparameter(40, "Epochs after which fgsm_pgi starts anew.", ge=1, unit="epochs")

    def inactive(self) -> dict[str, str]:
        return super().inactive() | dict.fromkeys(("init", "noise"), "attack is fgsm_pgi")


@dataclass(kw_only=True)
class GuidedDeclaration(FgsmDeclaration):
    """The hyperparameters of FGSM with a distance from the clean outputs."""

    guide: str = hyperparameter(
        "softmax", "Distance that attack guided ascends beside the cross-entropy.", choices=DISTANCE_NAMES
    )
    guide_weight: float = hyperparameter(10.0, "Weight of the distance in attack guided.", ge=0, unit="a weight")
    guide_every: int = hyperparameter(
        2,
        "The distance guides one step (with `penalty_every`, one step with a penalty) in this many; 1: every one.",
        ge=1,
        unit="steps",
    )

    @property
    def uses_lambda_schedule(self) -> bool:
        return self.guide_weight != 0

    def inactive(self) -> dict[str, str]:
        idle = super().inactive()
        return idle | (dict.fromkeys(("guide", "guide_every"), "guide_weight is 0") if self.guide_weight == 0 else {})


@dataclass(kw_only=True)
class SsatDeclaration(FgsmDeclaration):
    """The hyperparameters of the first point on the way that fools the network."""

    ssat_points: int = hyperparameter(
        3, "Points that ssat tries between the image and the fgsm example, this one included.", ge=1, unit="points"
    )
