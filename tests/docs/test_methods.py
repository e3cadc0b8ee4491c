"""docs/methods.md is what the presets say, and what their steps cost is counted."""

import pytest

from tools import methods
from tune_cure.training.presets import METHODS, NO_METHOD, expand_method

NAMES = [name for name in METHODS if name != NO_METHOD]


def test_the_table_of_methods_is_what_the_presets_say_and_the_counts_are() -> None:
    page = methods.PAGE.read_text(encoding="utf-8")
    assert page == methods.written(page), "run: make reference"
    assert all(f"\n| `{name}` |" in page for name in NAMES)


@pytest.mark.parametrize(
    ("method", "passes", "work"),
    [
        ("fgsm_rs", 2, 5),  # one pass and its gradient to the images: 2; one pass and both gradients: 3
        ("pgd", 8, 17),  # seven times 2, and 3
        ("ssat", 4, 7),  # two passes more, without gradients
    ],
)
def test_the_counts_of_plain_methods_are_those_by_hand(method: str, passes: int, work: float) -> None:
    counted = methods.count_cost(expand_method({"method": method}))
    assert counted[0] == passes
    assert counted[1] == pytest.approx(work, abs=0.05)  # the first layer takes no gradient to what is before it
