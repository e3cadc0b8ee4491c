"""Configuration of the evaluation: the threat model and the attack that measures robustness in it."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tune_cure.attacks.config import needs_radius
from tune_cure.attacks.registry import NORMS
from tune_cure.evaluation.names import ATTACK_LABELS
from tune_cure.gradients.registry import LOSSES
from tune_cure.utils.formatting import format_radius
from tune_cure.utils.schema import Number, Schema, one_of
from tune_cure.utils.yaml_config import problem_at

AttackName = Literal["pgd", "apgd_t", "autoattack"]
"""Attacks of a stricter judgement than that of each epoch: PGD, AutoAttack's targeted APGD, or all of AutoAttack."""


class EvaluationConfig(Schema):
    """Threat model and attack by which every trial of a search is evaluated.

    They are never searched: otherwise the smallest epsilon would win.
    """

    norm: Annotated[str, one_of(NORMS, any_case=True)] = Field(default="linf", description="Norm of the ball.")
    epsilon: Number = Field(
        default=8 / 255,
        gt=0,
        description="Radius of the ball, in pixel units: in a search 8/255 for every data set unless given. A norm "
        "other than linf needs one.",
    )
    steps: int = Field(default=10, ge=1, description="PGD steps; each is a quarter of epsilon long.")
    restarts: int = Field(default=1, ge=1, description="PGD random starts; robust means robust to all of them.")
    loss: Annotated[str, one_of(LOSSES)] = Field(default="cross_entropy", description="What PGD ascends.")
    examples: int = Field(default=1000, ge=1, description="Validation images used, stratified; all if there are fewer.")

    @field_validator("epsilon")
    @classmethod
    def _fits_into_the_pixels(cls, epsilon: float, info: ValidationInfo) -> float:
        if info.data.get("norm") == "linf" and epsilon > 1:
            raise ValueError(f"must be at most 1 with norm linf, but found {epsilon:g}")
        return epsilon

    @model_validator(mode="after")
    def _has_a_radius_in_its_norm(self) -> Self:
        if self.norm != "linf" and "epsilon" not in self.model_fields_set:
            raise problem_at("epsilon", needs_radius(self.norm))
        return self

    @property
    def described_attack(self) -> str:
        """The attack and its settings in words, without the threat model."""
        starts = f"{self.restarts} start" + "s" * (self.restarts > 1)
        ascends = "" if self.loss == "cross_entropy" else f" on the {self.loss} loss"
        return f"PGD-{self.steps} with {starts}{ascends}"

    def __str__(self) -> str:
        return f"{self.described_attack} at {format_radius(self.epsilon, self.norm)}"


class StricterEvaluation(EvaluationConfig):
    """Threat model and attack of a judgement beside that of each epoch. Steps, restarts and loss are those of PGD."""

    attack: AttackName = "pgd"

    @property
    def label(self) -> str:
        """The attack as people write it, without its settings."""
        return "PGD" if self.attack == "pgd" else ATTACK_LABELS[self.attack]

    @property
    def described_attack(self) -> str:
        """The attack and its settings in words, without the threat model; AutoAttack has no settings."""
        return super().described_attack if self.attack == "pgd" else self.label
