"""A training run that version 0.1.0 began is resumed and gives the numbers that 0.1.0 gave."""

from pathlib import Path

from tests.support.old_runs import FOLDER, assert_same_results, copy_run
from tune_cure.cli.main import main


def test_a_training_run_is_resumed_to_the_numbers_of_the_version_that_began_it(tmp_path: Path) -> None:
    folder = copy_run("trained", tmp_path)

    assert main(["train", "--output", str(folder), "--resume", "--test"]) == 0

    assert_same_results(folder / "epochs.csv", FOLDER / "trained_resumed" / "epochs.csv")
    assert_same_results(folder / "test.csv", FOLDER / "trained_resumed" / "test.csv")
