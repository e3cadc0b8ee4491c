"""Catastrophic overfitting: a network that becomes robust to single-step attacks and to no other."""

import math

CATASTROPHIC_DROP = 0.2
"""Drop of PGD accuracy since its best epoch."""
MISALIGNED = 0.3
"""Gradient alignment below which gradients mislead."""


def catastrophic_overfitting(best: dict[str, float] | None, now: dict[str, float]) -> bool:
    """Return whether a network has become robust to single steps alone. Either of two signs is enough.

    - Since the epoch of the best PGD accuracy, this has collapsed while FGSM accuracy did not fall. A collapse is a
      drop of more than 0.2, as in Wong et al. 2020 (arXiv 2001.03994, section 5.2), or to less than half. (Deviations:
      the paper compares with the epoch before, which shows nothing of a network that has collapsed already, and little
      of averaged weights. The half is not in the paper; a network with an accuracy of 0.18 cannot fall by 0.2.)
    - PGD accuracy is less than half of FGSM accuracy, and either the FGSM step lowers the mean loss or the gradient
      alignment is below 0.3: gradients do not point to where the loss is high. This also finds a network that never had
      PGD accuracy to lose.

    A comparison with half of an accuracy must hold by more than three standard errors.

    Args:
        best: `metrics.METRICS` of the epoch of the best PGD accuracy so far; None for the first epoch.
        now: `metrics.METRICS` of the epoch.
    """
    gradients_mislead = now["fgsm_loss_increase"] < 0 or now["gradient_alignment"] < MISALIGNED
    if gradients_mislead and _is_below_half(now, now, "fgsm_accuracy"):
        return True
    if best is None or now["fgsm_accuracy"] < best["fgsm_accuracy"]:
        return False
    drop = best["pgd_accuracy"] - now["pgd_accuracy"]
    return drop > CATASTROPHIC_DROP or _is_below_half(now, best, "pgd_accuracy")


def _is_below_half(now: dict[str, float], of: dict[str, float], accuracy: str) -> bool:
    """Return whether PGD accuracy is below half of an accuracy of `of`, by more than three standard errors."""
    noise = math.hypot(now["pgd_accuracy_se"], of[f"{accuracy}_se"] / 2)
    return of[accuracy] / 2 - now["pgd_accuracy"] > 3 * noise
