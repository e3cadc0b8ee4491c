from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.league.stopping import LeagueStopper
from tune_cure.search.stopping import SearchStopper


@pytest.fixture
def league(tmp_path: Path) -> LeagueStopper:
    league = LeagueStopper()
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "journal.jsonl").touch()
        league.stoppers.append(SearchStopper(tiny(folder), folder, None, []))
    return league


def test_what_ends_one_search_from_outside_ends_all(league: LeagueStopper) -> None:
    assert not league.stop_all()
    league.stoppers[1].end("ray", "Ray has died")
    assert league.stop_all()
    assert [(stopper.outcome, stopper.reason) for stopper in league.stoppers] == [("ray", "Ray has died")] * 2
    assert (league.outcome, league.reason) == ("ray", "Ray has died")


def test_a_search_whose_first_trials_all_fail_ends_alone(league: LeagueStopper) -> None:
    league.stoppers[0].end("failing", "the first 3 trials all failed: broken")
    assert not league.stop_all()
    assert [stopper.outcome for stopper in league.stoppers] == ["failing", ""]


def test_a_folder_that_is_lost_ends_all(league: LeagueStopper) -> None:
    (league.stoppers[0].folder / "journal.jsonl").unlink()
    assert league.stop_all()
    assert [stopper.outcome for stopper in league.stoppers] == ["disk", "disk"]


def test_ctrl_c_ends_all_also_before_they_have_begun(league: LeagueStopper) -> None:
    early = LeagueStopper()
    early.interrupt()
    assert early.stop_all()
    league.interrupt()
    league.interrupt()
    assert [stopper.outcome for stopper in league.stoppers] == ["interrupted", "interrupted"]
    assert (league.outcome, league.num_interrupts) == ("interrupted", 2)
