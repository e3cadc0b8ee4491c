"""Attacks within a ball: pure functions from (model, images, labels, epsilon) to adversarial images.

Images are floats in [0, 1]; `epsilon`, the ball's radius in `norm` (a key of `norms.NORMS`), and every step are in the
same pixel units. The ball is intersected with [0, 1].
The model runs in evaluation mode whatever mode it comes in, so that batch-norm statistics are left alone and the
examples of a batch are attacked independently; training attacks can be asked to take the batch's statistics instead.
The mode, the parameters' gradients and the images are left as found.
"""

import torch
from torch import Tensor, nn

from tune_cure.attacks.norms import NORMS, broadcast, project, random_start
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient

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
    ball = NORMS.resolve(norm)
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
