"""Penalties on the loss surface around the images, by name (`delta` in the YAML): one number for each example.

`cure_penalty` is the CURE penalty (Moosavi-Dezfooli et al. 2019, arXiv 1811.09716): how much the input gradient changes
from x to x + z. Its directions z are functions of a `Point`. `gradalign` and `local_linearity` are penalties that it is
compared with. To add a direction or a penalty: write it, add a line to `DIRECTIONS` or `OTHER_PENALTIES`.
"""

from collections import ChainMap
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tune_cure.gradients.input_gradients import Forward
from tune_cure.regularizers.cure import DIRECTIONS, cure_penalty
from tune_cure.regularizers.gradalign import gradalign
from tune_cure.regularizers.local_linearity import local_linearity

OTHER_PENALTIES: dict[str, Callable[..., Tensor]] = {"gradalign": gradalign, "llr": local_linearity}
PENALTIES = ChainMap[str, Any]({"none": None}, OTHER_PENALTIES, DIRECTIONS)  # goes through the last of them first


def penalty(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    h: float,
    adversarial: Tensor | None = None,
    squared: bool = False,
    divide_by_h: bool = False,
    clean_grad: Tensor | None = None,
    adversarial_forward: Forward | None = None,
    **shared: Any,
) -> Tensor:
    """(N,) values of the penalty `name`, one of `PENALTIES` but `none`; all else is as of `cure_penalty`.

    `h`, `adversarial`, `squared`, `divide_by_h`, `clean_grad` and `adversarial_forward` concern CURE alone;
    epsilon, norm, generator, two_sided, statistics and loss_scale, in `shared`, all of them.
    """
    if name in OTHER_PENALTIES:
        return OTHER_PENALTIES[name](model, images, labels, **shared)
    return cure_penalty(
        model,
        images,
        labels,
        h,
        direction=name,
        adversarial=adversarial,
        squared=squared,
        divide_by_h=divide_by_h,
        clean_grad=clean_grad,
        adversarial_forward=adversarial_forward,
        **shared,
    )
