from pathlib import Path

import pytest

from tests.support.comparisons import EPOCH_HOURS, write_epochs
from tune_cure.confirmation.searches.lead import find_lasting_lead, leader_progress


def test_best_so_far_counts_sound_trials_in_order_of_time(tmp_path: Path) -> None:
    lines = [(0, 1, 0.2), (2, 1, 0.9), (1, 1, 0.3), (0, 2, 0.3), (1, 2, 0.25), (0, 3, 0.5), (1, 3, 0.4)]
    frame = leader_progress(write_epochs(tmp_path, lines, statuses={2: "diverged"}))
    # Of equals the trial with the lower number leads, as in results.ranked.
    assert frame[["epochs", "objective", "trial"]].to_numpy().tolist() == [
        [1, 0.2, 0], [3, 0.3, 1], [4, 0.3, 0], [6, 0.5, 0], [7, 0.5, 0],
    ]  # fmt: skip
    assert frame["device_hours"].tolist() == pytest.approx([EPOCH_HOURS * n for n in (1, 3, 4, 6, 7)])


def test_a_leader_that_falls_back_loses_the_lead(tmp_path: Path) -> None:
    result = write_epochs(tmp_path, [(0, 1, 0.4), (1, 1, 0.3), (0, 2, 0.1)], "search.metric=pgd_accuracy")
    frame = leader_progress(result)
    assert frame[["epochs", "objective", "trial"]].to_numpy().tolist() == [[1, 0.4, 0], [3, 0.3, 1]]
    assert result.best is not None
    assert result.best.trial == 1


def test_the_lowest_objective_leads_in_mode_min(tmp_path: Path) -> None:
    lines = [(0, 1, 0.4), (1, 1, 0.5), (2, 1, 0.1)]
    result = write_epochs(tmp_path, lines, "search.metric=pgd_accuracy", "search.mode=min")
    assert leader_progress(result)[["objective", "trial"]].to_numpy().tolist() == [[0.4, 0], [0.1, 2]]


def test_a_lasting_lead_begins_after_the_last_other_leader(tmp_path: Path) -> None:
    lines = [(0, 1, 0.075), (1, 1, 0.3), (0, 2, 0.4), (1, 2, 0.35), (0, 3, 0.5)]
    assert find_lasting_lead(write_epochs(tmp_path, lines)) == (3, pytest.approx(3 * EPOCH_HOURS))


def test_a_winner_by_the_second_judgment_has_no_lasting_lead(tmp_path: Path) -> None:
    lines = [(0, 1, 0.8), (1, 1, 0.7)]
    assert find_lasting_lead(write_epochs(tmp_path / "a", lines)) == (1, pytest.approx(EPOCH_HOURS))
    assert find_lasting_lead(write_epochs(tmp_path / "b", lines, again={0: 0.3, 1: 0.6})) is None
