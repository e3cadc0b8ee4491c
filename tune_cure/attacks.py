"""Attacks in the L-infinity ball: pure functions from (model, images, labels, epsilon) to adversarial images.

Images are floats in [0, 1]; `epsilon` and every step are in the same pixel units. The ball is intersected with [0, 1].
The model runs in evaluation mode whatever mode it comes in, so that batch-norm statistics are left alone and the
examples of a batch are attacked independently. The mode, the parameters' gradients and the images are left as found.
"""

import torch
from torch import Tensor, nn

from tune_cure.gradients import evaluation_mode, input_gradient, logits_and_input_gradient

INITS = ("uniform", "zero", "previous", "noise")


def project(adversarial: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """The point nearest to `adversarial` within `epsilon` of `images` (L-infinity) and within [0, 1]."""
    return torch.clamp(torch.minimum(torch.maximum(adversarial, images - epsilon), images + epsilon), 0.0, 1.0)


def uniform_noise(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """Of the shape of `images`, drawn uniformly from [−epsilon, epsilon]."""
    noise = torch.rand(images.shape, device=images.device, dtype=images.dtype, generator=generator)
    return epsilon * (2.0 * noise - 1.0)


def uniform_start(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """Points drawn uniformly from the L-infinity ball around `images`, clipped to [0, 1]."""
    return torch.clamp(images + uniform_noise(images, epsilon, generator), 0.0, 1.0)


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    alpha: float = 1.25,
    init: str = "uniform",
    generator: torch.Generator | None = None,
    noise: float = 2.0,
    previous: Tensor | None = None,
    zero_fraction: float = 0.0,
    loss_scale: float = 1.0,
) -> Tensor:
    """The fast gradient sign method, by default with a random start (Wong et al. 2020, arXiv 2001.03994, algorithm 3).

    Two deviations: a start in the ball is clipped to [0, 1] before its gradient is taken, and batch norm is in
    evaluation mode.

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
        noise: Half-width of that noise, as a multiple of `epsilon`.
        previous: (N, C, H, W) perturbations to start from.
        zero_fraction: Of the entries of each example's gradient, the smallest so many stand still (ZeroGrad: Golgooni
            et al. 2021, arXiv 2103.15476).
        loss_scale: See `gradients.logits_and_input_gradient`.

    Returns:
        (N, C, H, W) adversarial images in [0, 1], and in the ball but for `noise`; detached.
    """
    if init == "zero":
        start = images
    elif init == "uniform":
        start = uniform_start(images, epsilon, generator)
    elif init == "noise":
        start = images + uniform_noise(images, noise * epsilon, generator)
    else:
        assert previous is not None, "init previous needs the perturbations to start from"
        start = project(images + previous, images, epsilon)
    with evaluation_mode(model):
        gradient = input_gradient(model, start, labels, loss_scale=loss_scale)
    step = gradient.sign()
    if zero_fraction > 0:
        sizes = gradient.abs().flatten(1)
        threshold = sizes.kthvalue(max(1, int(zero_fraction * sizes.shape[1])), dim=1).values
        step = step.where(gradient.abs() > threshold.view(-1, 1, 1, 1), 0.0)
    moved = start + alpha * epsilon * step
    return (moved.clamp(0.0, 1.0) if init == "noise" else project(moved, images, epsilon)).detach()


def pgd_training(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 7,
    generator: torch.Generator | None = None,
    loss_scale: float = 1.0,
) -> Tensor:
    """Adversarial images to train on: `steps` signed steps of `epsilon / 4` from a random start, every one of them.

    Unlike `pgd` it goes on with examples that are misclassified already: training wants a large loss, not the first
    error. Arguments and result as of `fgsm`.
    """
    point = uniform_start(images, epsilon, generator)
    with evaluation_mode(model):
        for _ in range(steps):
            gradient = input_gradient(model, point, labels, loss_scale=loss_scale)
            point = project(point + epsilon / 4 * gradient.sign(), images, epsilon)
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
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient descent from random starts (Madry et al. 2018, arXiv 1706.06083) that keeps what it broke.

    The unperturbed image is the first candidate and each step of each restart the next: the first candidate that the
    network misclassifies is that example's answer, and no more work is spent on it. So the accuracy on the result is
    at most the clean accuracy, and an example counts as robust only if it withstood every step of every restart.
    The random starts are drawn for the whole batch, hence do not depend on which examples are still unbroken.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        epsilon: Radius of the ball.
        steps: Signed gradient steps of each restart.
        step_size: Length of a step in pixel units; `epsilon / 4` if None.
        restarts: Random starts.
        generator: Source of the random starts, on the images' device.

    Returns:
        (N, C, H, W) adversarial images in the ball, detached: a misclassified one where one was found, else the last
        point of the last restart.
    """
    step_size = epsilon / 4 if step_size is None else step_size
    result = images.detach().clone()
    standing = torch.arange(len(images), device=images.device)  # the examples that nothing has broken yet
    with evaluation_mode(model):
        for _ in range(restarts):
            standing = standing[_still_correct(model, result[standing], labels[standing])]
            result[standing] = uniform_start(images, epsilon, generator)[standing]
            for _ in range(steps):
                point, target = result[standing], labels[standing]
                logits, gradient = logits_and_input_gradient(model, point, target)
                point = project(point + step_size * gradient.sign(), images[standing], epsilon)
                correct = logits.argmax(dim=1) == target
                standing = standing[correct]
                result[standing] = point[correct]
    return result


@torch.no_grad()
def _still_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) booleans: the network's prediction is the label."""
    correct: Tensor = model(images).argmax(dim=1) == labels
    return correct
