"""Networks of timm and of torchvision by their names there, made fit for small images and for second derivatives.

The package is imported when such a network is built. timm is an extra.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tune_cure.utils.registry import PartError, did_you_mean

SMALL_SIDE, SMALL_PATCH = 32, 4
"""Pixels of an image and of a patch for which a vision transformer is built."""
SMALL_KERNEL, SMALL_STEM = 3, 2
"""Kernel of the first convolution, and its kernel and stride where it cuts patches."""
AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision that, with their auxiliary classifiers, return a tuple in training mode."""


class LibraryNetwork(nn.Module):
    """A network of a library that can be differentiated twice.

    Torch's fused kernels of attention have no second derivative, and ReLUs in place are none of those that
    `cheap_second_derivatives` knows. Neither is used.

    Args:
        network: The network, from images to logits; changed in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False

    def forward(self, images: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = self.network(images)
        return logits


def timm_network(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds the network of this name in timm, without weights.

    Raises:
        PartError: timm is not installed, or has no such network.
    """
    timm = _imported("timm", "timm", f"timm:{name}")
    if not timm.is_model(name) or "." in name:
        raise PartError(f"network 'timm:{name}': timm has no such network{did_you_mean(name, timm.list_models())}")

    def build(num_classes: int, in_channels: int, width: int | None = None) -> nn.Module:
        _refuse_width(width)
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        if name.startswith(("vit_", "deit_")):  # built for small images
            small = {"img_size": SMALL_SIDE, "patch_size": SMALL_PATCH, "dynamic_img_size": True}
            return LibraryNetwork(timm.create_model(name, **options, **small))
        network = timm.create_model(name, **options)
        if network.default_cfg.get("fixed_input_size"):
            raise ValueError("takes images of one size; timm:vit_… and timm:deit_… take any")
        return LibraryNetwork(_adapt(network, in_channels))

    return build


def torchvision_network(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds the network of this name in torchvision, without weights.

    Raises:
        PartError: torchvision has no such classifier.
    """
    models = _imported("torchvision.models", "torchvision", f"torchvision:{name}")
    names = models.list_models(module=models)
    if name not in names:
        raise PartError(f"network 'torchvision:{name}': torchvision has no such classifier{did_you_mean(name, names)}")

    def build(num_classes: int, in_channels: int, width: int | None = None) -> nn.Module:
        _refuse_width(width)
        if name.startswith("vit_"):
            raise ValueError("takes images of one size, 224×224; small_vit and timm:vit_… take any")
        options = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
        network = models.get_model(name, weights=None, num_classes=num_classes, **options)
        return LibraryNetwork(_adapt(network, in_channels))

    return build


def _imported(module: str, package: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PartError(f"network {name!r}: {package} is not installed: pip install 'tune-cure[{package}]'") from error


def _refuse_width(width: int | None) -> None:
    if width is not None:
        raise ValueError("has no model.width: its name says its size")


def _adapt(network: nn.Module, in_channels: int) -> nn.Module:
    """Let the first convolution keep the resolution of small images, and leave out a pooling of the network itself.

    A first convolution whose stride is its kernel's size cuts patches; it cuts smaller ones instead. Poolings inside of
    other modules (DenseNet, SqueezeNet) stay: without them, networks that were saved would compute something else.
    """
    path, first = next(
        ((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)), ("", None)
    )
    if first is None:
        raise ValueError("has no convolution that could be made for small images")
    if first.stride == first.kernel_size and first.stride[0] > 1:
        kernel, stride, padding = SMALL_STEM, SMALL_STEM, 0
    else:
        kernel, stride, padding = SMALL_KERNEL, 1, SMALL_KERNEL // 2
    has_bias = first.bias is not None
    _replace(network, path, nn.Conv2d(in_channels, first.out_channels, kernel, stride, padding, bias=has_bias))
    pooling = next((path for path, module in network.named_children() if isinstance(module, nn.MaxPool2d)), None)
    if pooling is not None:
        _replace(network, pooling, nn.Identity())
    return network


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, module)
