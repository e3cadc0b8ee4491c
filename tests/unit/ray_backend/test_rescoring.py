from pathlib import Path

import pandas as pd

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.ray_backend import rescoring
from tune_cure.search import ranking

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
