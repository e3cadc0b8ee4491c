import json
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tests.support.confirmations import finish, plan_quick_jobs, write_best_outcomes, write_outcomes
from tune_cure.confirmation.saved import SavedConfirmationError, read_confirmation
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.search import run_files


@pytest.fixture
def written(tmp_path: Path) -> Confirmation:
    confirmation = finish(plan_quick_jobs(tmp_path), leader=0.6, baseline=0.4)
    confirmation.write(tmp_path / run_files.CONFIRM)
    return confirmation


def test_tables_that_are_read_back_give_the_same_means_verdicts_and_warnings(
    written: Confirmation, tmp_path: Path
) -> None:
    read = read_confirmation(tmp_path)
    assert read is not None
    assert_frame_equal(read.means(), written.means())
    assert_frame_equal(read.comparisons(), written.comparisons())
    assert read.masking_warnings() == written.masking_warnings()
    assert (read.num_planned, read.num_judged) == (12, 12)


def test_a_search_without_a_confirmation_has_none_to_read(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    assert read_confirmation(tmp_path) is None
    (tmp_path / run_files.CONFIRM).mkdir()
    Confirmation(jobs).write(tmp_path / run_files.CONFIRM)
    assert read_confirmation(tmp_path) is None


def test_an_unfinished_confirmation_knows_how_many_runs_were_planned(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    write_outcomes(jobs[0], 0.5)
    Confirmation(jobs).write(tmp_path / run_files.CONFIRM)
    read = read_confirmation(tmp_path)
    assert read is not None
    assert (read.num_judged, read.num_planned) == (1, 12)


def test_runs_that_the_command_left_out_are_read_back_unless_they_cannot_be_meant(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    finish(jobs)
    Confirmation([job for job in jobs if job.seed == 1 or job.candidate.kind == "leader"]).write(
        tmp_path / run_files.CONFIRM
    )
    read = read_confirmation(tmp_path)
    assert read is not None
    left_out = [(name, seed, 0.15) for name in ("fgsm", "start_from") for seed in (2, 3)]
    assert read.left_out == left_out
    file = tmp_path / run_files.CONFIRM / run_files.CONFIRM_SUMMARY
    content = json.loads(file.read_text())
    for wrong in ("fgsm", [["<b>", 1, 0.15]], [["fgsm", "1", 0.15]], [["fgsm", 1]], [5], [["fgsm", 1, 10**400]]):
        file.write_text(json.dumps({**content, "left_out": wrong}))
        damaged = read_confirmation(tmp_path)
        assert damaged is not None
        assert damaged.left_out == []


def test_a_run_that_autoattack_has_not_judged_yet_is_not_done(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    for job in jobs:
        write_outcomes(job, 0.5, autoattack=job.seed == 1)
    written = Confirmation(jobs)
    assert (written.num_judged, written.num_planned) == (4, 12)
    written.write(tmp_path / run_files.CONFIRM)
    read = read_confirmation(tmp_path)
    assert read is not None
    assert (read.num_judged, read.num_planned) == (4, 12)


def test_tables_of_version_0_1_0_are_read(written: Confirmation, tmp_path: Path) -> None:
    folder = tmp_path / run_files.CONFIRM
    table = pd.read_csv(folder / run_files.CONFIRM_TABLE)
    table = table[table.columns[: list(table.columns).index("held_out")]].drop(columns="chance")
    table.to_csv(folder / run_files.CONFIRM_TABLE, index=False)
    read = read_confirmation(tmp_path)
    assert read is not None
    assert read.num_planned == 12
    assert_frame_equal(read.comparisons(), written.comparisons())


def test_the_version_of_autoattack_is_read_back_and_is_not_known_in_tables_of_version_0_2_0(
    written: Confirmation, tmp_path: Path
) -> None:
    read = read_confirmation(tmp_path)
    assert read is not None
    assert read.autoattack == written.autoattack == "AutoAttack is that of the package pyautoattack 0.2.0."
    file = tmp_path / run_files.CONFIRM / run_files.CONFIRM_TABLE
    pd.read_csv(file).drop(columns="autoattack_version").to_csv(file, index=False)
    older = read_confirmation(tmp_path)
    assert older is not None
    assert older.table["autoattack_version"].eq("").all() and older.autoattack == ""


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (run_files.CONFIRM_TABLE, ""),
        (run_files.CONFIRM_TABLE, "a,b\n1,2\n"),
        (run_files.CONFIRM_TABLE, "\x00"),
        (run_files.CONFIRM_SUMMARY, "{"),
        (run_files.OUTCOMES, ""),
        (run_files.OUTCOMES, "PK\x03\x04"),
    ],
)
def test_a_damaged_table_is_one_line_with_its_name(
    file: str, content: str, written: Confirmation, tmp_path: Path
) -> None:
    (tmp_path / run_files.CONFIRM / file).write_text(content)
    with pytest.raises(SavedConfirmationError) as raised:
        read_confirmation(tmp_path)
    assert file in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",leader,", ",loser,"),
        (",400,", ",4,"),
        (",400,", ",1,"),
        (",0.15,", ",0.2,"),
        (",3.0,", ",inf,"),
        (",3.0,", ",,"),
        ("start_from,", "fgsm,"),
        (",0.2.0", ",<b>"),
    ],
)
def test_a_table_that_contradicts_its_outcomes_is_refused(
    old: str, new: str, written: Confirmation, tmp_path: Path
) -> None:
    file = tmp_path / run_files.CONFIRM / run_files.CONFIRM_TABLE
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SavedConfirmationError):
        read_confirmation(tmp_path)


def test_without_the_packed_outcomes_those_of_the_runs_are_read(written: Confirmation, tmp_path: Path) -> None:
    (tmp_path / run_files.CONFIRM / run_files.OUTCOMES).unlink()
    read = read_confirmation(tmp_path)
    assert read is not None
    assert_frame_equal(read.comparisons(), written.comparisons())
    file = next((tmp_path / run_files.CONFIRM).glob(f"fgsm/seed-1/*/{run_files.OUTCOMES}"))
    file.write_bytes(b"damaged")
    with pytest.raises(SavedConfirmationError, match="is damaged"):
        read_confirmation(tmp_path)


@pytest.fixture
def with_best(tmp_path: Path) -> Confirmation:
    jobs = plan_quick_jobs(tmp_path, held_out=50)
    finish(jobs)
    for job in jobs[:5]:
        write_best_outcomes(job, 40, best_epoch=job.seed)
    confirmation = Confirmation(jobs)
    confirmation.write(tmp_path / run_files.CONFIRM)
    return confirmation


@pytest.mark.parametrize("is_packed", [True, False])
def test_best_weights_are_read_back(is_packed: bool, with_best: Confirmation, tmp_path: Path) -> None:
    if not is_packed:
        (tmp_path / run_files.CONFIRM / run_files.OUTCOMES).unlink()
    read = read_confirmation(tmp_path)
    assert read is not None
    assert_frame_equal(read.robust_overfitting(), with_best.robust_overfitting())
    assert_frame_equal(read.table, with_best.table)


@pytest.mark.parametrize("best_epoch", ["", "1.5", "x", "9223372036854775808"])
def test_best_weights_without_their_epoch_are_refused(best_epoch: str, with_best: Confirmation, tmp_path: Path) -> None:
    file = tmp_path / run_files.CONFIRM / run_files.CONFIRM_TABLE
    table = pd.read_csv(file, dtype=str)
    table.loc[0, "best_epoch"] = best_epoch
    table.to_csv(file, index=False)
    with pytest.raises(SavedConfirmationError, match="is no table of a confirmation"):
        read_confirmation(tmp_path)


@pytest.mark.parametrize("missing", [1, 3])
def test_the_winner_is_read_back_where_its_runs_are_missing(missing: int, tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    winner = jobs[0].candidate.name
    finish([job for job in jobs if job.candidate.name != winner or job.seed > missing])
    Confirmation(jobs).write(tmp_path / run_files.CONFIRM)
    read = read_confirmation(tmp_path)
    assert read is not None
    assert read.table["contender"].iloc[0] != winner
    assert read.winner == winner


def test_a_table_without_the_winners_name_has_the_first_leader_as_winner_once_all_runs_are_there(
    tmp_path: Path,
) -> None:
    jobs = plan_quick_jobs(tmp_path)
    finish(jobs[1:])
    file = tmp_path / run_files.CONFIRM / run_files.CONFIRM_SUMMARY
    for planned, winner in ((jobs[1:], jobs[1].candidate.name), (jobs, None)):
        Confirmation(planned).write(tmp_path / run_files.CONFIRM)
        content = json.loads(file.read_text())
        del content["winner"]
        file.write_text(json.dumps(content))
        read = read_confirmation(tmp_path)
        assert read is not None
        assert read.winner == winner
