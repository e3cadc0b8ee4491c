"""Names that a search space decides: figures and columns are called by them."""

from pathlib import Path

import pytest

from tests.support.spaces import TINY
from tune_cure.search.space import loading
from tune_cure.utils.yaml_config import SpecError
from tune_cure.utils.yaml_parser import parse


@pytest.mark.parametrize("name", ["../../x", "a/b", "<b>", "a b", "\x1b[2J", "\u202ex", "", "a.b", "1a"])
@pytest.mark.parametrize("section", ["space", "training"])
def test_a_hyperparameter_of_a_part_that_is_not_imported_has_a_name_that_a_file_can_have(
    name: str, section: str, tmp_path: Path
) -> None:
    content = parse(TINY)
    content["training"]["regularizer"] = "not_imported:Penalty"
    content[section][name] = {"uniform": [0, 1]} if section == "space" else 1
    with pytest.raises(SpecError, match="is no name of a hyperparameter: letters, digits and _ are allowed"):
        loading.load_mapping(content)


def test_other_names_are_taken_as_they_are() -> None:
    content = parse(TINY)
    content["training"]["regularizer"] = "not_imported:Penalty"
    content["space"]["power_2"] = {"uniform": [0, 1]}
    content["start_from"] = []
    assert "power_2" in loading.load_mapping(content).space


def test_epochs_beyond_what_can_be_plotted_are_refused() -> None:
    content = parse(TINY)
    content["training"]["epochs"] = 9 * 10**15
    with pytest.raises(
        SpecError, match=r"training\.epochs: .*less than or equal to 100000, but found 9000000000000000"
    ):
        loading.load_mapping(content)
