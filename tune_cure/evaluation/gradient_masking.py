"""Signs of gradient masking: attacks by gradients fail on such a network, and its robustness is only apparent.

The thresholds separate sound networks from masked ones (Athalye et al. 2018, arXiv 1802.00420; Carlini et al. 2019,
arXiv 1902.06705; Croce and Hein 2020, arXiv 2003.01690). They are differences of accuracies, as fractions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tune_cure.evaluation.outcomes import Outcomes

ERRORS = 2.0
"""Standard errors by which a difference must exceed its threshold, so that few images do not warn by chance."""
SINGLE_STEP = 0.15
"""FGSM accuracy minus PGD-10 accuracy."""
RESTARTS = 0.02
"""PGD-10 accuracy minus PGD-50-10 accuracy."""
RESTARTS_SOUND = 0.15
"""The same where AutoAttack breaks little more than PGD-50-10: sound networks on digits reach 0.11."""
ADAPTIVE = 0.06
"""PGD-50-10 accuracy minus AutoAttack accuracy."""
FEW_STEPS = 0.13
"""PGD-10 accuracy minus AutoAttack accuracy: sound networks on digits reach 0.117 (benchmarks/results/confirm_digits).

Of 100 images they reach 0.16 (methods_digits.csv), which does not exceed the threshold by two standard errors.
"""
BLACK_BOX = 0.002
"""Share of the images that Square breaks after AutoAttack's attacks by gradients."""
BLACK_BOX_UNTARGETED = 0.04
"""The same where the targeted parts were left out: sound networks of three classes of digits reach 0.03."""
ZERO_GRADIENT = 0.01
"""Share of the images at which the gradient is zero."""


@dataclass(frozen=True)
class MaskingSign:
    """One sign that a network may hide its gradients.

    Attributes:
        claim: The observation, with {} in the place of its size.
        size: Size of the observation, as a fraction.
        unit: Unit of the size in hundredths: points or percent.
        meaning: What it means, and what to do.
        overrated: The attacks under which the network may seem more robust than it is because of this.
    """

    claim: str
    size: float
    unit: str
    meaning: str
    overrated: frozenset[str] = frozenset()

    def observation(self, prefix: str = "") -> str:
        """Return the claim with the size in its place, and `prefix` before the size."""
        return self.claim.format(f"{prefix}{100 * self.size:.1f}{self.unit}")

    def __str__(self) -> str:
        return f"{self.observation()}: {self.meaning}."


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
        "pgd_10", "autoattack", FEW_STEPS, "PGD-10 accuracy is {} above AutoAttack's",
        "a search that judges by PGD of few steps overrates this network; judge the search by a stronger attack "
        "(asha.attack, rescore.attack), and compare by AutoAttack",
    ),
    (
        "fab_t", "autoattack", BLACK_BOX,
        "Square, which sees no gradients, breaks {} more than all attacks by gradients together",
        "gradients are masked; even AutoAttack may overrate this network, and an attack made for it is needed",
    ),
)  # fmt: skip
"""Pairs of attacks: the first one's accuracy must not exceed the second one's by more than a threshold.

Each entry has the two attacks, the threshold, the claim and its meaning.
"""
STAGES = {("pgd_10", "autoattack"): {("pgd_10", "pgd_50_10"), ("pgd_50_10", "autoattack")}}
"""Pairs that lie between the two attacks of another pair, which is no further sign if one of these is a sign."""

OVERRATED = {
    ("pgd_10", "fgsm"): frozenset({"pgd_50_10"}),
    ("pgd_50_10", "autoattack"): frozenset({"pgd_50_10"}),
    ("fab_t", "autoattack"): frozenset({"pgd_50_10", "autoattack"}),
}
"""The attacks under which a network with the sign of such a pair may seem more robust than it is."""


def find_masking_signs(outcomes: Outcomes) -> list[MaskingSign]:
    """Return the signs of gradient masking that a network shows; an empty list for a sound one."""
    correct = _with_gradient_attacks(outcomes.correct)
    is_sound = "autoattack" in correct and not _gap(correct, "pgd_50_10", "autoattack", ADAPTIVE)
    signs: list[MaskingSign] = []
    shown: set[tuple[str, str]] = set()
    for weaker, stronger, threshold, claim, meaning in GAPS:
        pair, limit = (weaker, stronger), threshold
        if is_sound and pair == ("pgd_10", "pgd_50_10"):
            limit = RESTARTS_SOUND
        elif weaker == "fab_t" and weaker not in outcomes.correct:
            limit = BLACK_BOX_UNTARGETED
        if shown.isdisjoint(STAGES.get(pair, ())) and (gap := _gap(correct, *pair, limit)):
            signs.append(MaskingSign(claim, gap, POINTS, meaning, OVERRATED.get(pair, frozenset())))
            shown.add(pair)
    if outcomes.zero_gradient > ZERO_GRADIENT:
        claim = "The gradient is exactly zero at {} of the images"
        meaning = "attacks by gradients do nothing there; look for saturated or rounded activations, or enormous logits"
        overrated = frozenset({"pgd_50_10", "autoattack"})
        signs.append(MaskingSign(claim, outcomes.zero_gradient, "%", meaning, overrated))
    return signs


def _with_gradient_attacks(correct: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Return the outcomes, with those of all attacks by gradients as `fab_t` if AutoAttack left out its targeted parts.

    APGD-CE is then its only attack by gradients, and has no restarts. What PGD-50-10 broke counts beside it: else an
    image that restarts break would count as one that only Square does.
    """
    if "fab_t" in correct or not {"pgd_50_10", "apgd_ce", "autoattack"} <= correct.keys():
        return correct
    by_square_alone = correct["pgd_50_10"] & correct["apgd_ce"] & ~correct["autoattack"]
    return {**correct, "fab_t": correct["autoattack"] | by_square_alone}


def _gap(correct: Mapping[str, NDArray[Any]], higher: str, lower: str, threshold: float) -> float:
    """Return how far one accuracy is above the other, or 0 unless that exceeds the threshold by more than chance."""
    if higher not in correct or lower not in correct:
        return 0.0
    differences = correct[higher].astype(float) - correct[lower].astype(float)
    error = float(differences.std()) / math.sqrt(len(differences))
    gap = float(differences.mean())
    return gap if gap > threshold and gap - threshold > ERRORS * error else 0.0
