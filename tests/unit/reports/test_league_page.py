import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.support.leagues import finish_league, plan_league, write_league
from tune_cure.cli import evaluate
from tune_cure.cli.main import build_parser
from tune_cure.confirmation.saved import SavedConfirmationError
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.league.folder import League
from tune_cure.reports.league import files, page as league_page
from tune_cure.search import run_files

METHODS = {"cure": "cure", "fgsm": "fgsm_rs", "slow": "n_fgsm"}


@pytest.fixture
def league(tmp_path: Path) -> League:
    return write_league(tmp_path, METHODS)


def test_the_page_says_who_wins_and_what_cannot_be_said_and_shows_what_that_rests_on(league: League) -> None:
    finish_league(league, {"cure": 0.6, "fgsm": 0.4, "slow": 0.38, "cure-preset": 0.4})
    files.write(league)
    page = (league.folder / files.PAGE).read_text()
    body = page.split("</style>")[1].split("<script>")[0]
    head = body.split("</header>")[0]
    assert "<strong>cure wins: it has " in head and "is better than each of the others." in head
    for title in ("Standings", "What cannot be said", "Accuracy and training time", "What tuning was worth",
                  "Every pair", "Learning curves of the winners", "Collapses, and how much the trials differ",
                  "Best and last weights", "Winning configurations", "Every run", "How it was run"):  # fmt: skip
        assert f">{title}</h2>" in body
    assert "1 of 3 pairs of methods cannot be told apart" in body
    assert "AutoAttack is that of the package pyautoattack 0.2.0.</p>" in body.split(">Standings</h2>")[1]
    assert pd.read_csv(league.folder / files.TABLE)["autoattack_version"].eq("0.2.0").all()
    assert "Tuning helped cure (" in body
    assert "a method may depend on its hyperparameters more than its quartiles show" in body
    assert "The networks that were judged here have other seeds, and other numbers." in body
    assert re.search(r"tune-cure train --config \S+/cure/trials\.csv --trial \d+", body)
    assert f"tune-cure league --resume {league.folder}" in body
    models = " ".join(f"{name}={league.folder}/confirm/{name}/seed-1/model.pt" for name in METHODS)
    assert f"tune-cure evaluate {models} --examples 300</code>" in body
    assert body.count('class="plot"') == 5
    assert "https://" not in body
    standings = files.read_standings(league)
    assert standings is not None
    for name, seconds in standings.confirmation.shortest_trainings().items():
        assert name not in METHODS or f'<td class="number" data-sort="{seconds:.6g}">' in body


def test_tables_and_page_are_made_anew_from_the_folder_alone_to_the_last_byte(league: League) -> None:
    finish_league(league, {"cure": 0.6})
    files.write(league)
    before = {
        name: (league.folder / name).read_bytes() for name in (files.TABLE, files.PAIRS, files.TUNING, files.PAGE)
    }
    for name in before:
        (league.folder / name).unlink()
    for model in (league.folder / run_files.CONFIRM).rglob("*.pt"):
        model.unlink()
    files.write(League.read(league.folder))
    assert {name: (league.folder / name).read_bytes() for name in before} == before
    standings = files.read_standings(league)
    assert standings is not None
    pairs, tuning = (pd.read_csv(league.folder / name) for name in (files.PAIRS, files.TUNING))
    pd.testing.assert_frame_equal(pairs, standings.pairs)
    pd.testing.assert_frame_equal(tuning, standings.tuning)
    assert (len(pairs), len(tuning)) == (3, 3)
    table = pd.read_csv(league.folder / files.TABLE)
    assert table.groupby("method", sort=False).size().to_dict() == dict.fromkeys(table["method"].unique(), 3)


def test_the_command_that_judges_again_is_valid_and_names_a_network_of_each_method_that_has_weights(
    league: League,
) -> None:
    confirmation = finish_league(league, {})
    table = confirmation.table
    table.loc[table["contender"].eq("cure") & table["seed"].eq(1), "diverged"] = True
    table.loc[table["contender"].eq("slow"), "diverged"] = True
    table["autoattack"] = None
    confirmation.write(league.folder / run_files.CONFIRM)
    files.write(league)
    (command,) = re.findall(r"tune-cure (evaluate .+?)</code>", (league.folder / files.PAGE).read_text())
    options = evaluate.read_options(build_parser().parse_args(shlex.split(command)))
    networks = [league.folder / run_files.CONFIRM / place / "model.pt" for place in ("cure/seed-2", "fgsm/seed-1")]
    assert sorted(options.models) == [f"cure={networks[0]}", f"fgsm={networks[1]}"]
    assert options.no_autoattack and options.examples == 300


def test_before_a_run_is_judged_nothing_is_written(league: League) -> None:
    assert files.write(league) is None
    (league.folder / run_files.CONFIRM).mkdir()
    Confirmation(plan_league(league, examples=30)).write(league.folder / run_files.CONFIRM)
    assert files.write(league) is None
    assert not (league.folder / files.PAGE).exists()


def test_a_damaged_table_of_the_confirmation_is_one_line(league: League) -> None:
    (league.folder / run_files.CONFIRM).mkdir()
    (league.folder / run_files.CONFIRMED).write_text("a,b\n")
    with pytest.raises(SavedConfirmationError, match=r"confirm\.csv: is no table of a confirmation"):
        files.write(league)


def test_a_league_of_which_only_presets_are_judged_has_a_page_that_says_so(league: League) -> None:
    confirmation = finish_league(league, {})
    confirmation.table = confirmation.table[confirmation.table["kind"].eq("preset")]
    confirmation.write(league.folder / run_files.CONFIRM)
    assert files.write(league) is not None
    page = (league.folder / files.PAGE).read_text()
    assert "Nobody wins: no winner of a search has been judged yet." in page
    assert "cure has no place: its winner has not been judged yet." in page


@pytest.mark.parametrize(
    "content",
    [
        "",
        "epoch,clean_accuracy\n1,0.5\n",
        "epoch,pgd_accuracy\nx,0.5\n",
        "epoch,pgd_accuracy\n1,7\n",
        f"epoch,pgd_accuracy\n{'9' * 400},0.5\n",
    ],
    ids=["empty", "no PGD accuracy", "a word", "above 1", "beyond any float"],
)
def test_a_damaged_table_of_epochs_is_left_out_with_a_warning(
    content: str, league: League, caplog: pytest.LogCaptureFixture
) -> None:
    finish_league(league, {"cure": 0.6, "fgsm": 0.4})
    file = league.folder / run_files.CONFIRM / "cure" / "seed-1" / run_files.JOB_EPOCHS
    file.write_text(content)
    standings = files.read_standings(league)
    assert standings is not None
    curves = league_page.read_curves(standings, league.folder)
    assert [len(curves[name]) for name in ("cure", "fgsm")] == [2, 3]
    (message,) = caplog.messages
    assert message.startswith(f"{file}: is no table of epochs, and is left out: ") and "\n" not in message
