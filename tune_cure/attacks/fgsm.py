"""The fast gradient sign method: a pure function from (model, images, labels, epsilon) to adversarial images.

Images are floats in [0, 1]. `epsilon`, the ball's radius in `norm` (a name of `NORMS`), and every step are in the
same pixel units. The ball is intersected with [0, 1].
By default the model runs in evaluation mode, whatever mode it comes in. Batch norm's running statistics then stay as
they are, and the examples of a batch are attacked independently. Training attacks can take the batch's statistics
instead. The model's mode, the parameters' gradients and the images are left as they were.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.attacks.attack import Attack, Step
from tune_cure.attacks.declarations import NOISES, FgsmDeclaration, ZeroGradDeclaration
from tune_cure.attacks.norms import broadcast, project, random_start
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import Forward, Loss, cross_entropy, logits_and_input_gradient


def start_point(
    images: Tensor,
    epsilon: float,
    *,
    init: str,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    noise: float = 2.0,
    previous: Tensor | None = None,
) -> Tensor:
    """Return the (N, C, H, W) points from which `fgsm` takes its step; `fgsm` describes the arguments."""
    if init == "zero":
        return images
    if init == "uniform":
        return random_start(images, epsilon, generator, norm)
    if init in NOISES:
        start = images + NORMS.resolve(norm).noise(images, noise * epsilon, generator)
        return start if init == "noise" else start.clamp(0.0, 1.0)
    if init == "bernoulli":
        signs = torch.randint(0, 2, images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return project(images + epsilon * (signs - 0.5), images, epsilon, norm)
    assert previous is not None, "init previous needs the perturbations to start from"
    return project(images + previous, images, epsilon, norm)


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    alpha: float = 1.25,
    step_size: float | None = None,
    init: str = "uniform",
    norm: str = "linf",
    generator: torch.Generator | None = None,
    noise: float = 2.0,
    previous: Tensor | None = None,
    zero_fraction: float = 0.0,
    statistics: str = "running",
    loss_scale: float = 1.0,
    loss: Loss = cross_entropy,
    start: Tensor | None = None,
    start_grad: Tensor | None = None,
) -> Tensor:
    """Return the images after one gradient step within a ball.

    This is the fast gradient sign method, by default with a random start (Wong et al. 2020, arXiv 2001.03994, algorithm
    3). Deviations: a start in the ball is clipped to [0, 1] before its gradient is taken, and batch norm is by default
    in evaluation mode. In L2 the step is along the gradient itself, not its sign.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        epsilon: Radius of the ball.
        alpha: Step size as a multiple of `epsilon`.
        step_size: Step size in pixel units, in the place of `alpha`.
        init: `uniform` starts at a random point of the ball, `zero` at the image, `previous` at the image plus
            `previous`; `noise` at the image plus uniform noise of `noise` × epsilon, and neither clips nor projects but
            to [0, 1] in the end; `clipped_noise` at the same point clipped to [0, 1], as the code of N-FGSM does (de
            Jorge et al. 2022, arXiv 2202.01181, with alpha 1); `bernoulli` at the image plus or minus epsilon / 2 in
            each pixel, projected into the ball (Sriramanan et al. 2020, arXiv 2011.14969).
        norm: Norm of the ball.
        generator: Source of the random start, on the images' device.
        noise: Radius of the noise of init `noise` and `clipped_noise`, as a multiple of `epsilon`.
        previous: (N, C, H, W) perturbations to start from.
        zero_fraction: Share of the entries of each example's gradient, the smallest ones, along which nothing moves
            (ZeroGrad: Golgooni et al. 2021, arXiv 2103.15476). Their number is rounded down.
        statistics: What batch norm normalizes by, a key of `batch_norm_mode.STATISTICS`. With `batch` the examples of a
            batch are attacked together, as in the code of Wong et al. (which also records the statistics).
        loss_scale: See `gradients.input_gradients.logits_and_input_gradient`.
        loss: From (N, K) logits and (N,) labels to the (N,) losses whose sum is ascended.
        start: (N, C, H, W) points to start from, in the place of what `init` says.
        start_grad: (N, C, H, W) gradients at the start where they are known already.

    Returns:
        (N, C, H, W) adversarial images, detached: in [0, 1], and in the ball unless init is one of `NOISES`.
    """
    ball = NORMS.resolve(norm)
    if start is None:
        start = start_point(images, epsilon, init=init, norm=norm, generator=generator, noise=noise, previous=previous)
    if start_grad is None:
        with STATISTICS[statistics](model):
            _, start_grad = logits_and_input_gradient(model, start, labels, loss=loss, loss_scale=loss_scale)
    gradient = start_grad
    num_zeroed = int(zero_fraction * gradient[0].numel())
    if num_zeroed:
        threshold = gradient.abs().flatten(1).kthvalue(num_zeroed, dim=1).values
        gradient = gradient.where(gradient.abs() > broadcast(threshold), 0.0)
    moved = start + (alpha * epsilon if step_size is None else step_size) * ball.steepest(gradient)
    return (moved.clamp(0.0, 1.0) if init in NOISES else project(moved, images, epsilon, norm)).detach()


@dataclass(kw_only=True)
class Fgsm(FgsmDeclaration, Attack):
    """One step of alpha × epsilon (or step_size) from `init`."""

    previous: Tensor | None = field(default=None, init=False)
    start_logits: Tensor | None = field(default=None, init=False, repr=False)  # (N, K) of the last step, if known

    def __call__(self, step: Step) -> Tensor:
        return self._attack(step)

    def _attack(self, step: Step, *, zero_fraction: float = 0.0, loss: Loss = cross_entropy) -> Tensor:
        images = step.images
        if self.init == "previous" and self.previous is None:
            self.previous = torch.zeros_like(images)
        self.start = start_point(
            images,
            self.epsilon,
            init=self.init,
            norm=self.norm,
            generator=step.generator,
            noise=self.noise,
            previous=None if self.previous is None else self.previous[: len(images)],
        )
        adversarial = self._advance(step, self._start_gradient(step, loss), zero_fraction=zero_fraction)
        if self.previous is not None:
            self.previous[: len(images)] = adversarial - images
        return adversarial

    def _start_gradient(self, step: Step, loss: Loss = cross_entropy) -> Tensor:
        """Return the (N, C, H, W) gradient of `loss` at the start."""
        assert self.start is not None
        self.start_logits = None
        if step.clean_grad is not None:
            return step.clean_grad.detach()
        with nullcontext() if step.shares_start else STATISTICS[self.attack_statistics](step.network):
            forward = Forward.of(step.network, self.start)
            gradient = forward.gradient(
                step.labels, loss=loss, loss_scale=step.loss_scale, retain_graph=step.shares_start
            )
        self.start_logits = forward.logits.detach()
        self.start_forward = forward if step.shares_start else None
        return gradient

    def _advance(self, step: Step, gradient: Tensor, *, zero_fraction: float = 0.0) -> Tensor:
        """Return the images after the step from the start along its `gradient`."""
        return fgsm(
            step.network,
            step.images,
            step.labels,
            self.epsilon,
            alpha=self.alpha,
            step_size=self.step_size,
            init=self.init,
            norm=self.norm,
            zero_fraction=zero_fraction,
            start=self.start,
            start_grad=gradient,
        )

    @property
    def starts_at_images(self) -> bool:
        return self.init == "zero"

    def state_dict(self) -> dict[str, Any]:
        """Return the perturbations of the last batch, from which init `previous` starts: (N, C, H, W), or None."""
        return {"previous": self.previous}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.previous = None if state["previous"] is None else state["previous"].to(device)


@dataclass(kw_only=True)
class ZeroGrad(ZeroGradDeclaration, Fgsm):
    """FGSM without the smallest gradient entries (`zero_fraction`)."""

    def __call__(self, step: Step) -> Tensor:
        return self._attack(step, zero_fraction=self.zero_fraction)
