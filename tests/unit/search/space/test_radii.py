import pytest

from tests.support.spaces import TINY
from tune_cure.search.space import radii
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load_mapping
from tune_cure.utils.yaml_config import SpecError
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


@pytest.mark.parametrize("norm", ["training.norm=l2", "space.norm={choice: [linf, l2]}", "evaluation={norm: l2}"])
def test_a_norm_other_than_linf_needs_a_radius_of_its_own(norm: str) -> None:
    changes = ["space={lr_max: {uniform: [0.01, 0.1]}}", "start_from=[]", norm]
    section = "evaluation" if "evaluation" in norm else "training"
    with pytest.raises(SpecError) as caught:
        space(*changes)
    assert str(caught.value) == f"space: {section}.epsilon: is needed with norm l2: its default is a radius in linf"
    assert space(*changes, f"{section}.epsilon=0.5").search.trials == 8
    if section == "training":
        assert space(*changes, "space.epsilon={uniform: [0.1, 0.5]}").search.trials == 8
