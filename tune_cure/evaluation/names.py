"""Names of accuracies and of attacks: table columns, and how people write them. Imports nothing."""

from collections.abc import Collection

ACCURACY_LABELS = {"clean_accuracy": "clean", "fgsm_accuracy": "FGSM", "pgd_accuracy": "PGD"}
"""The accuracies measured on validation images after each epoch, by their columns in the tables."""

ACCURACIES = tuple(ACCURACY_LABELS)

METRICS = (*ACCURACIES, *(f"{name}_se" for name in ACCURACIES), "fgsm_loss_increase", "gradient_alignment")
"""Measurements that `metrics.evaluate` returns."""

EPOCH_METRICS = (
    "epoch",
    "lr",
    "train_loss",
    "train_adversarial_accuracy",
    "curvature",
    *METRICS,
    "pgd_accuracy_best",
    "catastrophic_overfitting",
    "train_seconds",
    "attack_seconds",
    "penalty_seconds",
    "eval_seconds",
    "images_per_second",
    "device_memory_mb",
    "skipped_steps",
)
"""Measurements of an epoch of training and its evaluation, in the order of epochs.csv."""

ATTACK_LABELS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd_10": "PGD-10",
    "pgd_50_10": "PGD-50-10",
    "apgd_ce": "APGD-CE",
    "apgd_t": "APGD-T",
    "fab_t": "FAB-T",
    "autoattack": "AutoAttack",
}
"""Attack on a test image before it is classified, by its column in confirm.csv, in order of strength.

`pgd_50_10` is PGD of 50 steps from each of 10 random starts.
"""

ATTACKS = tuple(ATTACK_LABELS)

AUTOATTACK_PARTS = {"apgd_ce": "apgd-ce", "apgd_t": "apgd-t", "fab_t": "fab-t", "autoattack": "square"}
"""The parts of AutoAttack in their order, as pyautoattack names them.

An image counts under a key if it withstood that part and all parts before it, so the last one is all of AutoAttack.
"""

TARGETED_PARTS = ("apgd_t", "fab_t")
"""The parts of AutoAttack that aim at other classes one by one."""
MIN_TARGETED_CLASSES = 4
"""Fewest classes for which the targeted loss is defined. With fewer, AutoAttack runs without `TARGETED_PARTS`."""
UNTARGETED_LABEL = "APGD-CE + Square"
"""AutoAttack without its targeted parts, as people write it."""

COMPARED_ATTACKS = ("clean", "pgd_50_10", "autoattack")
"""The attacks by which candidates of a confirmation, and winners of searches, are compared on the test set."""

WITHOUT_AUTOATTACK = tuple(name for name in ATTACKS if name not in AUTOATTACK_PARTS)

NORM_LABELS = {"linf": "Linf", "l2": "L2"}
"""The norms as pyautoattack and RobustBench name them."""


def judging_attacks(num_classes: int, *, autoattack: bool) -> tuple[str, ...]:
    """Return the names of the attacks that judge networks for a number of classes, in order of strength."""
    if not autoattack:
        return WITHOUT_AUTOATTACK
    return ATTACKS if num_classes >= MIN_TARGETED_CLASSES else tuple(x for x in ATTACKS if x not in TARGETED_PARTS)


def explain_missing_parts(num_classes: int, *, autoattack: bool) -> str:
    """Return a line that says which parts of AutoAttack are left out for a number of classes; empty if none is."""
    if not autoattack or num_classes >= MIN_TARGETED_CLASSES:
        return ""
    return (
        f"AutoAttack's targeted parts, APGD-T and FAB-T, need {MIN_TARGETED_CLASSES} classes, and there are "
        f"{num_classes}: they are left out, and {UNTARGETED_LABEL} remain"
    )


def label_attacks(measured: Collection[str]) -> dict[str, str]:
    """Return `ATTACK_LABELS`; `autoattack` is `UNTARGETED_LABEL` if it was measured without its targeted parts."""
    if "autoattack" in measured and "apgd_ce" in measured and "apgd_t" not in measured:
        return ATTACK_LABELS | {"autoattack": UNTARGETED_LABEL}
    return ATTACK_LABELS
