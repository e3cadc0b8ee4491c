"""Signs that a network hides its gradients: then attacks by gradients fail, and its robustness is only apparent.

The thresholds come from what sound networks show and masked ones do not (Athalye et al. 2018, arXiv 1802.00420; Carlini
et al. 2019, arXiv 1902.06705; Croce and Hein 2020, arXiv 2003.01690).
"""

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from tune_cure.robustness import Outcomes

ERRORS = 2.0  # standard errors that a difference must exceed its threshold by: few images do not warn by chance
SINGLE_STEP = 0.15  # FGSM accuracy above that under PGD-10
RESTARTS = 0.02  # PGD-10 above PGD-50-10
ADAPTIVE = 0.06  # PGD-50-10 above AutoAttack
BLACK_BOX = 0.002  # what Square breaks beyond AutoAttack's attacks by gradients
ZERO_GRADIENT = 0.01  # of the images


def signs(outcomes: Outcomes) -> list[str]:
    """A sentence for each sign: what was found, what it means, what to do. None for a sound network."""
    correct = outcomes.correct
    found = []
    if gap := _gap(correct, "fgsm", "pgd_10", SINGLE_STEP):
        found.append(
            f"FGSM accuracy is {gap} above PGD-10's: the network withstands the single steps that it was trained with, "
            "but not several (catastrophic overfitting); a larger penalty, a smaller alpha or fewer epochs may help."
        )
    if gap := _gap(correct, "pgd_10", "fgsm", 0.0):
        found.append(
            f"FGSM breaks more than PGD-10 does, by {gap}, though it is the weaker attack: its gradients mislead; "
            "believe AutoAttack, not PGD."
        )
    if gap := _gap(correct, "pgd_10", "pgd_50_10", RESTARTS):
        found.append(
            f"PGD-10 accuracy is {gap} above PGD-50-10's: few steps from one start do not find what is there to be "
            "found; judge a search of such networks by more steps and restarts (evaluation.steps, asha.steps)."
        )
    if gap := _gap(correct, "pgd_50_10", "autoattack", ADAPTIVE):
        found.append(
            f"PGD-50-10 accuracy is {gap} above AutoAttack's: PGD on the cross-entropy overrates this network; believe "
            "AutoAttack, and compare by it."
        )
    if gap := _gap(correct, "fab_t", "autoattack", BLACK_BOX):
        found.append(
            f"Square, which sees no gradients, breaks {gap} more than all attacks by gradients together: gradients are "
            "masked; even AutoAttack may overrate this network, and an attack made for it is needed."
        )
    if outcomes.zero_gradient > ZERO_GRADIENT:
        found.append(
            f"The gradient is exactly zero at {100 * outcomes.zero_gradient:.1f}% of the images: attacks by gradients "
            "do nothing there; look for saturated or rounded activations, or logits of enormous size."
        )
    return found


def _gap(correct: Mapping[str, NDArray[Any]], higher: str, lower: str, threshold: float) -> str:
    """By how much one accuracy is above the other, if that exceeds the threshold by more than chance; else empty."""
    if higher not in correct or lower not in correct:
        return ""
    differences = correct[higher].astype(float) - correct[lower].astype(float)
    error = float(differences.std()) / math.sqrt(len(differences))
    gap = float(differences.mean())
    return f"{100 * gap:.1f} points" if gap > threshold and gap - threshold > ERRORS * error else ""
