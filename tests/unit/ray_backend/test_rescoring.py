import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure import models
from tune_cure.data import splits as data
from tune_cure.data.splits import Examples
from tune_cure.evaluation import autoattack_version, robustness
from tune_cure.evaluation.config import StricterEvaluation
from tune_cure.ray_backend import rescoring
from tune_cure.ray_backend.resources import Machine, plan_resources
from tune_cure.search import ranking, trial_table
from tune_cure.search.journal import Journal
from tune_cure.search.storage.run_storage import LocalStorage, ObjectStore, UriStorage
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils.yaml_config import SpecError

CHECKPOINT = "trials/trial_{:05d}/checkpoint_000003"
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


def write_checkpoint(folder: Path) -> None:
    """Write the checkpoint of a trial, as far as its second judgement reads it."""
    network = {"name": "small_cnn", "width": 4, "num_classes": 10, "in_channels": 1, "mean": [0.3], "std": [0.4]}
    trained = models.build(**network)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"best_model": {"model": network, "weights": trained.state_dict()}}, folder / "trainer.pt")


def record_leaders(journal: Journal) -> None:
    """Write the journal of a search of three trials, each with a checkpoint."""
    for number in range(3):
        accuracies = {"clean_accuracy": 0.9, "pgd_accuracy": 0.4 + 0.1 * number, "objective": 0.4 + 0.1 * number}
        journal_lines.begin(journal, number)
        journal_lines.epoch(journal, number, epoch=4, ended="completed", **accuracies)
        journal.append("checkpoint", number, epoch=4, path=CHECKPOINT.format(number))
        journal_lines.end(journal, number)


def test_leaders_in_an_object_store_are_named_by_what_every_machine_can_read(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, *RESCORE), Journal(tmp_path)
    storage = UriStorage(ObjectStore(f"file://{tmp_path}/store/run"), tmp_path)
    record_leaders(journal)
    write_checkpoint(tmp_path / "store" / "run" / CHECKPOINT.format(2))
    leaders = rescoring.Leaders(spec, journal, SearchRecord(journal.load()), storage)
    found = list(rescoring._find_checkpoints(leaders))
    assert found == [(2, 4, f"file://{tmp_path}/store/run/{CHECKPOINT.format(2)}")]  # that of trial 1 was deleted
    assert not (tmp_path / "trials").exists()  # nothing is copied to where other machines do not see it


def test_a_leader_whose_checkpoint_is_damaged_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, journal = tiny(tmp_path, *RESCORE), Journal(tmp_path)
    record_leaders(journal)
    for number in (1, 2):
        write_checkpoint(tmp_path / CHECKPOINT.format(number))
    (tmp_path / CHECKPOINT.format(2) / "trainer.pt").write_bytes(b"torn")
    leaders = rescoring.Leaders(spec, journal, SearchRecord(journal.load()), LocalStorage(tmp_path))
    assert list(rescoring._find_checkpoints(leaders)) == [(1, 4, str(tmp_path / CHECKPOINT.format(1)))]
    (line,) = caplog.messages
    assert line.startswith("trial 2 could not be judged again (--resume tries it once more): ")
    assert "cannot be read as a checkpoint" in line


@pytest.mark.parametrize("checkpoint", ["{}", "file://{}"], ids=["a folder", "a URI"])
@pytest.mark.parametrize("attack", ["apgd_t", "autoattack"])
def test_leaders_are_judged_again_by_the_attack_that_is_asked_for(
    tmp_path: Path, attack: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(name: str, network: nn.Module, examples: Examples, evaluation: StricterEvaluation) -> dict[str, Any]:
        assert not network.training and evaluation == spec.rescoring and len(examples) == 30
        return {"clean": np.arange(30) < 24, "apgd_ce": np.arange(30) < 20, name: np.arange(30) < 15}

    spec = tiny(tmp_path, *RESCORE, f"rescore.attack={attack}")
    write_checkpoint(tmp_path)
    monkeypatch.setattr(robustness, "evaluate_under", evaluate)
    on_cpu = plan_resources(spec, [Machine(1, 0)])
    metrics = rescoring._judge(spec, checkpoint.format(tmp_path), on_cpu, None)
    assert metrics == {
        "examples": 30, "clean_accuracy": 0.8, "pgd_accuracy": 0.5,
        "clean_accuracy_se": pytest.approx((0.16 / 30) ** 0.5), "pgd_accuracy_se": pytest.approx((0.25 / 30) ** 0.5),
        "autoattack_version": autoattack_version.installed_version(),
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
