"""Projected gradient descent within a ball, for training and for evaluation; the conventions are those of `fgsm`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_cure.attacks.attack import Attack, Step
from tune_cure.attacks.declarations import PgdDeclaration
from tune_cure.attacks.norms import project, random_start
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS, evaluation_mode
from tune_cure.gradients.input_gradients import Forward, input_gradient
from tune_cure.gradients.mixed_precision import tf32_products
from tune_cure.gradients.registry import LOSSES

PARTS = 8  # of a batch, of which `filled_up` takes a whole number


def pgd_training(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 7,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    statistics: str = "running",
    loss_scale: float = 1.0,
) -> Tensor:
    """Return adversarial images to train on, after `steps` steps of `epsilon / 4` from a random start.

    Unlike `pgd` it goes on with examples that are misclassified already: training wants a large loss, not the first
    error. `fgsm` describes the other arguments and the result.
    """
    ball = NORMS.resolve(norm)
    point = random_start(images, epsilon, generator, norm)
    with STATISTICS[statistics](model):
        for _ in range(steps):
            gradient = input_gradient(model, point, labels, loss_scale=loss_scale)
            point = project(point + epsilon / 4 * ball.steepest(gradient), images, epsilon, norm)
    return point.detach()


@dataclass(kw_only=True)
class Pgd(PgdDeclaration, Attack):
    """`attack_steps` steps of epsilon / 4 from a random start."""

    def __call__(self, step: Step) -> Tensor:
        return pgd_training(
            step.network,
            step.images,
            step.labels,
            self.epsilon,
            steps=self.attack_steps,
            norm=self.norm,
            generator=step.generator,
            statistics=self.attack_statistics,
            loss_scale=step.loss_scale,
        )


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    norm: str = "linf",
    loss: str = "cross_entropy",
    generator: torch.Generator | None = None,
    correct: Tensor | None = None,
    fill: bool | None = None,
) -> Tensor:
    """Return adversarial images by projected gradient descent from random starts that keeps the first success.

    Projected gradient descent is from Madry et al. 2018 (arXiv 1706.06083). The candidates of an example are the image
    itself and each step of each restart. The first candidate that the network misclassifies is the example's result,
    and no more work is spent on it. The accuracy on the result is therefore at most the clean accuracy, and an example
    counts as robust only if it withstood every step of every restart.

    Forward passes decide, and compute as the process is set. On CUDA gradients compute in TF32: an attack by less exact
    gradients is still an attack. benchmarks/attack_gradients.py compares accuracies by exact and by coarser gradients.

    Random starts are drawn for the whole batch in every restart, so random numbers do not depend on which examples are
    misclassified already.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        epsilon: Radius of the ball.
        steps: Gradient steps of each restart.
        step_size: Length of a step in pixel units; `epsilon / 4` if None.
        restarts: Random starts.
        norm: Norm of the ball.
        loss: Name of the loss that is ascended, one of `gradients.registry.LOSSES`.
        generator: Source of the random starts, on the images' device.
        correct: (N,) booleans: the network classifies the image right; None if that is not known yet.
        fill: Fill batches up to a multiple of an eighth of the images, because cuDNN plans each new size anew; None
            does so on CUDA.

    Returns:
        (N, C, H, W) adversarial images in the ball, detached: a misclassified one where one was found, else the last
        point of the last restart.
    """
    ball = NORMS.resolve(norm)
    step_size = epsilon / 4 if step_size is None else step_size
    fill = images.is_cuda if fill is None else fill
    result = images.detach().clone()
    indices = torch.arange(len(images), device=images.device)
    with evaluation_mode(model):
        # Examples that are not misclassified yet. Choosing them waits for the device, so their number is known.
        remaining = indices[_still_correct(model, images, labels) if correct is None else correct]
        for restart in range(restarts):
            start = random_start(images, epsilon, generator, norm)
            if restart and len(remaining):
                rows = filled_up(remaining, len(images)) if fill else remaining
                remaining = remaining[_still_correct(model, result[rows], labels[rows])[: len(remaining)]]
            result[remaining] = start[remaining]
            for _ in range(steps):
                if not len(remaining):
                    break
                rows = filled_up(remaining, len(images)) if fill else remaining
                points, targets, count = result[rows], labels[rows], len(remaining)
                logits, gradient = _logits_and_gradient(model, points, targets, loss)
                step = step_size * ball.steepest(gradient[:count])
                point = project(points[:count] + step, images[remaining], epsilon, norm)
                right = logits[:count].argmax(dim=1) == targets[:count]
                remaining = remaining[right]
                result[remaining] = point[right]
    return result


def filled_up(rows: Tensor, most: int) -> Tensor:
    """Return rows that begin with the given ones, and whose number is one of `PARTS` multiples of a part of `most`.

    The first row is repeated to fill them up. No example of a batch depends on the others in evaluation mode.

    Args:
        rows: (N,) indices, at least one.
        most: The largest number of rows; it is itself one of the multiples.
    """
    part = -(-most // PARTS)
    size = min(most, -(-len(rows) // part) * part)
    return torch.cat([rows, rows[:1].expand(size - len(rows))])


def _logits_and_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Return the network's logits (N, K) and the input gradient (N, C, H, W), on CUDA in TF32."""
    forward = Forward.of(model, images)
    with tf32_products():
        gradient = forward.gradient(labels, loss=LOSSES.resolve(loss))
    return forward.logits, gradient


@torch.no_grad()
def _still_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return (N,) booleans: the network's prediction is the label."""
    correct: Tensor = model(images).argmax(dim=1) == labels
    return correct
