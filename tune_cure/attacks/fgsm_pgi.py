"""The attack of prior-guided FGSM training (Jia et al. 2022, arXiv 2207.08859): each image has a start of its own."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tune_cure.attacks.attack import Step
from tune_cure.attacks.declarations import FgsmPgiDeclaration
from tune_cure.attacks.fgsm import Fgsm
from tune_cure.attacks.norms import nonzero, project
from tune_cure.attacks.registry import NORMS

RESET_AT_A_TIME = 4096  # images


@dataclass(kw_only=True)
class FgsmPgi(FgsmPgiDeclaration, Fgsm):
    """FGSM from each image's own start, which a momentum of its gradients of earlier epochs has made.

    Jia et al. 2022 (arXiv 2207.08859), the variant FGSM-MEP. With g the gradient at x + η, an image's momentum becomes
    m ← g / ‖g‖₁ + μ · m, and its next start η ← Π( η + α · sign m ). At first, and after each `pgi_reset` epochs, m
    is 0 and η a random corner of the ball of radius α, or of the whole ball if α is larger.

    The memory follows the number of a training image, whatever the order. As in the authors' code, ‖g‖₁ is that of the
    whole batch, and η belongs to the pixels of the network's input: crop and flip move the image, not η. Deviations: a
    start is clipped to [0, 1] before its gradient is taken, as in `fgsm`; g is the gradient of the cross-entropy
    without label smoothing. A gradient that is not finite is not remembered.

    Both memories have the size of all training images as floats: 8 bytes for each pixel and channel, on the device of
    the training and in each checkpoint.
    """

    perturbations: Tensor | None = field(default=None, init=False, repr=False)  # (M, C, H, W), of all training images
    momenta: Tensor | None = field(default=None, init=False, repr=False)  # (M, C, H, W)

    def __post_init__(self) -> None:
        self.init = "previous"  # the start is in the ball

    def begin_epoch(self, epoch: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
        if epoch % self.pgi_reset:
            return
        if self.perturbations is None or self.momenta is None:
            self.perturbations, self.momenta = (torch.empty(shape, device=generator.device) for _ in range(2))
        ball = NORMS.resolve(self.norm)
        # In place, where a recorded step finds them; a part at a time, because the noise takes memory.
        for part in self.perturbations.split(RESET_AT_A_TIME):
            corner = ball.steepest(ball.noise(part, self.epsilon, generator))
            part.copy_(ball.shrink(self._length * corner, self.epsilon))
        self.momenta.zero_()

    def memory_bytes(self, shape: tuple[int, ...]) -> int:
        return 2 * torch.get_default_dtype().itemsize * math.prod(shape)

    def __call__(self, step: Step) -> Tensor:
        assert self.perturbations is not None and self.momenta is not None, "an epoch has begun"
        assert step.positions is not None, "the images are known"
        images, positions = step.images, step.positions
        self.start = project(images + self.perturbations[positions], images, self.epsilon, self.norm)
        gradient = self._start_gradient(step)
        before = self.momenta[positions]
        momentum = gradient / nonzero(gradient.abs().sum()) + self.pgi_momentum * before
        moved = self.start + self._length * NORMS.resolve(self.norm).steepest(momentum)
        finite = gradient.isfinite().all()
        self.momenta[positions] = torch.where(finite, momentum, before)
        following = project(moved, images, self.epsilon, self.norm)
        self.perturbations[positions] = torch.where(finite, following, self.start) - images
        return self._advance(step, gradient)

    @property
    def _length(self) -> float:
        """The length of the step in pixel units."""
        return self.alpha * self.epsilon if self.step_size is None else self.step_size

    @property
    def starts_at_images(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the perturbation and the momentum of each training image: (M, C, H, W)."""
        return {"perturbations": self.perturbations, "momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        if state["perturbations"] is not None:
            self.perturbations, self.momenta = (state[name].to(device) for name in ("perturbations", "momenta"))
