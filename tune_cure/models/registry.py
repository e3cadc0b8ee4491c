"""Networks by name: of `networks`, of timm and torchvision, of installed packages, and the user's own `module:name`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.registry import PartError, Registry

if TYPE_CHECKING:
    from torch import nn

MODELS: Registry[Callable[..., nn.Module]] = Registry(
    "network",
    {
        "preact_resnet18": "tune_cure.models.networks:preact_resnet18",
        "preact_resnet10": "tune_cure.models.networks:preact_resnet10",
        "resnet18": "tune_cure.models.networks:resnet18",
        "wide_resnet28_10": "tune_cure.models.networks:wide_resnet28_10",
        "wide_resnet34_10": "tune_cure.models.networks:wide_resnet34_10",
        "small_vit": "tune_cure.models.networks:small_vit",
        "small_cnn": "tune_cure.models.networks:small_cnn",
    },
    families={
        "timm": "tune_cure.models.libraries:timm_network",
        "torchvision": "tune_cure.models.libraries:torchvision_network",
    },
)
"""The networks by name. Those of the project are the ones of `networks.ARCHITECTURES`."""


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build a network with fresh weights, as `networks.build` does, from any name that `MODELS` resolves.

    Raises:
        PartError: There is no such network, its module cannot be imported, or its function fails.
    """
    from torch import nn

    from tune_cure.models import networks

    architecture = MODELS.resolve(name)
    try:
        network = networks.build(
            name,
            num_classes=num_classes,
            in_channels=in_channels,
            width=width,
            mean=mean,
            std=std,
            architectures={name: architecture},
        )
        if not isinstance(network[1], nn.Module):
            raise TypeError(f"the function returned {shorten_repr(network[1])}, not a network")
    except Exception as error:  # the user's own code runs, which can raise anything
        if architecture is networks.ARCHITECTURES.get(name):
            raise
        reason = next(iter(str(error).splitlines()), "")
        raise PartError(f"network {name!r}: cannot be built: {type(error).__name__}: {reason}") from error
    return network
