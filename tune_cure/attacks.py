"""Attacks within a ball: pure functions from (model, images, labels, epsilon) to adversarial images.

Images are floats in [0, 1]; `epsilon`, the ball's radius in `norm` (a key of `norms.NORMS`), and every step are in the
same pixel units. The ball is intersected with [0, 1].
The model runs in evaluation mode whatever mode it comes in, so that batch-norm statistics are left alone and the
examples of a batch are attacked independently; training attacks can be asked to take the batch's statistics instead.
The mode, the parameters' gradients and the images are left as found.
"""

import torch
from torch import Tensor, nn

from tune_cure.gradients import LOSSES, STATISTICS, evaluation_mode, input_gradient, logits_and_input_gradient
from tune_cure.norms import NORMS, broadcast, project, random_start

INITS = ("uniform", "zero", "previous", "noise")


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    alpha: float = 1.25,
    init: str = "uniform",
    norm: str = "linf",
    generator: torch.Generator | None = None,
    noise: float = 2.0,
    previous: Tensor | None = None,
    zero_fraction: float = 0.0,
    statistics: str = "running",
    loss_scale: float = 1.0,
    at_start: Tensor | None = None,
) -> Tensor:
    """The fast gradient sign method, by default with a random start (Wong et al. 2020, arXiv 2001.03994, algorithm 3).

    Two deviations: a start in the ball is clipped to [0, 1] before its gradient is taken, and batch norm is by default
    in evaluation mode. In L2 the step is along the gradient itself, not its sign.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        epsilon: Radius of the ball.
        alpha: Step size as a multiple of `epsilon`.
        init: `uniform` starts at a random point of the ball, `zero` at the image, `previous` at the image plus
            `previous`; `noise` at the image plus uniform noise of `noise` × epsilon, and neither clips nor projects but
            to [0, 1] (N-FGSM: de Jorge et al. 2022, arXiv 2202.01181, with alpha 1).
        generator: Source of the random start, on the images' device.
        norm: Of the ball.
        noise: Radius of that noise, as a multiple of `epsilon`.
        previous: (N, C, H, W) perturbations to start from.
        zero_fraction: Of the entries of each example's gradient, the smallest so many stand still (ZeroGrad: Golgooni
            et al. 2021, arXiv 2103.15476).
        statistics: What batch norm normalises by, a key of `gradients.STATISTICS`. With `batch` the examples of a batch
            are attacked together, as in the code of Wong et al. (which also records the statistics).
        loss_scale: See `gradients.logits_and_input_gradient`.
        at_start: (N, C, H, W) gradients at the images, if they are known already; with init `zero` only.

    Returns:
        (N, C, H, W) adversarial images in [0, 1], and in the ball but for `noise`; detached.
    """
    ball = NORMS[norm]
    if init == "zero":
        start = images
    elif init == "uniform":
        start = random_start(images, epsilon, generator, norm)
    elif init == "noise":
        start = images + ball.noise(images, noise * epsilon, generator)
    else:
        assert previous is not None, "init previous needs the perturbations to start from"
        start = project(images + previous, images, epsilon, norm)
    if at_start is None:
        with STATISTICS[statistics](model):
            at_start = input_gradient(model, start, labels, loss_scale=loss_scale)
    gradient = at_start
    if zero_fraction > 0:
        sizes = gradient.abs().flatten(1)
        threshold = sizes.kthvalue(max(1, int(zero_fraction * sizes.shape[1])), dim=1).values
        gradient = gradient.where(gradient.abs() > broadcast(threshold), 0.0)
    moved = start + alpha * epsilon * ball.steepest(gradient)
    return (moved.clamp(0.0, 1.0) if init == "noise" else project(moved, images, epsilon, norm)).detach()


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
    """Adversarial images to train on: `steps` steps of `epsilon / 4` from a random start, every one of them.

    Unlike `pgd` it goes on with examples that are misclassified already: training wants a large loss, not the first
    error. Arguments and result as of `fgsm`.
    """
    ball = NORMS[norm]
    point = random_start(images, epsilon, generator, norm)
    with STATISTICS[statistics](model):
        for _ in range(steps):
            gradient = input_gradient(model, point, labels, loss_scale=loss_scale)
            point = project(point + epsilon / 4 * ball.steepest(gradient), images, epsilon, norm)
    return point.detach()


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
) -> Tensor:
    """Projected gradient descent from random starts (Madry et al. 2018, arXiv 1706.06083) that keeps what it broke.

    The unperturbed image is the first candidate and each step of each restart the next: the first candidate that the
    network misclassifies is that example's answer, and no more work is spent on it. So the accuracy on the result is
    at most the clean accuracy, and an example counts as robust only if it withstood every step of every restart.
    The random starts are drawn for the whole batch, and of every restart, hence neither they nor what is drawn after
    them depend on which examples are still unbroken.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        epsilon: Radius of the ball.
        steps: Gradient steps of each restart.
        step_size: Length of a step in pixel units; `epsilon / 4` if None.
        restarts: Random starts.
        norm: Of the ball.
        loss: What is ascended, a key of `gradients.LOSSES`.
        generator: Source of the random starts, on the images' device.
        correct: (N,) booleans, which of the images the network classifies right, if that is known already.

    Returns:
        (N, C, H, W) adversarial images in the ball, detached: a misclassified one where one was found, else the last
        point of the last restart.
    """
    ball = NORMS[norm]
    step_size = epsilon / 4 if step_size is None else step_size
    result = images.detach().clone()
    everyone = torch.arange(len(images), device=images.device)
    with evaluation_mode(model):
        # The examples that nothing has broken yet. Choosing them waits for the device, so their number is known.
        standing = everyone[_still_correct(model, images, labels) if correct is None else correct]
        for restart in range(restarts):
            start = random_start(images, epsilon, generator, norm)
            if restart and len(standing):
                standing = standing[_still_correct(model, result[standing], labels[standing])]
            result[standing] = start[standing]
            for _ in range(steps):
                if not len(standing):
                    break
                point, target = result[standing], labels[standing]
                logits, gradient = logits_and_input_gradient(model, point, target, loss=LOSSES[loss])
                point = project(point + step_size * ball.steepest(gradient), images[standing], epsilon, norm)
                right = logits.argmax(dim=1) == target
                standing = standing[right]
                result[standing] = point[right]
    return result


@torch.no_grad()
def _still_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) booleans: the network's prediction is the label."""
    correct: Tensor = model(images).argmax(dim=1) == labels
    return correct
