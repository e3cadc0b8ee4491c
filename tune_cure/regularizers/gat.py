"""The penalty of guided adversarial training (Sriramanan et al. 2020, arXiv 2011.14969)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tune_cure.regularizers.regularizer import LogitRegularizer, PenaltyStep


def softmax_distance(clean_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return the (N,) values ‖p(x′) − p(x)‖₂² of the predicted probabilities; logits are (N, K).

    Sriramanan et al. 2020 (arXiv 2011.14969), the second term of the loss of guided adversarial training (GAT).
    """
    return (adversarial_logits.softmax(dim=1) - clean_logits.softmax(dim=1)).square().sum(dim=1)


@dataclass(kw_only=True)
class Gat(LogitRegularizer):
    """GAT: squared distance of the probabilities at the image and at the adversarial image."""

    points: ClassVar[tuple[str, ...]] = ("clean", "adversarial")

    def __call__(self, step: PenaltyStep) -> Tensor:
        return softmax_distance(step.logits["clean"], step.logits["adversarial"])
