import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from tests.support.exported_models import random_network
from tune_cure.confirmation.judgement import COLUMNS, JudgedNetwork, Judgement, outcome_key
from tune_cure.data.splits import Examples
from tune_cure.evaluation.names import ATTACKS
from tune_cure.evaluation.outcomes import Outcomes

NUM_IMAGES = 400


def judged(name: str, share: float, *, clean: float = 0.9, fgsm: float | None = None, seed: int = 0) -> JudgedNetwork:
    """Return a network that withstands every attack on a share of the images."""
    order = np.random.default_rng(seed).permutation(NUM_IMAGES)
    correct = dict.fromkeys(ATTACKS, order < share * NUM_IMAGES) | {"clean": order < clean * NUM_IMAGES}
    if fgsm is not None:
        correct["fgsm"] = order < fgsm * NUM_IMAGES
    return JudgedNetwork(name, f"{name}.pt", 10, Outcomes(correct, 0.0, "0.2.0"), 1.0)


def judgement(*networks: JudgedNetwork) -> Judgement:
    return Judgement(networks, "linf", 8 / 255, 0.1)


def test_the_table_has_a_row_for_each_network() -> None:
    table = judgement(judged("a", 0.5), judged("b", 0.25)).table()
    assert table.columns.tolist() == list(COLUMNS)
    assert table["model"].tolist() == ["a", "b"] and table["autoattack"].tolist() == [0.5, 0.25]
    assert table["examples"].eq(NUM_IMAGES).all() and table["warnings"].eq("").all()
    described = Path("docs/columns.md").read_text()
    assert all(f"`{name}`" in described or f" {name}" in described for name in COLUMNS)


def test_a_verdict_is_the_paired_t_test_over_the_images() -> None:
    first, second = judged("a", 0.5), judged("b", 0.4, seed=1)
    row = judgement(first, second).comparisons().iloc[0]
    outcomes = [network.outcomes.correct["autoattack"].astype(float) for network in (first, second)]
    assert row["metric"] == "autoattack" and row["p_value"] == pytest.approx(stats.ttest_rel(*outcomes).pvalue)
    assert row["difference"] == pytest.approx(0.1)


def test_equal_networks_cannot_be_told_apart_and_a_worse_one_can() -> None:
    comparisons = judgement(judged("a", 0.5), judged("same", 0.5), judged("worse", 0.3)).comparisons()
    verdicts = comparisons[comparisons["metric"].eq("autoattack")].set_index(["first", "second"])["verdict"]
    assert verdicts.to_dict() == {("a", "same"): "cannot tell", ("a", "worse"): "better", ("same", "worse"): "better"}


def test_p_values_are_adjusted_over_the_pairs_under_an_attack() -> None:
    comparisons = judgement(*(judged(name, share, seed=share_seed) for name, share, share_seed in
                              [("a", 0.5, 0), ("b", 0.47, 1), ("c", 0.44, 2)])).comparisons()  # fmt: skip
    under = comparisons[comparisons["metric"].eq("autoattack")]
    assert len(under) == 3 and under["p_value_holm"].max() >= under["p_value"].max()
    assert under["p_value_holm"].min() == pytest.approx(min(1.0, 3 * under["p_value"].min()))


def test_masked_gradients_and_chance_are_warned_of() -> None:
    warnings = judgement(judged("masked", 0.2, fgsm=0.8), judged("learned nothing", 0.0, clean=0.1)).warnings()
    assert any(warning.startswith("masked: FGSM accuracy is 60.0 points above PGD-10's") for warning in warnings)
    assert "learned nothing: Not clearly above chance without attack. Chance is 10.0%, which" in " ".join(warnings)


def test_the_files_hold_table_verdicts_and_every_outcome(tmp_path: Path) -> None:
    done = judgement(judged("a", 0.5), judged("b", 0.25))
    done.write(tmp_path)
    table = pd.read_csv(tmp_path / "evaluation.csv")
    assert table["autoattack"].tolist() == [0.5, 0.25]
    assert table["autoattack_version"].tolist() == ["0.2.0", "0.2.0"]
    comparisons = json.loads((tmp_path / "evaluation.json").read_text())["comparisons"]
    assert comparisons[0]["first"] == "a" and comparisons[0]["verdict"] == "better"
    with np.load(tmp_path / "outcomes.npz") as packed:
        assert packed["b/autoattack"].mean() == 0.25


def examples(seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Examples(images, torch.arange(6), torch.arange(6))


def test_outcomes_are_kept_by_weights_images_and_threat_model() -> None:
    network, images = random_network(), examples()
    key = outcome_key(network, images, norm="linf", epsilon=0.1)
    assert key == outcome_key(random_network(), examples(), norm="linf", epsilon=0.1)
    others = [
        outcome_key(random_network(1), images, norm="linf", epsilon=0.1),
        outcome_key(network, examples(1), norm="linf", epsilon=0.1),
        outcome_key(network, images.subset(3, seed=0), norm="linf", epsilon=0.1),
        outcome_key(network, images, norm="l2", epsilon=0.1),
        outcome_key(network, images, norm="linf", epsilon=0.2),
    ]
    assert len({key, *others}) == 6


class Changed(nn.Module):
    """A network whose forward pass depends on plain attributes, which `str` and `state_dict` leave out."""

    def __init__(self, *, factor: float = 1.0, slope: float = 1.0, noise: float = 0.0) -> None:
        super().__init__()
        self.network = nn.Linear(64, 10)
        nn.init.orthogonal_(self.network.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.network.bias)
        self.factor, self.slope, self.noise = factor, slope, noise

    def forward(self, images: Tensor) -> Tensor:
        images = self.factor * images + self.noise * torch.rand_like(images)
        logits: Tensor = self.network((images.detach() + self.slope * (images - images.detach())).flatten(1))
        return logits


def key_of(network: nn.Module) -> str:
    return outcome_key(network, examples(), norm="linf", epsilon=0.1)


def test_networks_of_equal_layers_and_weights_but_other_logits_or_gradients_share_no_outcomes() -> None:
    networks = [Changed(), Changed(factor=0.9), Changed(slope=0.1), Changed(noise=0.5)]
    assert len({str(network) for network in networks}) == 1
    assert len({key_of(network) for network in networks}) == 4


def test_rounding_errors_and_random_numbers_of_a_network_do_not_change_its_outcomes_name() -> None:
    assert key_of(Changed()) == key_of(Changed(factor=1 + 2**-23))
    network = Changed(noise=0.5)
    state = torch.get_rng_state()
    assert key_of(network) == key_of(network)
    assert torch.equal(torch.get_rng_state(), state)
