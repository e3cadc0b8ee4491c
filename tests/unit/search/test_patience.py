from pathlib import Path

import pytest

from tests.support.journal_lines import begin, end, epoch
from tests.support.spaces import tiny
from tune_cure.search.journal import Journal
from tune_cure.search.patience import Patience, is_search_over, replay_patience
from tune_cure.search.results import SearchResult

ENDS = [(0, 0.4, "completed"), (2, 0.3, "stopped"), (1, 0.5, "completed"), (3, 0.9, "catastrophic_overfitting")]


def write(folder: Path, *overrides: str, running: bool = False) -> SearchResult:
    """A search of which four trials of eight have ended, trial 1 after trial 2 and better than all before."""
    tiny(folder, *overrides)
    journal = Journal(folder)
    for number in range(4):
        begin(journal, number)
    for number, pgd, status in ENDS:
        epoch(journal, number, pgd_accuracy=pgd, clean_accuracy=0.9, fgsm_accuracy=pgd, objective=pgd)
        end(journal, number, status)
    if running:
        begin(journal, 4)
    return SearchResult(folder)


def test_a_search_is_over_when_all_its_trials_have_ended(tmp_path: Path) -> None:
    assert is_search_over(write(tmp_path, "search.trials=4"))
    tiny(tmp_path, "search.trials=5")
    assert not is_search_over(SearchResult(tmp_path))


def test_a_search_without_trials_is_not_over(tmp_path: Path) -> None:
    tiny(tmp_path, "search.patience=1")
    Journal(tmp_path).path.touch()
    assert not is_search_over(SearchResult(tmp_path))


@pytest.mark.parametrize(("patience", "expected"), [(1, True), (2, False)])
def test_a_search_that_was_interrupted_is_over_only_if_its_patience_is_used_up(
    patience: int, expected: bool, tmp_path: Path
) -> None:
    assert is_search_over(write(tmp_path, f"search.patience={patience}")) == expected


def test_a_search_whose_patience_is_used_up_goes_on_as_long_as_a_trial_does(tmp_path: Path) -> None:
    assert not is_search_over(write(tmp_path, "search.patience=1", running=True))


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("constraints", ["[]", "[pgd_accuracy <= 0.45]"])
def test_a_folder_and_its_events_as_they_come_use_up_patience_alike(
    mode: str, patience: int, constraints: str, tmp_path: Path
) -> None:
    overrides = (f"search.mode={mode}", f"search.patience={patience}", f"search.constraints={constraints}")
    result = write(tmp_path, *overrides)
    live = Patience(result.spec)
    for event in Journal(tmp_path).read():
        live.take(event)
    assert replay_patience(result).is_used_up == live.is_used_up
