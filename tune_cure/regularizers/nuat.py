"""The penalty of nuclear norm adversarial training (Sriramanan et al. 2021, "Towards Efficient and Effective …")."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tune_cure.gradients.logit_distances import nuclear_distance
from tune_cure.regularizers.declarations import GuidedDeclaration
from tune_cure.regularizers.regularizer import LogitRegularizer, PenaltyStep


@dataclass(kw_only=True)
class Nuat(GuidedDeclaration, LogitRegularizer):
    """NuAT: nuclear norm of the batch's differences of logits between image and adversarial image."""

    can_be_recorded: ClassVar[bool] = False  # the decomposition waits

    def __call__(self, step: PenaltyStep) -> Tensor:
        return nuclear_distance(step.logits["clean"], step.logits["adversarial"])
