import re

import numpy as np
import pytest

from tune_cure.search.space.config import SearchConfig
from tune_cure.search.space.objectives import METRICS, Constraint, describe_metric, metrics, pareto_front, reached


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("clean_accuracy >= 0.8", 0.7, 0.1),
        ("clean_accuracy>=0.8", 0.9, -0.1),
        ("clean_accuracy <= 4/5", 0.9, 0.1),
        (" clean_accuracy  <=  8e-1 ", 0.8, 0.0),
    ],
)
def test_a_constraint_says_by_how_much_it_is_violated(text: str, value: float, violation: float) -> None:
    constraint = Constraint.parse(text)
    assert constraint.violation({"clean_accuracy": value}) == pytest.approx(violation)
    assert Constraint.parse(str(constraint)) == constraint


def test_a_constraint_is_parsed_once() -> None:
    assert Constraint.parse("clean_accuracy >= 0.25") is Constraint.parse("clean_accuracy >= 0.25")


def test_what_was_never_measured_violates_a_constraint() -> None:
    assert Constraint.parse("clean_accuracy >= 0.1").violation({"clean_accuracy": None}) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clean_accuracy > 0.8", "METRIC >= NUMBER or METRIC <= NUMBER is needed, but found 'clean_accuracy > 0.8'"),
        ("0.8 <= clean_accuracy", "METRIC >= NUMBER or METRIC <= NUMBER is needed"),
        ("clean_acuracy >= 0.8", "did you mean 'clean_accuracy'?"),
        ("clean_accuracy >= high", "'high' is not a number or a fraction"),
        ("clean_accuracy >= 0.8 or so", "METRIC >= NUMBER"),
    ],
)
def test_what_is_no_constraint_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Constraint.parse(text)


def test_one_metric_and_a_list_of_one_are_the_same() -> None:
    assert metrics("clean_accuracy") == metrics(["clean_accuracy"]) == "clean_accuracy"
    assert metrics(["clean_accuracy", "pgd_accuracy"]) == ["clean_accuracy", "pgd_accuracy"]


@pytest.mark.parametrize("value", [[], 3, ["clean_accuracy", 3], ["clean_accuracy", "clean_accuracy"], "accuracy"])
def test_what_is_no_metric_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"metric|is not one of"):
        metrics(value)


def test_metrics_are_of_the_last_epoch_or_of_the_best() -> None:
    last = {"pgd_accuracy": 0.3, "clean_accuracy": 0.9, "fgsm_accuracy": 0.4, "epoch": 5}
    best = {"pgd_accuracy": 0.5, "clean_accuracy": 0.8, "fgsm_accuracy": 0.6}
    values = reached(last, best)
    assert (values["pgd_accuracy"], values["pgd_accuracy_best"]) == (0.3, 0.5)
    assert (values["clean_accuracy"], values["clean_accuracy_best"]) == (0.9, 0.8)


def test_the_front_is_what_nothing_beats_in_one_without_falling_behind_in_another() -> None:
    points = [(0.5, 0.5), (0.6, 0.4), (0.4, 0.4), (0.5, 0.4), (0.6, 0.4), (0.1, 0.9)]
    assert pareto_front(points, "max") == [True, True, False, False, True, True]
    assert pareto_front(points, "min") == [False, False, True, False, False, True]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_pareto_front_of_many_points_is_that_of_all_pairs(mode: str) -> None:
    points = np.random.default_rng(0).integers(0, 12, (60, 3)) / 12  # some are equal
    signed = points if mode == "max" else -points
    beaten = [any((other >= point).all() and (other > point).any() for other in signed) for point in signed]
    assert pareto_front(points.tolist(), mode) == [not is_beaten for is_beaten in beaten]
    assert pareto_front([], mode) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pgd_accuracy_best", "the best PGD accuracy of any epoch"),
        ("pgd_accuracy", "the PGD accuracy after the last epoch"),
        ("fgsm_accuracy", "the FGSM accuracy after the last epoch"),
        ("clean_accuracy", "the clean accuracy after the last epoch"),
        ("clean_accuracy_best", "the clean accuracy at the epoch of the best PGD accuracy"),
        ("fgsm_accuracy_best", "the FGSM accuracy at the epoch of the best PGD accuracy"),
    ],
)
def test_a_metric_is_described_in_words(name: str, words: str) -> None:
    assert describe_metric(name) == words


def test_every_metric_has_a_description_of_its_own() -> None:
    assert len({describe_metric(name) for name in METRICS}) == len(METRICS)


@pytest.mark.parametrize(("count", "text"), [(240, "clean_accuracy >= 2/3"), (120, "clean_accuracy <= 1/3")])
def test_a_bound_is_stored_exactly_so_that_the_count_that_meets_it_keeps_it(count: int, text: str) -> None:
    (stored,) = SearchConfig(constraints=[text]).constraints
    assert str(Constraint.parse(stored)) == stored
    assert Constraint.parse(stored).violation({"clean_accuracy": count / 360}) == 0
    for simple in ("clean_accuracy >= 0.8", "clean_accuracy <= 1"):
        assert str(Constraint.parse(simple)) == simple
