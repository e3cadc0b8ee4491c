"""Networks of timm and torchvision: made for small images, and differentiable twice."""

import pytest
import torch
from torch import nn

from tune_cure.gradients.backward_scope import input_gradients_only
from tune_cure.gradients.double_backward import cheap_second_derivatives
from tune_cure.models import networks, registry
from tune_cure.models.registry import MODELS
from tune_cure.utils.registry import PartError

CONVOLUTIONAL = "torchvision:resnet18"
TRANSFORMER = "timm:vit_tiny_patch16_224"


@pytest.fixture(scope="module", autouse=True)
def timm() -> None:
    pytest.importorskip("timm")


def built(name: str, in_channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return registry.build(name, num_classes=3, in_channels=in_channels)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("name", [CONVOLUTIONAL, TRANSFORMER])
def test_a_network_of_a_library_takes_small_images_of_any_size_and_normalizes_them(name: str) -> None:
    network = built(name)
    assert isinstance(network[0], networks.Normalize)
    for side in (16, 32):
        assert network(torch.rand(2, 1, side, side)).shape == (2, 3)


@pytest.mark.parametrize("name", [CONVOLUTIONAL, "timm:resnet18"])
def test_the_first_stage_keeps_the_resolution_of_small_images(name: str) -> None:
    network = built(name, in_channels=2)
    stem = convolutions(network)[0]
    assert (stem.in_channels, stem.kernel_size, stem.stride) == (2, (3, 3), (1, 1))
    assert not any(isinstance(module, nn.MaxPool2d) for module in network.modules())


def test_poolings_within_features_stay_because_saved_networks_have_them() -> None:
    first, pooling, second = [
        module
        for module in built("torchvision:squeezenet1_1").modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d)
    ][:3]
    assert isinstance(first, nn.Conv2d) and isinstance(pooling, nn.MaxPool2d) and isinstance(second, nn.Conv2d)
    assert (first.stride, pooling.stride) == ((1, 1), 2)


def test_a_vision_transformer_cuts_patches_for_small_images() -> None:
    stem = convolutions(built(TRANSFORMER))[0]
    assert (stem.kernel_size, stem.stride) == ((4, 4), (4, 4))


def second_derivatives(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(network(images).square().sum(), images, create_graph=True)
    parameters = list(network.parameters())
    slopes = torch.autograd.grad(gradient.square().sum(), parameters, allow_unused=True)
    return [slope for slope in slopes if slope is not None]


@pytest.mark.parametrize("name", ["torchvision:shufflenet_v2_x0_5", TRANSFORMER])
def test_a_network_of_a_library_has_second_derivatives_and_the_cheap_ones_are_equal(name: str) -> None:
    network = built(name).double()
    images = torch.rand(4, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    expected = second_derivatives(network, images)
    with cheap_second_derivatives():
        actual = second_derivatives(network, images)
    assert len(actual) == len(expected) > 50
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-9 * max(slope.abs().max() for slope in expected)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet81", "timm has no such network; did you mean 'resnet18'"),
        ("torchvision:resnet81", "torchvision has no such classifier; did you mean 'resnet18'"),
        ("torchvision:vit_b_16", "takes images of one size"),
        ("timm:mixer_s16_224", "takes images of one size"),
    ],
)
def test_a_network_that_a_library_lacks_or_that_takes_one_size_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(PartError, match=said) as error:
        built(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_with_auxiliary_classifiers_gives_logits_in_training_mode_too(name: str) -> None:
    network = built(f"torchvision:{name}").train()
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_a_network_of_a_library_has_no_width() -> None:
    with pytest.raises(PartError, match=r"has no model\.width"):
        registry.build(CONVOLUTIONAL, num_classes=3, in_channels=1, width=4)


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(PartError, match=r"timm is not installed: pip install 'tune-cure\[timm\]'"):
        MODELS.resolve("timm:resnet34")


def test_families_are_listed_among_the_names() -> None:
    with pytest.raises(PartError, match="small_cnn, timm:NAME, torchvision:NAME"):
        MODELS.resolve("tim:resnet18x/")
