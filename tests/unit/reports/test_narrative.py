import pytest

from tune_cure.reports.narrative import describe_metric
from tune_cure.search.space.objectives import METRICS


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
