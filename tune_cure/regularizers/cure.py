"""The CURE penalty (Moosavi-Dezfooli et al. 2019, arXiv 1811.09716) and the directions it is taken along."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_cure.attacks.fmn import fmn
from tune_cure.attacks.norms import broadcast, lengths, nonzero, project, unit
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS, mixes_examples
from tune_cure.gradients.input_gradients import Forward, input_gradient
from tune_cure.regularizers.declarations import CureDeclaration
from tune_cure.regularizers.directions import DIRECTIONS
from tune_cure.regularizers.regularizer import PenaltyStep, Regularizer

MINIMUM_NORM_STEPS = 5


@dataclass(frozen=True)
class Point:
    """Input of a direction: the image, its gradient and the lengths asked for.

    Attributes:
        model: The network, in the mode that the penalty is taken in.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        gradient: (N, C, H, W) gradient of each example's loss at `images`, detached.
        h: The L2 length that is asked for, in pixel units.
        epsilon: Radius of the ball around `images`.
        norm: Norm of the ball, a name of `NORMS`.
        adversarial: (N, C, H, W) adversarial images of the training step; None if it has none.
        generator: Source of randomness, on the images' device.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    gradient: Tensor
    h: float
    epsilon: float
    norm: str
    adversarial: Tensor | None
    generator: torch.Generator | None


def classic(point: Point) -> Tensor:
    """Return h · sign(g) / ‖sign(g)‖₂, the paper's equation 6; z = 0 where a gradient is exactly zero."""
    return point.h * unit(point.gradient.sign())


def gradient(point: Point) -> Tensor:
    """Return h · g / ‖g‖₂, the steepest ascent in L2; z = 0 where a gradient is exactly zero."""
    return point.h * unit(point.gradient)


def random(point: Point) -> Tensor:
    """Draw a displacement uniformly from the ball of radius epsilon, whatever h is."""
    return NORMS.resolve(point.norm).noise(point.images, point.epsilon, point.generator)


def fgsm(point: Point) -> Tensor:
    """Return the displacement to the adversarial image of the training step, whatever h is.

    Raises:
        ValueError: The training step has no adversarial images.
    """
    if point.adversarial is None:
        raise ValueError("direction fgsm needs the adversarial examples of an attack, but attack is none")
    return (point.adversarial - point.images).detach()


def linf(point: Point) -> Tensor:
    """Return the displacement to an adversarial image nearby in L-infinity (FMN, five steps), clipped to the ball."""
    nearest = fmn(point.model, point.images, point.labels, steps=MINIMUM_NORM_STEPS)
    return project(nearest, point.images, point.epsilon, point.norm) - point.images


def cure_penalty(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    h: float,
    *,
    direction: str = "classic",
    generator: torch.Generator | None = None,
    epsilon: float = 8 / 255,
    norm: str = "linf",
    adversarial: Tensor | None = None,
    squared: bool = False,
    divide_by_h: bool = False,
    two_sided: bool = True,
    statistics: str = "running",
    loss_scale: float = 1.0,
    clean_grad: Tensor | None = None,
    adversarial_forward: Forward | None = None,
) -> Tensor:
    """Return ‖∇ₓℓ(x + z) − ∇ₓℓ(x)‖₂ of each example, differentiable with respect to the parameters.

    One gradient at x serves both for the direction z and for the difference. z is held constant when the penalty is
    differentiated. Deviations from the paper's equation 5: by default the norm is not squared and the factor 1/h² is
    left to lambda (both as in the authors' code); x + z is not clipped to [0, 1], since the penalty is a finite
    difference of the gradient field. Batch norm's running statistics are left alone.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        h: L2 length of z in pixel units; on 3×32×32 images, 1.739 moves every pixel by 8/255.
        direction: A name of `DIRECTIONS`.
        generator: Source of randomness of the directions that need one.
        epsilon: Radius of the ball, for the directions that stay in it.
        norm: Norm of the ball.
        adversarial: (N, C, H, W) adversarial images, for the direction that uses them.
        squared: Return the square of the norm.
        divide_by_h: Divide the gradients' difference by the length of z, so that the penalty estimates the Hessian
            along a unit direction instead of growing with h.
        two_sided: Differentiate ∇ₓℓ(x) too. If false, it is a constant: cheaper, and a different parameter gradient.
        statistics: What batch norm normalizes by, a key of `batch_norm_mode.STATISTICS`. With `batch` the examples are
            not independent: each gets the gradient, at its own pixels, of the loss of the whole batch.
        loss_scale: See `gradients.input_gradients.logits_and_input_gradient`.
        clean_grad: (N, C, H, W) gradients at the images, if they are known already: with these statistics, and with
            their graph if `two_sided`.
        adversarial_forward: The forward pass at `adversarial` with these statistics; None if there was none. Direction
            fgsm leads to that point and takes the pass over.

    Returns:
        (N,) penalties, before lambda. Exactly 0 where z = 0; with the batch's statistics, an image of z = 0 has a
        penalty if others are displaced. Not finite where an fp16 gradient overflowed.
    """
    with STATISTICS[statistics](model):
        if clean_grad is None:
            clean_grad = input_gradient(model, images, labels, create_graph=two_sided, loss_scale=loss_scale)
        point = Point(model, images, labels, clean_grad.detach(), h, epsilon, norm, adversarial, generator)
        z = DIRECTIONS.resolve(direction)(point)
        displaced = (
            adversarial_forward
            if adversarial_forward and direction == "fgsm"
            else Forward.of(model, images + z, twice=True)
        )
        displaced_grad = displaced.gradient(labels, create_graph=True, loss_scale=loss_scale)
        mixes = mixes_examples(model)
    distance = broadcast(lengths(z))
    stays = (distance == 0).all() if mixes else distance == 0
    # Two passes at one point can differ in their last bits. The gradient of a norm has length 1, however small that is.
    difference = (displaced_grad - clean_grad).masked_fill(stays, 0.0)
    if divide_by_h:
        difference = difference / nonzero(distance)
    return difference.square().sum(dim=(1, 2, 3)) if squared else lengths(difference)


@dataclass(kw_only=True)
class Cure(CureDeclaration, Regularizer):
    """CURE: how much the input gradient changes along `direction`."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return cure_penalty(
            step.network,
            step.images,
            step.labels,
            self.h,
            direction=self.direction,
            generator=step.generator,
            epsilon=self.epsilon,
            norm=self.norm,
            adversarial=step.adversarial,
            squared=self.penalty_squared,
            divide_by_h=self.penalty_divide_by_h,
            two_sided=self.penalty_two_sided,
            statistics=self.penalty_statistics,
            loss_scale=step.loss_scale,
            clean_grad=step.clean_grad,
            adversarial_forward=step.adversarial_forward,
        )

    @property
    def takes_clean_grad(self) -> bool:
        return True

    @property
    def takes_adversarial_forward(self) -> bool:
        return self.direction == "fgsm"
