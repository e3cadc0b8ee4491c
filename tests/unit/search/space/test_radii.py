import pytest

from tests.support.spaces import TINY
from tune_cure.search.space import radii
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load_mapping
from tune_cure.utils.yaml_parser import parse

PICTURES = ["data={dataset: cifar10, validation: 5000}"]


def space(*overrides: str) -> SearchSpec:
    return load_mapping(parse(TINY), overrides, "space")


def test_a_radius_of_pictures_with_8_bits_is_in_255ths() -> None:
    spec = space(*PICTURES, "space.epsilon={uniform: [6/255, 12/255]}", "start_from=[]")
    assert radii.format_setting(spec, "epsilon", 8 / 255) == "8/255"
    assert radii.format_setting(spec, "epsilon", 7.534 / 255) == "7.53/255"
    assert radii.format_setting(spec, "epsilon", None) == "–"
    assert radii.format_distribution(spec, "epsilon") == "uniform [6/255, 12/255]"
    assert radii.format_setting(spec, "lambda", 0.5) == "0.5"


@pytest.mark.parametrize(
    "overrides",
    [[], [*PICTURES, "training.norm=l2"], [*PICTURES, "space.norm={choice: [linf, l2]}"]],
    ids=["digits", "L2", "searched norm"],
)
def test_any_other_radius_is_a_number(overrides: list[str]) -> None:
    spec = space(*overrides, "start_from=[]")
    assert radii.format_setting(spec, "epsilon", 0.1) == "0.1"
    assert radii.format_distribution(spec, "epsilon") == "uniform [0.05, 0.2]"
