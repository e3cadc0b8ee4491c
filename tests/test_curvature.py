import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tune_cure.curvature import DIRECTIONS, classic, cure_penalty
from tune_cure.gradients import input_gradient


class QuadraticLoss(nn.Module):
    """Two logits whose cross-entropy for label 0 is ½ xᵀAx + bᵀx exactly, so that its Hessian is A.

    With logits (0, s) the cross-entropy of label 0 is log(1 + eˢ); s = log(eᑫ − 1) makes it q.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(size, size, dtype=torch.float64, generator=generator) / size
        self.root = nn.Parameter(root)
        self.b = nn.Parameter(torch.rand(size, dtype=torch.float64, generator=generator) + 1.0)

    @property
    def hessian(self) -> Tensor:
        return self.root @ self.root.T

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        loss = 0.5 * torch.einsum("ni,ij,nj->n", x, self.hessian, x) + x @ self.b + 0.5
        return torch.stack([torch.zeros_like(loss), torch.log(torch.expm1(loss))], dim=1)


@pytest.mark.parametrize("h", [0.01, 1.5])
def test_penalty_of_a_quadratic_loss_equals_the_length_of_its_hessian_times_z(h: float) -> None:
    model = QuadraticLoss(12)
    images = torch.rand(5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(5, dtype=torch.long)
    penalty = cure_penalty(model, images, labels, h)
    gradient = images.flatten(1) @ model.hessian + model.b
    z = h * gradient.sign() / gradient.sign().norm(dim=1, keepdim=True)
    torch.testing.assert_close(penalty, (z @ model.hessian).norm(dim=1), rtol=1e-9, atol=0)


def independent_penalty(network: nn.Module, image: Tensor, label: Tensor, h: float) -> float:
    """The penalty of one example, its gradients taken pixel by pixel from central differences of the loss."""

    def loss(x: Tensor) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(network(x[None]), label[None]))

    def gradient(x: Tensor) -> Tensor:
        step, result = 1e-4, torch.zeros_like(x)
        for index in range(x.numel()):
            move = torch.zeros(x.numel(), dtype=x.dtype)
            move[index] = step
            move = move.view_as(x)
            # Fourth order: the error is of the order of step⁴.
            result.view(-1)[index] = (
                8 * (loss(x + move) - loss(x - move)) - (loss(x + 2 * move) - loss(x - 2 * move))
            ) / (12 * step)
        return result

    at_image = gradient(image)
    z = h * at_image.sign() / at_image.sign().norm()
    return float((gradient(image + z) - at_image).norm())


def test_penalty_matches_float64_finite_differences_of_the_loss(network, batch) -> None:
    images, labels = batch
    network.eval()
    penalty = cure_penalty(network, images, labels, 1.5)
    expected = [independent_penalty(network, x, y, 1.5) for x, y in zip(images, labels, strict=True)]
    torch.testing.assert_close(penalty.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-10)


def test_penalty_reaches_every_parameter_and_its_gradient_matches_finite_differences(network, batch) -> None:
    network.eval()
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(cure_penalty(network, *batch, 1.5).sum(), parameters)
    generator = torch.Generator().manual_seed(2)
    step = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(cure_penalty(network, *batch, 1.5).sum().item())
            with torch.no_grad():
                parameter -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        assert slope != 0
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_an_example_has_the_same_penalty_in_a_batch_of_1_and_of_64(network) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(64, 2, 5, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (64,), generator=generator)
    network.train()  # the caller's mode must not matter: batch statistics would mix the examples
    together = cure_penalty(network, images, labels, 1.5)
    alone = torch.cat([cure_penalty(network, images[i : i + 1], labels[i : i + 1], 1.5) for i in range(64)])
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=0)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_penalty_is_one_non_negative_number_per_example_and_leaves_no_trace(direction, network, batch) -> None:
    images, labels = batch
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    penalty = cure_penalty(network, images, labels, 1.5, direction=direction)
    assert penalty.shape == (6,) and (penalty >= 0).all()
    penalty.mean().backward()
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not images.requires_grad


def test_classic_direction_has_length_h_and_is_zero_where_the_gradient_is(network, batch) -> None:
    gradient = input_gradient(network.eval(), *batch)
    gradient[0] = 0
    z = classic(gradient, 1.739)
    lengths = z.flatten(1).norm(dim=1)
    assert lengths[0] == 0
    torch.testing.assert_close(lengths[1:], torch.full((5,), 1.739, dtype=torch.float64))


def test_length_1_739_moves_each_pixel_of_a_cifar_image_by_8_of_255() -> None:
    z = classic(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 1.739)
    assert z.abs().max().item() == pytest.approx(8 / 255, rel=1e-3)


def test_penalty_of_an_example_with_zero_gradient_is_zero_and_differentiable() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2).double())
    nn.init.zeros_(model[1].weight)
    images = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    penalty = cure_penalty(model, images, torch.zeros(3, dtype=torch.long), 1.0)
    penalty.sum().backward()
    assert torch.equal(penalty, torch.zeros(3, dtype=torch.float64))
    assert model[1].weight.grad.isfinite().all()
