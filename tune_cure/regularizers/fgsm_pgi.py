"""The penalty of prior-guided FGSM training (Jia et al. 2022, arXiv 2207.08859)."""

from dataclasses import dataclass

from torch import Tensor

from tune_cure.regularizers.declarations import StartDeclaration
from tune_cure.regularizers.regularizer import LogitRegularizer, PenaltyStep


def logit_distance(start_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return the (N,) mean squared differences of the logits at the attack's start and end; logits are (N, K).

    Jia et al. 2022 (arXiv 2207.08859), the second term of the loss of FGSM-PGI. The squares are averaged over the K
    logits.
    """
    return (adversarial_logits - start_logits).square().mean(dim=1)


@dataclass(kw_only=True)
class FgsmPgi(StartDeclaration, LogitRegularizer):
    """FGSM-PGI: mean squared difference of the logits at the attack's start and at its end."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return logit_distance(step.logits["start"], step.logits["adversarial"])
