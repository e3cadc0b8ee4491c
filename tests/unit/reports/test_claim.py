"""Claims to RobustBench: from confirmed weights alone, in the form that its own code reads."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.exported_models import write_confirmed_runs, write_search_with_model
from tune_cure.attacks.registry import NORMS
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.reports.export import bundle, claim
from tune_cure.reports.export.bundle import ExportedModel
from tune_cure.reports.export.measurements import ExportError, Measurement
from tune_cure.search.results import SearchResult


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_search_with_model(tmp_path)


def measured(epsilon: float, images: int = 10_000, **accuracies: float) -> tuple[Measurement, ...]:
    names = {"clean": "clean", "pgd": "PGD-50-10", "autoattack": "AutoAttack", "untargeted": "AutoAttack (untargeted)"}
    return tuple(
        Measurement(
            "test", names[key], "linf", epsilon, images, accuracy, autoattack_version="0.2.0" * (key == "autoattack")
        )
        for key, accuracy in accuracies.items()
    )


@pytest.fixture
def confirmed(result: SearchResult) -> ExportedModel:
    """A network that a confirmation judged on CIFAR-10, as RobustBench does; its numbers are made up."""
    name = write_confirmed_runs(result, 1)[0].candidate.name
    return dataclasses.replace(
        bundle.collect_confirmed_model(result, name, None),
        data=DataSpec(dataset="cifar10"),
        image_size=(32, 32),
        evaluation=EvaluationConfig(epsilon=8 / 255),
        measured=(
            *measured(8 / 255, clean=0.83721, pgd=0.5, autoattack=0.46404),
            *measured(4 / 255, clean=0.83721, autoattack=0.7),
        ),
    )


def test_the_record_has_the_numbers_of_the_weights_and_leaves_the_paper_to_its_authors(
    confirmed: ExportedModel,
) -> None:
    record = json.loads(claim.build_claim(confirmed)["robustbench.json"])
    assert {name: record[name] for name in ("dataset", "eps", "clean_acc", "autoattack_acc", "reported")} == {
        "dataset": "cifar10", "eps": "8/255", "clean_acc": "83.72", "autoattack_acc": "46.40", "reported": "46.40",
    }  # fmt: skip
    assert record["architecture"] == "small_cnn of width 4"
    assert (record["additional_data"], record["number_forward_passes"]) == (False, 1)
    assert {name for name, value in record.items() if value is None} == {"link", "name", "authors", "venue"}


def test_clean_and_robust_accuracy_are_of_the_most_images_that_autoattack_judged(confirmed: ExportedModel) -> None:
    fewer = measured(8 / 255, 1_000, clean=0.7, pgd=0.4, autoattack=0.3)
    more = measured(8 / 255, 20_000, clean=0.9, pgd=0.6)
    files = claim.build_claim(dataclasses.replace(confirmed, measured=(*fewer, *confirmed.measured, *more)))
    record = json.loads(files["robustbench.json"])
    assert (record["clean_acc"], record["autoattack_acc"]) == ("83.72", "46.40")
    assert "on 10,000 test images" in files["robustbench.md"].decode()


def test_the_form_answers_what_is_known(confirmed: ExportedModel) -> None:
    form = claim.build_claim(confirmed)["robustbench.md"].decode()
    for line in (
        "- **Paper Title**:",
        "- **Architecture**: small_cnn of width 4",
        "- **Threat Model**: Linf",
        "- **eps**: 8/255",
        "- **Clean accuracy**: 83.72%",
        "- **Robust accuracy**: 46.40%",
        "- **Additional data**: false",
        "- **Evaluation method**: AutoAttack, standard version (pyautoattack 0.2.0), on 10,000 test images of cifar10",
        "- **Checkpoint and code**:",
    ):
        assert line in form.splitlines()


def test_a_norm_of_the_users_own_has_no_leaderboard(confirmed: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NORMS, "l1", NORMS["l2"])
    with pytest.raises(ExportError, match="has no leaderboard for cifar10 in l1; there are cifar10"):
        claim.build_claim(dataclasses.replace(confirmed, evaluation=EvaluationConfig(norm="l1", epsilon=0.5)))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"is_confirmed": False}, "`tune-cure confirm` makes some, and --confirmed NAME takes one"),
        (
            {"data": DataSpec(dataset="digits")},
            "has no leaderboard for digits in Linf; there are cifar10 \\(Linf 8/255\\), cifar10",
        ),
        ({"image_size": (16, 16)}, "has no leaderboard for cifar10"),
        ({"measured": measured(8 / 255, clean=0.8, pgd=0.5)}, "AutoAttack has not judged these weights at Linf 8/255"),
        ({"measured": measured(8 / 255, clean=0.8, untargeted=0.5)}, "AutoAttack has not judged"),
        ({"measured": measured(4 / 255, clean=0.8, autoattack=0.5)}, "with --epsilons 8/255 where the search has"),
    ],
)
def test_what_was_not_confirmed_as_robustbench_judges_is_refused_in_one_line(
    confirmed: ExportedModel, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(ExportError, match=error) as refused:
        claim.build_claim(dataclasses.replace(confirmed, **changes))
    assert "\n" not in str(refused.value)
