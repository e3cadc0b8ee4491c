"""Signs that a network hides its gradients: then attacks by gradients fail, and its robustness is only apparent.

The thresholds come from what sound networks show and masked ones do not (Athalye et al. 2018, arXiv 1802.00420; Carlini
et al. 2019, arXiv 1902.06705; Croce and Hein 2020, arXiv 2003.01690).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tune_cure.evaluation.robustness import Outcomes

ERRORS = 2.0  # standard errors that a difference must exceed its threshold by: few images do not warn by chance
SINGLE_STEP = 0.15  # FGSM accuracy above that under PGD-10
RESTARTS = 0.02  # PGD-10 above PGD-50-10
RESTARTS_SOUND = 0.15  # the same where AutoAttack finds little more than PGD-50-10: on digits, such show up to 0.11
ADAPTIVE = 0.06  # PGD-50-10 above AutoAttack
BLACK_BOX = 0.002  # what Square breaks beyond AutoAttack's attacks by gradients
ZERO_GRADIENT = 0.01  # of the images


@dataclass(frozen=True)
class MaskingSign:
    """That a network may hide its gradients.

    Attributes:
        claim: What was found, with {} in place of how much.
        size: How much, of 1.
        unit: Of the size in hundredths.
        meaning: What it means and what to do.
    """

    claim: str
    size: float
    unit: str
    meaning: str

    def found(self, prefix: str = "") -> str:
        """The claim with the size in its place, `prefix` before it."""
        return self.claim.format(f"{prefix}{100 * self.size:.1f}{self.unit}")

    def __str__(self) -> str:
        return f"{self.found()}: {self.meaning}."


POINTS = " points"
GAPS = (
    (
        "fgsm", "pgd_10", SINGLE_STEP, "FGSM accuracy is {} above PGD-10's",
        "the network withstands the single steps that it was trained with, but not several (catastrophic "
        "overfitting); a larger penalty, a smaller alpha or fewer epochs may help",
    ),
    (
        "pgd_10", "fgsm", 0.0, "FGSM, the weaker attack, breaks {} more than PGD-10",
        "its gradients mislead; believe AutoAttack, not PGD",
    ),
    (
        "pgd_10", "pgd_50_10", RESTARTS, "PGD-10 accuracy is {} above PGD-50-10's",
        "few steps from one start do not find what is there to be found; judge a search of such networks by more "
        "steps and restarts (evaluation.steps, asha.steps)",
    ),
    (
        "pgd_50_10", "autoattack", ADAPTIVE, "PGD-50-10 accuracy is {} above AutoAttack's",
        "PGD on the cross-entropy overrates this network; believe AutoAttack, and compare by it",
    ),
    (
        "fab_t", "autoattack", BLACK_BOX,
        "Square, which sees no gradients, breaks {} more than all attacks by gradients together",
        "gradients are masked; even AutoAttack may overrate this network, and an attack made for it is needed",
    ),
)  # fmt: skip
"""Which accuracy may not be above which by more than so much, and what is said then."""


def find_masking_signs(outcomes: Outcomes) -> list[MaskingSign]:
    """What was found of a network; none for a sound one."""
    correct = outcomes.correct
    is_sound = "autoattack" in correct and not _gap(correct, "pgd_50_10", "autoattack", ADAPTIVE)
    found = []
    for higher, lower, threshold, claim, meaning in GAPS:
        least = RESTARTS_SOUND if is_sound and (higher, lower) == ("pgd_10", "pgd_50_10") else threshold
        if gap := _gap(correct, higher, lower, least):
            found.append(MaskingSign(claim, gap, POINTS, meaning))
    if outcomes.zero_gradient > ZERO_GRADIENT:
        claim = "The gradient is exactly zero at {} of the images"
        meaning = "attacks by gradients do nothing there; look for saturated or rounded activations, or enormous logits"
        found.append(MaskingSign(claim, outcomes.zero_gradient, "%", meaning))
    return found


def _gap(correct: Mapping[str, NDArray[Any]], higher: str, lower: str, threshold: float) -> float:
    """By how much one accuracy is above the other, if that exceeds the threshold by more than chance; else 0."""
    if higher not in correct or lower not in correct:
        return 0.0
    differences = correct[higher].astype(float) - correct[lower].astype(float)
    error = float(differences.std()) / math.sqrt(len(differences))
    gap = float(differences.mean())
    return gap if gap > threshold and gap - threshold > ERRORS * error else 0.0
