import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.support.spaces import tiny
from tune_cure import models
from tune_cure.data import splits as data
from tune_cure.data.splits import Examples
from tune_cure.evaluation import robustness
from tune_cure.evaluation.config import StricterEvaluation
from tune_cure.ray_backend import rescoring
from tune_cure.ray_backend.resources import Machine, plan_resources
from tune_cure.search import ranking, trial_table
from tune_cure.utils.yaml_config import SpecError

RESCORE = ["evaluation.examples=60", "rescore={top: 2, steps: 6, restarts: 2, examples: 30}"]


def test_fresh_examples_are_validation_images_that_no_trial_is_judged_on(tmp_path: Path) -> None:
    spec = tiny(tmp_path, *RESCORE)
    splits = data.load(spec.data)
    judged_on = set(splits.validation.subset(60, seed=0).indices.tolist())
    fresh = set(rescoring.fresh_examples(spec, splits).indices.tolist())
    assert len(fresh) == 30
    assert fresh < set(splits.validation.indices.tolist())
    assert not fresh & judged_on


def test_where_evaluation_looks_at_all_images_none_are_fresh(tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    assert len(rescoring.fresh_examples(spec, data.load(spec.data))) == 0


def frame(objectives: list[float], fresh: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial": range(len(objectives)),
            "objective": objectives,
            "pgd_accuracy_best": objectives,
            "clean_accuracy": objectives,
            "status": "completed",
            "feasible": True,
            "fresh_pgd_accuracy": pd.Series(fresh, dtype=float),
        }
    )


def test_the_leaders_are_in_the_order_of_their_fresh_accuracies_and_before_all_others(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "rescore.top=3")
    order = ranking.rank_leaders(frame([0.4, 0.7, 0.6, 0.5], [None, 0.3, 0.35, 0.35]), spec)
    assert list(order["trial"]) == [2, 3, 1, 0]


def test_what_was_judged_again_but_leads_no_more_counts_by_its_objective(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "rescore.top=2")
    order = ranking.rank_leaders(frame([0.4, 0.7, 0.6], [0.9, 0.3, None]), spec)
    assert list(order["trial"]) == [1, 2, 0]


def test_where_another_metric_is_optimised_it_decides(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.metric=clean_accuracy")
    assert list(ranking.rank_leaders(frame([0.4, 0.7], [0.9, 0.3]), spec)["trial"]) == [1, 0]


def test_a_trial_that_violates_the_constraints_wins_by_no_second_judgement(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "rescore.top=3", "search.constraints=[clean_accuracy_best >= 0.8]")
    trials = frame([0.5, 0.6, 0.58], [0.48, 0.59, 0.57]).assign(feasible=[True, False, False])
    assert list(ranking.rank_leaders(trials, spec)["trial"]) == [0, 1, 2]
    assert list(ranking.select_finalists(trials, spec)["trial"]) == [0]
    none_keeps_them = trials.assign(feasible=False)
    assert list(ranking.rank_leaders(none_keeps_them, spec)["trial"]) == [1, 2, 0]


@pytest.mark.parametrize("attack", ["apgd_t", "autoattack"])
def test_leaders_are_judged_again_by_the_attack_that_is_asked_for(
    tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(name: str, network: nn.Module, examples: Examples, evaluation: StricterEvaluation) -> dict[str, Any]:
        assert not network.training and evaluation == spec.rescoring and len(examples) == 30
        return {"clean": np.arange(30) < 24, "apgd_ce": np.arange(30) < 20, name: np.arange(30) < 15}

    spec = tiny(tmp_path, *RESCORE, f"rescore.attack={attack}")
    network = {"name": "small_cnn", "width": 4, "num_classes": 10, "in_channels": 1, "mean": [0.3], "std": [0.4]}
    trained = models.build(**network)
    torch.save({"best_model": {"model": network, "weights": trained.state_dict()}}, tmp_path / "trainer.pt")
    monkeypatch.setattr(robustness, "evaluate_under", evaluate)
    on_cpu = plan_resources(spec, [Machine(1, 0)])
    metrics = rescoring._judge(spec, str(tmp_path / "trainer.pt"), on_cpu, None)
    assert metrics == {
        "examples": 30, "clean_accuracy": 0.8, "pgd_accuracy": 0.5,
        "clean_accuracy_se": pytest.approx((0.16 / 30) ** 0.5), "pgd_accuracy_se": pytest.approx((0.25 / 30) ** 0.5),
    }  # fmt: skip


def test_another_attack_judges_again_what_pgd_judged(tmp_path: Path) -> None:
    by_pgd, by_margins = tiny(tmp_path, *RESCORE), tiny(tmp_path, *RESCORE, "rescore.attack=apgd_t")
    recorded = trial_table.rescoring_attack(by_pgd)
    assert recorded == {"norm": "linf", "epsilon": 0.05, "steps": 6, "restarts": 2, "loss": "cross_entropy",
                        "examples": 30}  # fmt: skip
    assert trial_table.rescoring_attack(by_margins) == recorded | {"attack": "apgd_t"}
    assert str(by_pgd.rescoring) == "PGD-6 with 2 starts at epsilon 0.05 (12.8/255)"
    assert str(by_margins.rescoring) == "APGD-T at epsilon 0.05 (12.8/255)"


@pytest.mark.parametrize(
    ("settings", "num_classes", "message"),
    [
        (
            ["rescore.attack=apgd_t"],
            3,
            "rescore.attack: APGD-T needs 4 classes, and there are 3; use autoattack or pgd",
        ),
        (["rescore.attack=autoattack"], 3, None),
        (["rescore.attack=apgd_t", "rescore.top=0"], 3, None),
        (["rescore.attack=apgd_t"], 4, None),
        (["asha.attack=apgd_t"], 3, "asha.attack: APGD-T needs 4 classes, and there are 3; use autoattack or pgd"),
        (["asha.attack=autoattack"], 3, None),
        (["asha.attack=apgd_t"], 4, None),
    ],
)
def test_an_attack_that_cannot_judge_these_networks_is_refused(
    tmp_path: Path, settings: list[str], num_classes: int, message: str | None
) -> None:
    spec = tiny(tmp_path, *settings)
    if message is None:
        spec.check_attacks(num_classes)
    else:
        with pytest.raises(SpecError, match=re.escape(message)):
            spec.check_attacks(num_classes)


@pytest.mark.parametrize("section", ["rescore", "asha"])
def test_an_attack_that_does_not_know_the_norm_is_refused(tmp_path: Path, section: str) -> None:
    spec = tiny(tmp_path, f"{section}.attack=autoattack")
    of_own = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"norm": "mine"})})
    with pytest.raises(SpecError, match=f"{section}.attack: AutoAttack knows the norms linf and l2, but not mine"):
        of_own.check_attacks(10)


@pytest.mark.parametrize("section", ["rescore", "asha"])
def test_an_attack_that_is_not_installed_is_refused(
    tmp_path: Path, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, find_spec = tiny(tmp_path, f"{section}.attack=apgd_t"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyautoattack" else find_spec(name))
    with pytest.raises(SpecError, match=f"{section}.attack: AutoAttack is not installed here: pip install pyautoatt"):
        spec.check_attacks(10)
