import ast
import pickle
import sys
from pathlib import Path

import pytest
import torch

from tune_cure.models import checkpoints, networks, registry
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.registry import PartError

SIZES = {  # widths that test fast
    "small_cnn": 8,
    "preact_resnet10": 8,
    "preact_resnet18": 4,
    "resnet18": 4,
    "wide_resnet28_10": 4,
    "wide_resnet34_10": 4,
    "small_vit": 6,
}


@pytest.mark.parametrize("name", registry.MODELS)
@pytest.mark.parametrize("side", [28, 32, 40])
def test_a_network_takes_other_image_sizes(name: str, side: int) -> None:
    network = networks.build(name, num_classes=7, in_channels=2, width=SIZES[name])
    assert network(torch.rand(2, 2, side, side)).shape == (2, 7)


def test_preact_resnet18_has_the_published_number_of_parameters() -> None:
    network = networks.build("preact_resnet18", num_classes=10, in_channels=3)
    assert sum(p.numel() for p in network.parameters()) == 11_172_170


def test_wide_resnet28_10_has_the_published_number_of_parameters() -> None:
    network = networks.build("wide_resnet28_10", num_classes=10, in_channels=3)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(36.48, abs=0.01)


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet18", 11.174), ("wide_resnet34_10", 46.16), ("small_vit", 2.681)]
)
def test_networks_have_the_number_of_parameters_that_is_known_or_documented(name: str, millions: float) -> None:
    network = networks.build(name, num_classes=10, in_channels=3)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_resnet18_of_width_64_is_torchvisions_with_a_stem_for_small_images() -> None:
    ours = networks.resnet18(10, 3)
    theirs = registry.MODELS.resolve("torchvision:resnet18")(10, 3)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert [tuple(p.shape) for p in ours.parameters() if p.dim() == 4][:5] == [(64, 3, 3, 3)] + [(64, 64, 3, 3)] * 4


def test_a_vision_transformer_sees_where_a_patch_is() -> None:
    torch.manual_seed(0)
    network = networks.small_vit(5, 1, width=8).eval()
    images = torch.rand(1, 1, 8, 8)
    swapped = torch.cat([images[..., 4:], images[..., :4]], dim=3)
    assert (network(images) - network(swapped)).abs().max() > 1e-4


def test_a_vision_transformer_is_differentiated_twice_as_finite_differences_say() -> None:
    torch.manual_seed(0)
    network = networks.small_vit(3, 1, width=4).double()
    images = torch.rand(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: network(x), images, fast_mode=True)


def test_width_scales_the_narrow_network() -> None:
    narrow, wide = (networks.build("preact_resnet10", num_classes=10, in_channels=3, width=w) for w in (8, 16))
    assert sum(p.numel() for p in narrow.parameters()) < 0.3 * sum(p.numel() for p in wide.parameters())


def test_normalisation_is_the_first_layer_and_travels_with_the_weights() -> None:
    network = networks.build("small_cnn", num_classes=3, in_channels=2, mean=[0.1, 0.2], std=[0.5, 2.0])
    images = torch.rand(1, 2, 8, 8)
    expected = torch.stack([(images[:, 0] - 0.1) / 0.5, (images[:, 1] - 0.2) / 2.0], dim=1)
    torch.testing.assert_close(network[0](images), expected)
    assert torch.equal(network.state_dict()["0.mean"].flatten(), torch.tensor([0.1, 0.2]))


def test_a_saved_network_loads_with_weights_only_and_computes_the_same(tmp_path: Path) -> None:
    architecture = {"name": "small_cnn", "width": 4, "num_classes": 3, "in_channels": 1, "mean": [0.3], "std": [0.4]}
    network = networks.build(**architecture).eval().to(memory_format=torch.channels_last)
    torch.save({"model": architecture, "weights": network.state_dict()}, tmp_path / "model.pt")
    loaded = checkpoints.load(tmp_path / "model.pt")
    images = torch.rand(5, 1, 8, 8)
    assert not loaded.training
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_strided_pointwise_convolution_and_its_derivatives_are_those_of_the_convolution(stride: int) -> None:
    torch.manual_seed(0)
    layer = networks.StridedPointwise(3, 5, stride).double()
    images = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(images, layer.weight, stride=stride)
    assert torch.equal(layer(images), expected)
    inputs = (images, layer.weight)
    weights = torch.randn_like(expected)

    def slopes(output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad((output**2 * weights).sum(), inputs, create_graph=True)
        return *first, *torch.autograd.grad(first[0].pow(3).sum(), inputs)

    for actual, wanted in zip(slopes(layer(images)), slopes(expected), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_saved_network_of_ones_own_is_rebuilt_only_where_its_code_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "own_networks.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from torch import nn\n\n\n"
        "def flat(num_classes, in_channels, width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(16 * in_channels, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry.MODELS, "_imported", {})
    model = {"name": "own_networks:flat", "num_classes": 3, "in_channels": 1}
    weights = {
        "0.mean": torch.full((1, 1, 1), 0.5), "0.std": torch.full((1, 1, 1), 0.25),
        "1.1.weight": torch.ones(3, 16), "1.1.bias": torch.zeros(3),
    }  # fmt: skip
    file = tmp_path / "best_model.pt"
    torch.save({"model": model, "weights": weights}, file)
    with pytest.raises(PartError, match=r"'own_networks:flat' is not part of this project.*trust_code=True"):
        checkpoints.load(file)
    assert not ran.exists()
    assert checkpoints.load(file, trust_code=True)(torch.ones(1, 1, 4, 4)).tolist() == [[32.0] * 3]
    assert ran.exists()
    checkpoints.load(file)  # imported by now
    sys.modules.pop("own_networks")


def test_a_rebuilt_network_has_the_memory_format_of_training() -> None:
    arguments = {"name": "small_cnn", "num_classes": 3, "in_channels": 3, "width": 4}
    saved = {"model": arguments, "weights": networks.build(**arguments).state_dict()}
    kernels = [weight for weight in checkpoints.rebuild(saved).parameters() if weight.dim() == 4]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_shapes.py").write_text(
        "from torch import nn\n\n\n"
        "def flat(num_classes, in_channels, width=4):\n"
        "    layers = nn.Linear(16 * in_channels, width), nn.Linear(width, num_classes)\n"
        "    return nn.Sequential(nn.Flatten(), *layers)\n\n\n"
        "def without_width(num_classes, in_channels):\n"
        "    return nn.Flatten()\n\n\n"
        "def no_network(num_classes, in_channels):\n"
        "    return None\n\n\n"
        "SIDE = 8\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry.MODELS, "_imported", {})
    monkeypatch.delitem(sys.modules, "own_shapes", raising=False)
    return "own_shapes"


def test_a_network_of_ones_own_is_built_and_normalized_like_any_other(own_module: str) -> None:
    network = registry.build(f"{own_module}:flat", num_classes=3, in_channels=2, width=5, mean=[0.1, 0.2])
    assert network[0].mean.flatten().tolist() == pytest.approx([0.1, 0.2])
    assert network(torch.rand(7, 2, 4, 4)).shape == (7, 3)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("without_width", {"width": 4}, "network 'own_shapes:without_width': cannot be built: TypeError: without"),
        ("no_network", {}, "network 'own_shapes:no_network': cannot be built: TypeError: the function returned None"),
        ("SIDE", {}, "network 'own_shapes:SIDE': a function or a class is needed, but found 8"),
        ("float", {}, "network 'own_shapes:float': module own_shapes has no float; did you mean 'flat'?"),
    ],
)
def test_a_network_of_ones_own_that_cannot_be_built_is_one_line(
    name: str, sizes: dict[str, int], message: str, own_module: str
) -> None:
    with pytest.raises(PartError) as caught:
        registry.build(f"{own_module}:{name}", num_classes=3, in_channels=2, **sizes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_file_that_an_export_copies_imports_torch_alone() -> None:
    tree = ast.parse(Path(networks.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name if isinstance(node, ast.Import) else node.module for node in imports for alias in node.names}
    assert modules == {"collections.abc", "typing", "torch", "torch.nn.functional"}


@pytest.mark.parametrize(
    "content", [{}, {"model": {}}, {"model": {"name": "small_cnn"}, "weights": {}}, [1], 3], ids=str
)
def test_a_file_without_a_network_is_one_line_without_advice_to_trust_it(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(TuneCureError, match=r"a\.pt: is damaged, or holds no network of this project$"):
        checkpoints.load(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(pickle.dumps(tmp_path))
    with pytest.raises(TuneCureError, match=r"a\.pt: is damaged, or holds no network of this project$"):
        checkpoints.load(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "b.pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_of_a_vision_transformer_are_as_exact_as_their_data_type(dtype: torch.dtype) -> None:
    tokens = torch.zeros(1, 32, 56, 56)
    exact = networks._positions(tokens.double())
    found = networks._positions(tokens.to(dtype))
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() <= torch.finfo(dtype).eps / 2
