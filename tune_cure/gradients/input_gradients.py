"""Gradients of a loss with respect to the images, which attacks and penalties share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.gradients.backward_scope import input_gradients_only
from tune_cure.gradients.double_backward import cheap_first_derivatives, cheap_second_derivatives


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (N,) cross-entropies of logits (N, K) with labels (N,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (N,) largest logit of another class minus the label's logit: positive where misclassified.

    The loss f6 of Carlini and Wagner 2017 (arXiv 1608.04644), without its threshold. Unlike the gradient of the
    cross-entropy, its gradient does not vanish where the network is sure.

    Args:
        logits: (N, K).
        labels: (N,) class indices.
    """
    label_logits = logits.gather(1, labels[:, None]).squeeze(1)
    largest_other: Tensor = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    return largest_other - label_logits


Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Forward:
    """Forward pass of a network whose gradient with respect to the images can still be taken.

    Attributes:
        images: (N, C, H, W), detached from what they were computed from.
        logits: (N, K), the network's output.
    """

    images: Tensor
    logits: Tensor

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, *, twice: bool = False) -> "Forward":
        """Run `model` on images (N, C, H, W); `twice` says that the input gradient will be differentiated again."""
        images = images.detach().requires_grad_()
        with cheap_second_derivatives() if twice else cheap_first_derivatives(images):
            return cls(images, model(images))

    def gradient(
        self,
        labels: Tensor,
        *,
        loss: Loss = cross_entropy,
        create_graph: bool = False,
        retain_graph: bool = False,
        loss_scale: float = 1.0,
    ) -> Tensor:
        """Return the (N, C, H, W) input gradient; see `logits_and_input_gradient` for the arguments.

        `retain_graph` keeps the graph of the logits, so that they can be differentiated again.
        """
        total = loss(self.logits, labels).sum() * loss_scale
        keep = retain_graph or create_graph
        with input_gradients_only():
            (gradient,) = torch.autograd.grad(total, self.images, create_graph=create_graph, retain_graph=keep)
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
    """Return the network's logits and the gradient of each example's loss with respect to that example's pixels.

    The losses are summed over the batch, not averaged. Examples do not mix, so each gets the gradient of its own loss
    whatever the batch size, and fp16 gradients are not made smaller by the batch size. Nothing is accumulated into the
    parameters.

    Args:
        model: Network from (N, C, H, W) images to (N, K) logits, in evaluation mode. In training mode batch norm makes
            the examples of a batch depend on each other.
        images: (N, C, H, W).
        labels: (N,) class indices.
        loss: Function of logits (N, K) and labels (N,) to (N,) losses.
        create_graph: Keep the graph, so that the gradient can be differentiated again.
        loss_scale: Multiplies the loss before the backward pass and divides the gradient after it, which keeps the
            small numbers of an fp16 backward pass from becoming zero. A power of two, so that nothing is rounded.

    Returns:
        (N, K) logits, and the (N, C, H, W) gradient in the data type of `images`.
    """
    forward = Forward.of(model, images, twice=create_graph)
    return forward.logits, forward.gradient(labels, loss=loss, create_graph=create_graph, loss_scale=loss_scale)


def input_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, *, create_graph: bool = False, loss_scale: float = 1.0
) -> Tensor:
    """Return the (N, C, H, W) gradient of the cross-entropy; see `logits_and_input_gradient`."""
    return logits_and_input_gradient(model, images, labels, create_graph=create_graph, loss_scale=loss_scale)[1]
