"""Gradients of the loss with respect to the images: the one operation that attacks and penalties share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Runs the block with every module of `model` in evaluation mode, then restores each module's own mode.

    Restored module by module, so that a layer that the caller had frozen on purpose stays frozen.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def logits_and_input_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, *, create_graph: bool = False, loss_scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The network's output, and the gradient of each example's cross-entropy with respect to that example's pixels.

    The losses are summed, not averaged, over the batch: examples do not mix, so each gets the gradient of its own
    loss whatever the batch size, and fp16 gradients are not made smaller by a factor of the batch size. Nothing is
    accumulated into the parameters.

    Args:
        model: Network from (N, C, H, W) images to (N, K) logits, in evaluation mode (with batch norm in training
            mode the examples of a batch would not be independent).
        images: (N, C, H, W).
        labels: (N,) class indices.
        create_graph: Keep the graph, so that the gradient can be differentiated again.
        loss_scale: Multiplies the loss before and divides the gradient after the backward pass, which keeps the
            small numbers of an fp16 backward pass from becoming zero. A power of two, so that it rounds nothing.

    Returns:
        (N, K) logits and (N, C, H, W) gradient, the latter in the data type of `images`.
    """
    images = images.detach().requires_grad_()
    logits = model(images)
    loss = F.cross_entropy(logits, labels, reduction="sum") * loss_scale
    (gradient,) = torch.autograd.grad(loss, images, create_graph=create_graph)
    return logits, gradient / loss_scale


def input_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, *, create_graph: bool = False, loss_scale: float = 1.0
) -> Tensor:
    """The gradient alone of `logits_and_input_gradient`."""
    return logits_and_input_gradient(model, images, labels, create_graph=create_graph, loss_scale=loss_scale)[1]
