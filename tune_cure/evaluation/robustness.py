"""How robust a network is on test images, outcome by outcome: PGD with restarts, and AutoAttack.

AutoAttack is that of Croce and Hein 2020 (arXiv 2003.01690), standard version, from the package pyautoattack.
"""

import io
import logging
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_cure.attacks.norms import NORMS, project
from tune_cure.attacks.pgd import pgd
from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import BATCH_SIZE, START_SEED, exact_evaluation
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.utils.files import replace_bytes

AUTOATTACK_PARTS = {"apgd_ce": "apgd-ce", "apgd_t": "apgd-t", "fab_t": "fab-t", "autoattack": "square"}
"""AutoAttack's parts in their order, by what an image that withstood it and those before has withstood."""
NORM_LABELS = {"linf": "Linf", "l2": "L2"}
WITHOUT_AUTOATTACK = ("clean", "fgsm", "pgd_10", "pgd_50_10")
ATTACKS = (*WITHOUT_AUTOATTACK, *AUTOATTACK_PARTS)
MIN_CLASSES = 4  # of AutoAttack's targeted loss


@dataclass(frozen=True)
class Outcomes:
    """What came of every image.

    Attributes:
        correct: (N,) booleans by `NAMES`: whether it was still classified right. `pgd_50_10`: in every step of 10
            restarts of 50; from `apgd_ce` on, AutoAttack's parts, each with those before; `autoattack`: in all.
        zero_gradient: The share of images at which the gradient of the loss is exactly zero.
    """

    correct: dict[str, NDArray[Any]]
    zero_gradient: float

    @classmethod
    def of(cls, kept: Mapping[str, NDArray[Any]]) -> "Outcomes":
        """From the arrays by name that a confirmation keeps of a network."""
        return cls({name: kept[name] for name in ATTACKS if name in kept}, float(kept["zero_gradient"]))


def evaluate_robustness(
    model: nn.Module,
    examples: Examples,
    evaluation: EvaluationConfig,
    *,
    autoattack: bool = True,
    folder: Path | None = None,
    on_progress: Callable[[str, float], None] = lambda name, accuracy: None,
) -> Outcomes:
    """Attacks a network in float32 and evaluation mode, with fixed seeds.

    Args:
        model: From images in [0, 1] to logits, on the examples' device.
        examples: The images; all of them are used.
        evaluation: Its norm and epsilon count.
        autoattack: Whether to run it. With fewer than 10 classes it has fewer targets: all the other classes.
        folder: Where the outcome of each attack is kept as it is found; a second call goes on after the last of them.
        on_progress: Told of each attack, once it is over, and of the accuracy under it.

    Raises:
        ValueError: AutoAttack is asked for, but there are fewer than `MIN_CLASSES` classes.
    """
    kept = _Kept(folder)
    with exact_evaluation(model), _seeded():
        images, labels = _whole(examples)
        if autoattack:
            _check_classes(model, images)
        correct: dict[str, NDArray[Any]] = {}
        for name in ATTACKS if autoattack else WITHOUT_AUTOATTACK:
            found = kept.get(name)
            if found is None:
                found = _attacked(name, model, images, labels, evaluation, correct)
                kept.put(name, found)
            correct[name] = found
            on_progress(name, float(found.mean()))
        zero = _mean(_in_batches(lambda x, y: _is_zero(input_gradient(model, x, y)), images, labels))
    return Outcomes(correct, zero)


def _attacked(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    evaluation: EvaluationConfig,
    before: dict[str, NDArray[Any]],
) -> NDArray[Any]:
    """(N,) booleans: whether the image is still classified right."""
    epsilon, norm = evaluation.epsilon, evaluation.norm
    if name in AUTOATTACK_PARTS:
        return _after_autoattack(name, model, images, labels, evaluation, before)
    generator = torch.Generator(images.device).manual_seed(START_SEED)
    steps, restarts = {"pgd_10": (10, 1), "pgd_50_10": (50, 10)}.get(name, (0, 0))

    def right(x: Tensor, y: Tensor) -> Tensor:
        if name == "fgsm":
            step = epsilon * NORMS.resolve(norm).steepest(input_gradient(model, x, y))
            x = project(x + step, x, epsilon, norm)
        elif steps:
            x = pgd(model, x, y, epsilon, steps=steps, restarts=restarts, norm=norm, generator=generator)
        with torch.no_grad():
            logits: Tensor = model(x)
            return logits.argmax(dim=1) == y

    return _in_batches(right, images, labels)


def _after_autoattack(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    evaluation: EvaluationConfig,
    before: dict[str, NDArray[Any]],
) -> NDArray[Any]:
    """The images that withstood the parts of AutoAttack before, and this one."""
    from pyautoattack import AutoAttack  # a search needs none of it

    standing = list(before.values())[-1] if name != next(iter(AUTOATTACK_PARTS)) else before["clean"]
    found = standing.copy()
    if not standing.any():
        return found
    chosen = torch.from_numpy(standing).to(images.device)
    with torch.no_grad():
        num_classes = model(images[:1]).shape[1]
    attack = AutoAttack(
        model,
        norm=NORM_LABELS[evaluation.norm],
        eps=evaluation.epsilon,
        version="standard",
        device=images.device,
        seed=START_SEED,
    )
    attack.attacks_to_run = [AUTOATTACK_PARTS[name]]
    targets = min(attack.apgd_targeted.n_target_classes, num_classes - 1)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
    with torch.enable_grad():
        _, predicted = attack.run_standard_evaluation(images[chosen], labels[chosen], batch_size=BATCH_SIZE)
    found[standing] = (predicted == labels[chosen]).cpu().numpy()
    return found


def _check_classes(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        num_classes = model(images[:1]).shape[1]
    if num_classes < MIN_CLASSES:
        raise ValueError(f"AutoAttack needs {MIN_CLASSES} classes at least, but there are {num_classes}")


class _Kept:
    """Outcomes on the disk."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str) -> NDArray[Any] | None:
        file = self.folder / f"{name}.npy" if self.folder else None
        return np.load(file, allow_pickle=False) if file and file.exists() else None

    def put(self, name: str, found: NDArray[Any]) -> None:
        if self.folder:
            content = io.BytesIO()
            np.save(content, found, allow_pickle=False)
            replace_bytes(self.folder / f"{name}.npy", content.getvalue())


@contextmanager
def _seeded() -> Any:
    """AutoAttack seeds torch's global generators, and logs what `masking` says in words."""
    logger = logging.getLogger("auto-attack")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logger.setLevel(level)


def _whole(examples: Examples) -> tuple[Tensor, Tensor]:
    pixels, labels = examples.gather(torch.arange(len(examples), device=examples.images.device))
    return to_float(pixels), labels


def _in_batches(of: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> NDArray[Any]:
    pairs = zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
    return torch.cat([of(x.contiguous(memory_format=torch.channels_last), y) for x, y in pairs]).cpu().numpy()


def _is_zero(gradients: Tensor) -> Tensor:
    return (gradients == 0).flatten(1).all(dim=1)


def _mean(of: NDArray[Any]) -> float:
    return float(of.mean())
