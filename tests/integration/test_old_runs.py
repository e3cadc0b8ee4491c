"""A search that version 0.1.0 began is resumed and gives the trials that 0.1.0 gave."""

from pathlib import Path

import pytest

from tests.support.old_runs import FOLDER, assert_same_results, copy_run
from tune_cure.cli.main import main


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_search_of_version_0_1_0_is_resumed_to_the_same_trials(tmp_path: Path) -> None:
    folder = copy_run("interrupted", tmp_path)

    assert main(["search", "--space", str(folder / "spec.yaml"), "--output", str(folder), "--resume"]) == 0

    assert_same_results(folder / "trials.csv", FOLDER / "interrupted_resumed" / "trials.csv")
