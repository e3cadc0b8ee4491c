"""The penalty of guided adversarial training (Sriramanan et al. 2020, arXiv 2011.14969)."""

from dataclasses import dataclass

from torch import Tensor

from tune_cure.gradients.logit_distances import softmax_distance
from tune_cure.regularizers.declarations import GuidedDeclaration
from tune_cure.regularizers.regularizer import LogitRegularizer, PenaltyStep


@dataclass(kw_only=True)
class Gat(GuidedDeclaration, LogitRegularizer):
    """GAT: squared distance of the probabilities at the image and at the adversarial image."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return softmax_distance(step.logits["clean"], step.logits["adversarial"])
