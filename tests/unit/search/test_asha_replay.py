from pathlib import Path

import pandas as pd
import pytest

from tests.support.journals import VALUES, epoch
from tests.support.spaces import tiny
from tune_cure.cli import main as cli
from tune_cure.search import asha_replay, run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult

LEVELS = [0.10, 0.30, 0.40, 0.20, 0.15, 0.60]  # of the trials after their first epoch
GAINS = [0.02, 0.02, 0.02, 0.02, 0.02, 0.01]  # in each of the three that follow


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six whole curves of four epochs, one trial after the other; the last is the best. None is of start_from."""
    tiny(tmp_path, "search.scheduler=none", "start_from=[]")
    journal = Journal(tmp_path)
    for number, (level, gain) in enumerate(zip(LEVELS, GAINS, strict=True)):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        for at in range(1, 5):
            accuracy = level + gain * (at - 1)
            epoch(journal, number, at, accuracy, accuracy, ended="completed" * (at == 4))
        journal.append("end", number, status="completed", reason="")
    return tmp_path


def test_a_replay_stops_what_asha_would_have_stopped(run: Path) -> None:
    row = asha_replay.write(SearchResult(run), [1], [2.0]).iloc[0]
    # Rungs after 1 and 2 epochs, the median of those before to pass: trials 3 (0.2 < 0.3) and 4 (0.15 < 0.25) fail at
    # the first, 0, 1, 2 and 5 are always ahead.
    assert row["stopped"] == 2
    assert row["epochs"] == 4 * 4 + 2
    assert row["epochs_saved"] == pytest.approx(1 - 18 / 24)
    assert (row["winner_kept"], row["regret"]) == (True, 0.0)
    assert row["best"] == pytest.approx(0.63)
    assert pd.read_csv(run / run_files.REPLAY).iloc[0]["epochs"] == 18


def test_a_winner_that_starts_badly_is_lost_by_a_short_grace_and_found_by_a_longer_one(run: Path) -> None:
    journal = Journal(run)
    journal.append("trial", 6, origin="sampler", hyperparameters=VALUES)
    for at, accuracy in enumerate((0.05, 0.5, 0.8, 0.9), start=1):
        epoch(journal, 6, at, accuracy, accuracy, ended="completed" * (at == 4))
    journal.append("end", 6, status="completed", reason="")
    short, long = (row for _, row in asha_replay.write(SearchResult(run), [1, 2], [2.0]).iterrows())
    assert (short["winner_kept"], long["winner_kept"]) == (False, True)
    assert short["regret"] == pytest.approx(0.9 - 0.63)
    assert long["regret"] == 0


def test_other_orders_tell_luck_from_a_grace_period_that_is_long_enough(run: Path) -> None:
    journal = Journal(run)
    journal.append("trial", 6, origin="sampler", hyperparameters=VALUES)
    for at, accuracy in enumerate((0.25, 0.5, 0.8, 0.9), start=1):  # in the middle at first
        epoch(journal, 6, at, accuracy, accuracy, ended="completed" * (at == 4))
    journal.append("end", 6, status="completed", reason="")
    short, long = (row for _, row in asha_replay.write(SearchResult(run), [1, 4], [2.0]).iterrows())
    assert 0 < short["winner_kept_mean"] < 1
    assert short["regret_mean"] == pytest.approx((1 - short["winner_kept_mean"]) * (0.9 - 0.63), abs=0.02)
    assert (long["winner_kept_mean"], long["regret_mean"], long["epochs_saved_mean"]) == (1, 0, 0)


def test_an_epoch_that_ran_twice_is_replayed_once(run: Path) -> None:
    before = asha_replay.write(SearchResult(run), [1], [2.0])
    epoch(Journal(run), 5, 2, 0.0, 0.0)
    assert asha_replay.write(SearchResult(run), [1], [2.0]).equals(before)


def test_curves_that_were_cut_short_are_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", str(run), "--grace-period", "1", "2", "--reduction-factor", "2"]) == 0
    out = capsys.readouterr().out
    assert "6 of 6 learning curves are complete" in out
    assert "regret* of at most a standard error of the winner (4.8): grace_period 1, reduction_factor 2" in out
    assert "search.scheduler=none" not in out
    journal = run / "journal.jsonl"
    ends = [line for line in journal.read_text().splitlines() if '"event": "end", "trial": 3' in line]
    journal.write_text(journal.read_text().replace(ends[0], ends[0].replace("completed", "stopped")))
    assert asha_replay.count_complete_curves(SearchResult(run)) == (5, 6)
    cli.main(["replay", str(run)])
    assert "--set search.scheduler=none" in capsys.readouterr().out


def pairs(*rows: tuple[int, float, float, float]) -> pd.DataFrame:
    """A replay of pairs with factor 2: grace period, regret, regret* and saved*."""
    names = ["grace_period", "regret", "regret_mean", "epochs_saved_mean"]
    frame = pd.DataFrame(rows, columns=names).assign(reduction_factor=2.0)
    return frame.assign(winner_kept_mean=1 - frame["regret_mean"])


def test_a_pair_that_loses_the_winner_is_not_recommended_for_its_saving() -> None:
    # Grace 1 lost the recorded winner, by 7.2 points, though in the mean of other orders it loses little.
    weighed = asha_replay.weigh(pairs((1, 0.072, 0.015, 0.51), (2, 0.0, 0.004, 0.38), (3, 0.0, 0.004, 0.30)), 0.026)
    assert weighed["grace_period"].tolist() == [2, 1]  # grace 3 keeps no more than 2, and saves less
    assert weighed["recommended"].tolist() == [True, False]


def test_of_pairs_that_lose_no_more_than_the_noise_the_one_that_saves_most_is_recommended() -> None:
    weighed = asha_replay.weigh(pairs((3, 0.0, 0.0, 0.2), (2, 0.01, 0.02, 0.4), (1, 0.01, 0.05, 0.6)), 0.026)
    assert weighed["grace_period"].tolist() == [3, 2, 1]
    assert weighed["recommended"].tolist() == [False, True, False]


def test_where_every_pair_loses_more_than_the_noise_the_least_loss_is_recommended_and_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weighed = asha_replay.weigh(pairs((2, 0.05, 0.06, 0.4), (1, 0.1, 0.05, 0.6)), 0.026)
    assert weighed["recommended"].tolist() == [True, False]
    journal = Journal(run)
    journal.append("trial", 6, origin="sampler", hyperparameters=VALUES)
    for at, accuracy in enumerate((0.05, 0.5, 0.8, 0.9), start=1):
        epoch(journal, 6, at, accuracy, accuracy, ended="completed" * (at == 4))
    journal.append("end", 6, status="completed", reason="")
    assert cli.main(["replay", str(run), "--grace-period", "1", "--reduction-factor", "2", "3"]) == 0
    out = capsys.readouterr().out
    assert (
        "every pair loses more than a standard error of the winner (3.0); the least is lost with grace_period 1" in out
    )
    assert "what is kept, against what is saved" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grace-period", "5"], "--grace-period: 1 to 4 epochs are possible, but found 5"),
        (["--reduction-factor", "1.05"], "--reduction-factor: must be at least 1.5, but found 1.05"),
        (["--reduction-factor", "inf"], "--reduction-factor: must be at least 1.5, but found inf"),
    ],
)
def test_numbers_that_asha_cannot_have_are_one_line(
    run: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(run), *arguments]) == 2
    assert capsys.readouterr().err == f"tune-cure: {said}\n"


def test_a_folder_without_a_search_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert "holds no search" in capsys.readouterr().err
