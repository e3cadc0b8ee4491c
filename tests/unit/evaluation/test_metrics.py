import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.networks import smooth_network
from tune_cure.data.splits import Examples
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate
from tune_cure.evaluation.names import METRICS
from tune_cure.evaluation.standard_error import standard_error


def examples(count: int = 60) -> Examples:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 2, 5, 5), generator=generator).to(torch.uint8)
    return Examples(pixels, torch.randint(0, 3, (count,), generator=generator), torch.arange(count))


def float_images(examples: Examples) -> tuple[Tensor, Tensor]:
    return examples.images.double() / 255, examples.labels


@pytest.fixture
def model() -> nn.Module:
    """In float64, to agree with references to the last digits; takes the float32 images of `evaluate`."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth_network()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images.double())

    return Wide()


def test_metrics_are_complete_and_in_their_ranges(model: nn.Module) -> None:
    metrics = evaluate(model, examples(), EvaluationConfig(epsilon=0.05))
    assert tuple(metrics) == METRICS
    assert metrics["pgd_accuracy"] <= metrics["fgsm_accuracy"] <= metrics["clean_accuracy"]
    assert -1 <= metrics["gradient_alignment"] <= 1
    for name in ("clean", "fgsm", "pgd"):
        assert metrics[f"{name}_accuracy_se"] == standard_error(metrics[f"{name}_accuracy"], 60)


def test_evaluation_leaves_statistics_modes_and_parameter_gradients_alone(model: nn.Module) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, examples(), EvaluationConfig(epsilon=0.05))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_accuracy_and_loss_increase_are_of_one_full_step_from_the_image(model: nn.Module, norm: str) -> None:
    metrics = evaluate(model, examples(), EvaluationConfig(norm=norm, epsilon=0.05))
    model.eval()
    images, labels = float_images(examples())
    images.requires_grad_()
    loss = F.cross_entropy(model(images), labels, reduction="none")
    (slope,) = torch.autograd.grad(loss.sum(), images)
    step = slope.sign() if norm == "linf" else slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    logits = model((images + 0.05 * step).clamp(0, 1))
    increase = F.cross_entropy(logits, labels, reduction="none") - loss
    assert metrics["fgsm_accuracy"] == (logits.argmax(dim=1) == labels).double().mean().item()
    assert metrics["fgsm_loss_increase"] == pytest.approx(increase.mean().item(), rel=1e-4)


def test_the_gradients_of_a_linear_binary_model_are_aligned_and_fgsm_raises_its_loss() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(50, 2))
    metrics = evaluate(linear, Examples(examples().images, examples().labels % 2, torch.arange(60)), EvaluationConfig())
    assert metrics["gradient_alignment"] == pytest.approx(1, abs=1e-5)
    assert metrics["fgsm_loss_increase"] > 0


def test_no_forward_pass_is_repeated_or_empty(model: nn.Module) -> None:
    model.eval()
    robust = Examples(examples().images, model(float_images(examples())[0]).argmax(dim=1), torch.arange(60))
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    evaluate(model, robust, EvaluationConfig(epsilon=1e-6, steps=7))
    assert sizes == [60] * (1 + 7 + 3)  # at the images; PGD; at a random point, under FGSM, under PGD
    sizes.clear()
    evaluate(model, Examples(robust.images, (robust.labels + 1) % 3, robust.indices), EvaluationConfig(epsilon=1e-6))
    assert sizes == [60] * (1 + 3)


def test_more_than_one_batch_gives_the_same_as_one(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(model, examples(), EvaluationConfig(epsilon=0.05, steps=20))
    monkeypatch.setattr("tune_cure.evaluation.metrics.BATCH_SIZE", 17)
    parts = evaluate(model, examples(), EvaluationConfig(epsilon=0.05, steps=20))
    assert parts["clean_accuracy"] == whole["clean_accuracy"]
    assert parts["fgsm_loss_increase"] == pytest.approx(whole["fgsm_loss_increase"], rel=1e-6)
    assert parts["pgd_accuracy"] == pytest.approx(whole["pgd_accuracy"], abs=0.05)  # other random starts


def test_a_linf_radius_beyond_the_pixels_is_refused_and_an_l2_radius_is_not() -> None:
    with pytest.raises(ValueError, match="must be at most 1 with norm linf, but found 2"):
        EvaluationConfig(epsilon=2)
    assert EvaluationConfig(norm="l2", epsilon=2).epsilon == 2


def test_a_configuration_says_in_words_what_is_measured() -> None:
    assert str(EvaluationConfig()) == "PGD-10 with 1 start at epsilon 0.03137 (8/255)"
    config = EvaluationConfig(norm="l2", epsilon=0.5, steps=50, restarts=10, loss="margin")
    assert str(config) == "PGD-50 with 10 starts on the margin loss at epsilon 0.5 in L2"
