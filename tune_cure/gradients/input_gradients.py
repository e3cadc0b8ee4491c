"""Gradients of a loss with respect to the images: the one operation that attacks and penalties share."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.gradients.double_backward import cheap_second_derivatives, input_gradients_only


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) cross-entropies."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) the largest other logit less the label's: positive where misclassified.

    The loss of Carlini and Wagner 2017 (arXiv 1608.04644, f6) without its threshold. Unlike the cross-entropy's, its
    gradient does not vanish where the network is sure.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others: Tensor = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    return others - own


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}


@dataclass(frozen=True)
class Forward:
    """A forward pass of a network whose input gradient can still be taken.

    Attributes:
        images: (N, C, H, W), detached but for that gradient.
        logits: (N, K), the network's output.
    """

    images: Tensor
    logits: Tensor

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, *, twice: bool = False) -> "Forward":
        """The pass of `model` on `images` (N, C, H, W), whose gradient will be differentiated again if `twice`."""
        images = images.detach().requires_grad_()
        with cheap_second_derivatives() if twice else nullcontext():
            return cls(images, model(images))

    def gradient(
        self, labels: Tensor, *, loss: Loss = cross_entropy, create_graph: bool = False, loss_scale: float = 1.0
    ) -> Tensor:
        """(N, C, H, W) input gradient; arguments and remarks as of `logits_and_input_gradient`."""
        total = loss(self.logits, labels).sum() * loss_scale
        with input_gradients_only():
            (gradient,) = torch.autograd.grad(total, self.images, create_graph=create_graph)
        return gradient / loss_scale


def logits_and_input_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    loss: Loss = cross_entropy,
    create_graph: bool = False,
    loss_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The network's output, and the gradient of each example's loss with respect to that example's pixels.

    The losses are summed, not averaged, over the batch: examples do not mix, so each gets the gradient of its own
    loss whatever the batch size, and fp16 gradients are not made smaller by a factor of the batch size. Nothing is
    accumulated into the parameters.

    Args:
        model: Network from (N, C, H, W) images to (N, K) logits, in evaluation mode (with batch norm in training
            mode the examples of a batch would not be independent).
        images: (N, C, H, W).
        labels: (N,) class indices.
        loss: From logits and labels to (N,) losses.
        create_graph: Keep the graph, so that the gradient can be differentiated again.
        loss_scale: Multiplies the loss before and divides the gradient after the backward pass, which keeps the
            small numbers of an fp16 backward pass from becoming zero. A power of two, so that it rounds nothing.

    Returns:
        (N, K) logits and (N, C, H, W) gradient, the latter in the data type of `images`.
    """
    forward = Forward.of(model, images, twice=create_graph)
    return forward.logits, forward.gradient(labels, loss=loss, create_graph=create_graph, loss_scale=loss_scale)


def input_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, *, create_graph: bool = False, loss_scale: float = 1.0
) -> Tensor:
    """The gradient alone of `logits_and_input_gradient`, of the cross-entropy."""
    return logits_and_input_gradient(model, images, labels, create_graph=create_graph, loss_scale=loss_scale)[1]
