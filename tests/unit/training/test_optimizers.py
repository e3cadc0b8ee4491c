import pytest
import torch
from torch import nn

from tune_cure.training.optimizers import OPTIMIZERS, decay_groups, keep_rate_on_device, set_learning_rate

LR, DECAY, MOMENTUM = 0.1, 0.01, 0.8


def expected(name: str, nesterov: bool, weight: float, gradients: list[float]) -> float:
    """The textbook's rule, step by step, on one number."""
    first = second = 0.0
    for step, gradient in enumerate(gradients, start=1):
        if name == "adamw":
            weight -= LR * DECAY * weight
        else:
            gradient += DECAY * weight
        if name == "sgd":
            first = MOMENTUM * first + gradient
            weight -= LR * (gradient + MOMENTUM * first if nesterov else first)
        else:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            weight -= LR * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
    return weight


@pytest.mark.parametrize(
    ("name", "nesterov"), [("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)], ids=str
)
def test_an_optimiser_steps_by_its_textbook_rule(name: str, nesterov: bool) -> None:
    weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight], lr=LR, weight_decay=DECAY, momentum=MOMENTUM, nesterov=nesterov, fused=False)
    gradients = [0.5, -1.0, 0.25]
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(expected(name, nesterov, 2.0, gradients), rel=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fused_optimiser_whose_first_step_is_skipped_goes_on_as_if_it_had_not_been_made(name: str) -> None:
    """As in fp16, where the first scale of the losses is often too large."""
    weights = [nn.Parameter(torch.full((64,), 2.0)) for _ in range(2)]
    options = {"lr": LR, "weight_decay": DECAY, "momentum": MOMENTUM, "nesterov": False}
    fused, plain = (OPTIMIZERS[name]([w], **options, fused=of) for w, of in zip(weights, (True, False), strict=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory with NaN
    try:
        for gradient in (float("inf"), 0.5, -1.0):
            weights[0].grad = torch.full((64,), gradient) * scaler.scale(torch.ones(()))
            scaler.step(fused)
            scaler.update()
            if gradient < float("inf"):
                weights[1].grad = torch.full((64,), gradient)
                plain.step()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay_vectors", [True, False])
def test_weight_decay_spares_batch_norm_and_biases_on_request(name: str, decay_vectors: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    groups = decay_groups(network, decay_vectors=decay_vectors)
    OPTIMIZERS[name](groups, lr=LR, weight_decay=DECAY, momentum=MOMENTUM, nesterov=False, fused=True).step()
    for key, parameter in network.named_parameters():
        is_spared = not decay_vectors and key not in ("0.weight", "3.weight")
        assert (parameter == 1.0).all() if is_spared else (parameter < 1.0).all(), key


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_learning_rate_on_the_device_stays_in_its_place_when_it_is_set(name: str) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = OPTIMIZERS[name]([weight], lr=0.5, weight_decay=0.0, momentum=0.9, nesterov=False, fused=False)
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25
    keep_rate_on_device(optimizer, torch.device("cpu"))
    (group,) = optimizer.param_groups
    rate = group["lr"]
    assert rate.item() == 0.25
    set_learning_rate(optimizer, 0.125)
    assert group["lr"] is rate
    assert rate.item() == 0.125
    assert group.get("capturable", True)
