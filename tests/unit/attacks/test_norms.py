import pytest
import torch

from tune_cure.attacks.norms import cosine, lengths, project, random_start
from tune_cure.attacks.registry import NORMS


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(400, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def size(displacements: torch.Tensor, norm: str) -> torch.Tensor:
    return displacements.flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_a_projected_point_is_in_the_ball_and_in_pixel_range_and_stays_if_it_was(norm: str, images) -> None:
    points = images + torch.randn(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(1))
    inside = project(points, images, 0.3, norm)
    assert (size(inside - images, norm) <= 0.3 + 1e-12).all()
    assert inside.min() >= 0
    assert inside.max() <= 1
    torch.testing.assert_close(project(inside, images, 0.3, norm), inside, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_no_point_of_the_ball_is_nearer_than_the_one_shrunk_to(norm: str, images) -> None:
    generator = torch.Generator().manual_seed(2)
    far = torch.randn(images.shape, dtype=images.dtype, generator=generator)
    shrunk = NORMS[norm].shrink(far, 0.3)
    for _ in range(20):
        other = NORMS[norm].noise(images, 0.3, generator)
        assert (lengths(far - other) >= lengths(far - shrunk)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_noise_fills_the_ball_uniformly(norm: str, images) -> None:
    noise = NORMS[norm].noise(images, 0.3, torch.Generator().manual_seed(3))
    share = (size(noise, norm) / 0.3) ** images[0].numel()  # uniform in [0, 1] for points uniform in a ball
    assert share.max() <= 1
    expected = torch.linspace(0, 1, len(share), dtype=share.dtype)
    assert (share.sort().values - expected).abs().max() < 1.63 / len(share) ** 0.5  # Kolmogorov-Smirnov, 1%
    assert noise.mean(dim=0).abs().max() < 0.05


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_step_has_length_1_and_beats_every_other_of_that_length(norm: str, images) -> None:
    generator = torch.Generator().manual_seed(4)
    gradient = torch.randn(images.shape, dtype=images.dtype, generator=generator)
    step = NORMS[norm].steepest(gradient)
    torch.testing.assert_close(size(step, norm), torch.ones(len(images), dtype=images.dtype))
    for _ in range(20):
        other = NORMS[norm].noise(images, 1.0, generator)
        assert ((step - other) * gradient).sum(dim=(1, 2, 3)).min() >= 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_of_zero_has_no_step(norm: str) -> None:
    assert not NORMS[norm].steepest(torch.zeros(2, 1, 2, 2)).any()


def test_the_steepest_step_in_l2_is_that_of_a_tiny_a_huge_and_an_overflowed_gradient_too() -> None:
    direction = torch.tensor([3.0, -4.0, 0.0, 0.0]).view(1, 1, 2, 2)
    for size in (1e-42, 1e-30, 1e-20, 1.0, 1e30):
        torch.testing.assert_close(NORMS["l2"].steepest(size * direction), direction / 5, rtol=0.02, atol=0)
    overflowed = torch.tensor([1.0, float("-inf"), float("nan"), 0.0]).view(1, 1, 2, 2)
    assert NORMS["l2"].steepest(overflowed).flatten().tolist() == pytest.approx([0.0, -1.0, 0.0, 0.0])


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_is_in_pixel_range_and_repeatable(norm: str, images) -> None:
    one, same = (random_start(images, 0.5, torch.Generator().manual_seed(5), norm) for _ in range(2))
    assert torch.equal(one, same)
    assert one.min() >= 0
    assert one.max() <= 1


def test_cosines() -> None:
    one = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]).view(3, 1, 1, 2)
    other = torch.tensor([[6.0, 8.0], [0.0, 2.0], [1.0, 1.0]]).view(3, 1, 1, 2)
    for size in (1e-30, 1.0, 1e30):
        torch.testing.assert_close(cosine(size * one, other), torch.tensor([1.0, 0.0, 0.0]))
