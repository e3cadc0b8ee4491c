import itertools
import sys
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from torch import nn

from tune_cure.data.splits import Examples
from tune_cure.evaluation import robustness
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate
from tune_cure.evaluation.names import ATTACKS, WITHOUT_AUTOATTACK, label_attacks
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.evaluation.robustness import evaluate_robustness, evaluate_under
from tune_cure.models import networks

EVALUATION = EvaluationConfig(epsilon=0.04)


class Linear(nn.Module):
    """Logits that are linear in the image: what an attack can reach at most is known."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(5, 16, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T


def examples(count: int = 40) -> Examples:
    """Images far from 0 and 1, so that a small ball around them is whole; labelled as `Linear` sees them."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(60, 196, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = Linear()(pixels / 255).argmax(dim=1)
    return Examples(pixels, labels, torch.arange(count))


def robust(subset: Examples, epsilon: float) -> np.ndarray:
    """Whether no perturbation in the L∞ ball changes the class: the margin to each class exceeds ε‖w − w'‖₁."""
    weight = Linear().weight.detach()
    logits = (subset.images / 255).flatten(1) @ weight.T
    margins = logits.gather(1, subset.labels[:, None]) - logits
    reach = epsilon * (weight[subset.labels][:, None, :] - weight[None]).abs().sum(dim=2)
    others = torch.arange(5)[None] != subset.labels[:, None]
    return ((margins > reach) | ~others).all(dim=1).numpy()


@pytest.fixture(scope="module")
def linear_outcomes() -> Outcomes:
    """Outcomes of all attacks on `Linear` and its examples."""
    return evaluate_robustness(Linear(), examples(), EVALUATION)


def test_a_linear_network_is_robust_where_its_margin_exceeds_what_the_ball_can_move(linear_outcomes: Outcomes) -> None:
    outcomes, truth = linear_outcomes, robust(examples(), 0.04)
    assert 0.2 < truth.mean() < 0.8
    assert outcomes.correct["clean"].all()
    for name in ATTACKS:
        assert (outcomes.correct[name] >= truth).all(), f"{name} broke what cannot be broken"
    assert (outcomes.correct["autoattack"] == truth).all()
    assert (outcomes.correct["pgd_50_10"] == truth).mean() > 0.9
    assert outcomes.zero_gradient == 0


def test_each_part_of_autoattack_counts_with_those_before(linear_outcomes: Outcomes) -> None:
    outcomes = linear_outcomes.correct
    assert list(outcomes) == list(ATTACKS)
    names = ["clean", "apgd_ce", "apgd_t", "fab_t", "autoattack"]
    for before, after in itertools.pairwise(names):
        assert (outcomes[after] <= outcomes[before]).all()


@pytest.mark.parametrize(("attack", "ran"), [
    ("apgd_t", ["clean", "apgd_t"]), ("autoattack", ["clean", "apgd_ce", "apgd_t", "fab_t", "autoattack"]),
])  # fmt: skip
def test_one_attack_by_itself_finds_what_can_be_broken(attack: str, ran: list[str], linear_outcomes: Outcomes) -> None:
    outcomes = evaluate_under(attack, Linear(), examples(), EVALUATION)
    assert list(outcomes) == ran
    assert (outcomes[attack] == robust(examples(), 0.04)).all()
    if attack == "autoattack":
        assert all((outcomes[name] == linear_outcomes.correct[name]).all() for name in ran)


def test_clean_fgsm_and_pgd_are_those_of_the_search() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = networks.build("small_cnn", num_classes=5, in_channels=1)
    pixels = examples()
    subset = Examples(nn.functional.interpolate(pixels.images, size=8), pixels.labels, pixels.indices)
    outcomes = evaluate_robustness(network, subset, EVALUATION, autoattack=False)
    assert list(outcomes.correct) == list(WITHOUT_AUTOATTACK)
    searched = evaluate(network, subset, EVALUATION)
    for name, metric in {"clean": "clean_accuracy", "fgsm": "fgsm_accuracy", "pgd_10": "pgd_accuracy"}.items():
        assert outcomes.correct[name].mean() == pytest.approx(searched[metric])


def test_an_interrupted_evaluation_continues_after_the_last_finished_attack(
    linear_outcomes: Outcomes, tmp_path: Path
) -> None:
    network, subset = Linear(), examples()

    def interrupt(name: str, accuracy: float) -> None:
        if name == "apgd_ce":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_robustness(network, subset, EVALUATION, folder=tmp_path, on_progress=interrupt)
    saved = ["apgd_ce.npy", "apgd_ce.version", "clean.npy", "fgsm.npy", "pgd_10.npy", "pgd_50_10.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == saved
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = evaluate_robustness(network, subset, EVALUATION, folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for name in ATTACKS:
        np.testing.assert_array_equal(again.correct[name], linear_outcomes.correct[name])


def test_the_version_of_autoattack_is_that_of_each_part_when_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(installed: str, folder: Path | None = tmp_path, *, autoattack: bool = True) -> str:
        monkeypatch.setattr(robustness, "installed_version", lambda: installed)
        outcomes = evaluate_robustness(Linear(), examples(4), EVALUATION, autoattack=autoattack, folder=folder)
        saved = {**outcomes.correct, "zero_gradient": 0.0, "autoattack_version": outcomes.autoattack_version}
        return Outcomes.from_arrays({name: np.array(value) for name, value in saved.items()}).autoattack_version

    monkeypatch.setattr(robustness, "_run_attack", lambda name, *_: np.ones(4, dtype=bool))  # attacks take seconds
    assert judge("1.0", None) == "1.0"
    assert judge("1.0", autoattack=False) == ""
    assert judge("1.0") == "1.0"
    assert judge("2.0") == "1.0"  # nothing ran again
    (tmp_path / "autoattack.npy").unlink()
    assert judge("2.0") == "1.0, 2.0"
    (tmp_path / "apgd_t.version").unlink()  # as tune-cure 0.2.0 left it
    assert judge("2.0") == ""
    (tmp_path / "apgd_t.version").write_bytes(b"\xff<b>")
    assert judge("2.0") == ""


def test_the_global_random_state_and_modes_and_gradients_of_the_network_are_left_alone() -> None:
    network = Linear().train()
    state = torch.get_rng_state()
    evaluate_robustness(network, examples(4), EVALUATION)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert network.weight.grad is None and network.weight.requires_grad


@pytest.mark.parametrize("num_classes", [2, 3])
def test_below_four_classes_autoattack_runs_without_its_targeted_parts(num_classes: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes, bias=False))
    network[1].weight.data = Linear().weight.data[:num_classes]
    subset = examples()
    subset = Examples(subset.images, network(subset.images / 255).argmax(dim=1), subset.indices)
    outcomes = evaluate_robustness(network, subset, EVALUATION).correct
    assert list(outcomes) == ["clean", "fgsm", "pgd_10", "pgd_50_10", "apgd_ce", "autoattack"]
    assert outcomes["clean"].all()
    assert (outcomes["autoattack"] <= outcomes["apgd_ce"]).all() and (outcomes["apgd_ce"] <= outcomes["clean"]).all()
    assert outcomes["autoattack"].mean() < outcomes["clean"].mean()
    assert label_attacks(outcomes)["autoattack"] == "APGD-CE + Square"
    assert label_attacks(ATTACKS)["autoattack"] == "AutoAttack"


def test_a_debugger_or_a_coverage_run_keeps_its_trace_function_during_autoattack() -> None:
    traced = set()

    def trace(frame: FrameType, event: str, argument: object) -> None:
        traced.add(frame.f_code.co_name)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        evaluate_robustness(Linear(), examples(4), EVALUATION)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is trace
    assert "_is_zero" in traced  # the last function that runs after the attacks


def test_a_network_that_rounds_its_input_has_zero_gradients() -> None:
    network = nn.Sequential(nn.Flatten(), Rounded(), nn.Linear(16, 5))
    assert evaluate_robustness(network, examples(6), EVALUATION, autoattack=False).zero_gradient == 1.0


class Rounded(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (4 * images).round() / 4
