"""Rehearsal of a network: whether it classifies images of a data set and gives attacks gradients, before it is used."""

import textwrap

import torch
from torch import Tensor, nn

from tune_cure.utils.errors import first_line

MAX_SAID = 200
"""Characters of the network's own error that are repeated."""


def find_misfit(network: nn.Module, images: Tensor, num_classes: int) -> str:
    """Return what is wrong with a network for these images, in words; empty if it returns logits with a gradient.

    Args:
        network: The network, in its present mode.
        images: (N, C, H, W) in [0, 1], on its device.
        num_classes: The number of classes.
    """
    count, images = len(images), images.detach().requires_grad_()
    try:
        logits = network(images)
    except Exception as error:  # a network of any origin can raise anything
        size = "×".join(map(str, images.shape[1:]))
        return f"cannot classify images of {size}: {_describe(error)}"
    if not isinstance(logits, Tensor):
        return f"returns a {type(logits).__name__} for {count} images, where {(count, num_classes)} logits are needed"
    shape = tuple(logits.shape)
    if shape != (count, num_classes):
        return f"returns values of shape {shape} for {count} images, where {num_classes} classes are needed"
    if not logits.is_floating_point():
        return f"returns {str(logits.dtype).removeprefix('torch.')} values, where floats are needed"
    needed = "a gradient with respect to the images, which attacks need"
    try:
        if logits.requires_grad and torch.autograd.grad(logits.sum(), images, allow_unused=True)[0] is not None:
            return ""
    except Exception as error:  # backward runs code of the network, too
        return f"returns logits that cannot be given {needed}: {_describe(error)}"
    return f"returns logits without {needed}"


def _describe(error: Exception) -> str:
    said = textwrap.shorten(first_line(error), MAX_SAID, placeholder=" …")
    return f"{type(error).__name__}: {said}"
