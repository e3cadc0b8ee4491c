"""Robustness of a network on test images, image by image: PGD with restarts, and AutoAttack.

AutoAttack is the standard version of Croce and Hein 2020 (arXiv 2003.01690), from the package pyautoattack.
"""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_cure.attacks.norms import project
from tune_cure.attacks.pgd import pgd
from tune_cure.attacks.registry import NORMS
from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.evaluation.autoattack_version import installed_version, is_version, join_versions
from tune_cure.evaluation.config import EvaluationConfig, StricterEvaluation
from tune_cure.evaluation.metrics import BATCH_SIZE, START_SEED, evaluate, exact_evaluation
from tune_cure.evaluation.names import AUTOATTACK_PARTS, NORM_LABELS, judging_attacks
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import replace_bytes, replace_text
from tune_cure.utils.seeding import kept_global_state

_logger = logging.getLogger(__name__)

PGD_ATTACKS = {"pgd_10": (10, 1), "pgd_50_10": (50, 10)}
"""Steps and random starts of the PGD attacks."""
JUDGED = ("clean_accuracy", "clean_accuracy_se", "pgd_accuracy", "pgd_accuracy_se")
"""Keys of `judge`."""


def evaluate_robustness(
    model: nn.Module,
    examples: Examples,
    evaluation: EvaluationConfig,
    *,
    autoattack: bool = True,
    folder: Path | None = None,
    on_progress: Callable[[str, float], None] = lambda name, accuracy: None,
) -> Outcomes:
    """Attack a network in float32 and evaluation mode, with fixed seeds.

    Args:
        model: Network from images in [0, 1] to logits, on the examples' device.
        examples: The images, all of which are used.
        evaluation: The threat model: its norm and its epsilon. The rest has no effect.
        autoattack: Run AutoAttack. With fewer than 10 classes, its targeted attacks aim at all other classes. With
            fewer than `names.MIN_TARGETED_CLASSES` these are left out, and APGD-CE and Square remain.
        folder: Folder in which the outcome of each attack is saved once it is known. A second call continues after
            the last saved attack. None saves nothing.
        on_progress: Function called after each attack with its name and the accuracy under it.
    """
    saved = _SavedOutcomes(folder, len(examples))
    with exact_evaluation(model), _isolated_autoattack(examples.images.device):
        images, labels = _all_images(examples)
        correct: dict[str, NDArray[Any]] = {}
        for name in judging_attacks(_num_classes(model, images), autoattack=autoattack):
            outcome = saved.read(name)
            if outcome is None:
                outcome = _run_attack(name, model, images, labels, evaluation, correct)
                saved.write(name, outcome)
            correct[name] = outcome
            on_progress(name, float(outcome.mean()))
        is_zero = _in_batches(lambda x, y: _is_zero(input_gradient(model, x, y)), images, labels)
    version = join_versions(saved.read_version(name) for name in correct if name in AUTOATTACK_PARTS)
    return Outcomes(correct, float(is_zero.mean()), version)


def evaluate_under(
    attack: str, model: nn.Module, examples: Examples, evaluation: EvaluationConfig
) -> dict[str, NDArray[Any]]:
    """Attack a network by a part of AutoAttack alone, or by all of it, in float32 and evaluation mode.

    Args:
        attack: `autoattack` for all parts, or another key of `AUTOATTACK_PARTS` for this part by itself.
        model: Network from images in [0, 1] to logits, on the examples' device.
        examples: The images, all of which are used.
        evaluation: The threat model: its norm and its epsilon. The rest has no effect.

    Returns:
        (N,) booleans for `clean` and for each attack that ran: whether each image is still classified correctly.
    """
    with exact_evaluation(model), _isolated_autoattack(examples.images.device):
        images, labels = _all_images(examples)
        judging = judging_attacks(_num_classes(model, images), autoattack=True)
        parts = [name for name in judging if name in AUTOATTACK_PARTS] if attack == "autoattack" else [attack]
        correct: dict[str, NDArray[Any]] = {}
        for name in ("clean", *parts):
            correct[name] = _run_attack(name, model, images, labels, evaluation, correct)
    return correct


def judge(model: nn.Module, examples: Examples, evaluation: StricterEvaluation) -> dict[str, float]:
    """Return clean accuracy and the accuracy under the attack of `evaluation`, each with its binomial standard error.

    Args:
        model: Network from images in [0, 1] to logits, on the examples' device.
        examples: The images, all of which are used.
        evaluation: The threat model and the attack.

    Returns:
        clean_accuracy and pgd_accuracy, fractions of all `examples`, whichever the attack; with `_se` their errors.
    """
    if evaluation.attack == "pgd":
        metrics = evaluate(model, examples, evaluation)
        return {name: metrics[name] for name in JUDGED}
    outcomes = evaluate_under(evaluation.attack, model, examples, evaluation)
    accuracies = {"clean_accuracy": outcomes["clean"], "pgd_accuracy": outcomes[evaluation.attack]}
    means = {name: float(correct.mean()) for name, correct in accuracies.items()}
    return means | {f"{name}_se": standard_error(mean, len(examples)) for name, mean in means.items()}


def _run_attack(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    evaluation: EvaluationConfig,
    correct: dict[str, NDArray[Any]],
) -> NDArray[Any]:
    """Return (N,) booleans: whether each image is classified correctly under the attack.

    Args:
        name: One of `ATTACKS`.
        model: The network.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        evaluation: The threat model.
        correct: Outcomes of the attacks before this one.
    """
    epsilon, norm = evaluation.epsilon, evaluation.norm
    if name in AUTOATTACK_PARTS:
        return _run_autoattack_part(name, model, images, labels, evaluation, correct)
    generator = torch.Generator(images.device).manual_seed(START_SEED)

    def is_correct(x: Tensor, y: Tensor) -> Tensor:
        if name == "fgsm":
            step = epsilon * NORMS[norm].steepest(input_gradient(model, x, y))
            x = project(x + step, x, epsilon, norm)
        elif name in PGD_ATTACKS:
            steps, restarts = PGD_ATTACKS[name]
            x = pgd(model, x, y, epsilon, steps=steps, restarts=restarts, norm=norm, generator=generator)
        with torch.no_grad():
            logits: Tensor = model(x)
            return logits.argmax(dim=1) == y

    return _in_batches(is_correct, images, labels)


def _run_autoattack_part(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    evaluation: EvaluationConfig,
    correct: dict[str, NDArray[Any]],
) -> NDArray[Any]:
    """Return (N,) booleans: whether each image withstood this part of AutoAttack and those before it.

    Arguments are those of `_run_attack`.
    """
    from pyautoattack import AutoAttack  # here, because a search needs none of it

    is_first = name == next(iter(AUTOATTACK_PARTS))
    withstood = correct["clean"] if is_first else list(correct.values())[-1]
    outcome = withstood.copy()
    if not withstood.any():
        return outcome
    attacked = torch.from_numpy(withstood).to(images.device)
    attack = AutoAttack(
        model,
        norm=NORM_LABELS[evaluation.norm],
        eps=evaluation.epsilon,
        version="standard",
        device=images.device,
        seed=START_SEED,
    )
    attack.attacks_to_run = [AUTOATTACK_PARTS[name]]
    num_targets = min(attack.apgd_targeted.n_target_classes, _num_classes(model, images) - 1)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = num_targets
    with torch.enable_grad(), keep_trace_function(), constant_parameters(model):
        _, predicted = attack.run_standard_evaluation(images[attacked], labels[attacked], batch_size=BATCH_SIZE)
    outcome[withstood] = (predicted == labels[attacked]).cpu().numpy()
    return outcome


@contextmanager
def constant_parameters(model: nn.Module) -> Iterator[None]:
    """Compute no gradients of the parameters: FAB would add them up, which nobody needs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def keep_trace_function() -> Iterator[None]:
    """Turn off AutoAttack's check of whether a network computes gradients while it predicts.

    The check only logs a warning, but it replaces the trace function of a debugger or of a coverage run and then
    removes it: no breakpoint is reached afterwards.
    """
    from pyautoattack import checks

    check = checks.check_dynamic
    checks.check_dynamic = lambda *_, **__: None
    try:
        yield
    finally:
        checks.check_dynamic = check


def _num_classes(model: nn.Module, images: Tensor) -> int:
    with torch.no_grad():
        logits: Tensor = model(images[:1])
    return logits.shape[1]


class _SavedOutcomes:
    """Outcomes of attacks as files in a folder, one for each attack; without a folder, none are saved.

    Beside the outcome of each part of AutoAttack lies the version of its package.
    """

    def __init__(self, folder: Path | None, num_images: int) -> None:
        self.folder, self.num_images = folder, num_images
        self.versions: dict[str, str] = {}  # of the parts of AutoAttack that were run, and not read

    def read(self, name: str) -> NDArray[Any] | None:
        """Return the saved outcome of an attack; None if there is none, or none that can be read: it is made anew."""
        file = self.folder / f"{name}.npy" if self.folder else None
        if file is None or not file.exists():
            return None
        try:
            outcome: NDArray[Any] = np.load(file, allow_pickle=False)
            if outcome.dtype == bool and outcome.shape == (self.num_images,):
                return outcome
            _logger.warning("%s: holds no outcomes of %d images, and is made anew", file, self.num_images)
        except Exception as error:  # a damaged file makes numpy raise errors of any kind
            _logger.warning("%s: is damaged (%s), and is made anew", file, first_line(error))
        return None

    def read_version(self, name: str) -> str:
        """Return the version of AutoAttack's package that ran a part; empty if that is not known."""
        if name in self.versions:
            return self.versions[name]
        file = self.folder / f"{name}.version" if self.folder else None
        text = file.read_text(encoding="utf-8", errors="replace") if file and file.exists() else ""
        return text if is_version(text) else ""

    def write(self, name: str, outcome: NDArray[Any]) -> None:
        if name in AUTOATTACK_PARTS:
            self.versions[name] = installed_version()
        if self.folder:
            if name in self.versions:  # before the outcome: nobody may take it for that of another version
                replace_text(self.folder / f"{name}.version", self.versions[name])
            content = io.BytesIO()
            np.save(content, outcome, allow_pickle=False)
            replace_bytes(self.folder / f"{name}.npy", content.getvalue())


@contextmanager
def _isolated_autoattack(device: torch.device) -> Iterator[None]:
    """Restore torch's global random states of the CPU and of `device`, which AutoAttack seeds, and silence its log.

    AutoAttack logs warnings about masked gradients; `gradient_masking` says the same in this project's words.
    """
    logger = logging.getLogger("auto-attack")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with kept_global_state(device):
            yield
    finally:
        logger.setLevel(level)


def _all_images(examples: Examples) -> tuple[Tensor, Tensor]:
    """Return (N, C, H, W) float32 images in [0, 1] and (N,) labels."""
    pixels, labels = examples.gather(torch.arange(len(examples), device=examples.images.device))
    return to_float(pixels), labels


def _in_batches(function: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> NDArray[Any]:
    """Return the values (N,) of a function of images and labels, computed batch by batch."""
    pairs = zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
    values = [function(x.contiguous(memory_format=torch.channels_last), y) for x, y in pairs]
    return torch.cat(values).cpu().numpy()


def _is_zero(gradients: Tensor) -> Tensor:
    """Return (N,) booleans: whether the gradient (C, H, W) of each image is zero everywhere."""
    return (gradients == 0).flatten(1).all(dim=1)
