"""The end of a league: winners and presets are judged, the standings printed, table and page written."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from tests.support.leagues import build_confirmation, draw_outcomes, finish_job, finish_league, write_league
from tune_cure.cli import main as cli
from tune_cure.cli.views.league_results import print_standings
from tune_cure.confirmation.plan import Job
from tune_cure.league.folder import League, LeagueConfig
from tune_cure.league.methods import Entry
from tune_cure.league.standings import Standings
from tune_cure.ray_backend import confirmation
from tune_cure.reports import artifacts
from tune_cure.reports.league import files
from tune_cure.search import run_files

EXAMPLES = 40
LEAGUE = LeagueConfig(space="x", methods=dict.fromkeys(("a", "copy"), Entry(training={})), trials=1, shared={})


@pytest.fixture
def league(tmp_path: Path) -> League:
    return write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, examples=EXAMPLES, autoattack=False)


def judging(num_jobs: int | None = None, *, interrupt: bool = False) -> Callable[..., dict[str, str]]:
    """Return what stands in the place of Ray's jobs: it judges those that are left, at most so many of them."""
    drawn = draw_outcomes({"cure": 0.7, "cure-preset": 0.3, "fgsm": 0.2, "fgsm-preset": 0.2}, images=EXAMPLES)

    def run(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        for job in [job for job in jobs if not job.is_done][:num_jobs]:
            finish_job(job, drawn[job.candidate.name][job.seed - 1])
        if interrupt:
            raise KeyboardInterrupt
        return {}

    return run


def test_once_the_searches_are_over_winners_and_presets_are_judged_and_the_standings_printed(
    league: League, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", judging())
    assert cli.main(["league", "--resume", str(league.folder)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "cure-preset preset 4 epochs 13 s a run the untuned preset of cure: " in printed
    assert "about 2 min 37 s here, if it goes as fast as the search did: 1 min 52 s of training and 45 s" in printed
    assert "each with seeds 1, 2 and 3, on 1,338 training images; judged on 40 test images" in printed
    assert "cure wins: it has " in printed
    assert "what cannot be said" in printed
    assert f"wrote {league.folder / 'league.html'}, {league.folder / 'league.csv'}, and " in printed
    table = pd.read_csv(league.folder / files.TABLE)
    assert table["method"].tolist() == ["cure"] * 3 + ["fgsm"] * 3
    assert json.loads((league.folder / "environment.json").read_text())["command"]

    monkeypatch.setattr(confirmation, "run", None)  # nothing is left to judge
    assert cli.main(["league", "--resume", str(league.folder)]) == 0
    assert "cure wins: it has " in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_confirmation_says_how_to_go_on_and_goes_on_with_what_is_left(
    league: League, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", judging(4, interrupt=True))
    assert cli.main(["league", "--resume", str(league.folder)]) == 130
    printed = capsys.readouterr().out
    assert "interrupted; what is done is kept. Continue with:" in printed
    assert f"league --resume {league.folder}" in printed
    assert len(pd.read_csv(league.folder / files.TABLE)) == 2  # both methods, with the first seed
    judged: list[str] = []
    go_on = judging()

    def run(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        judged.extend(job.name for job in jobs if not job.is_done)
        return go_on(jobs)

    monkeypatch.setattr(confirmation, "run", run)
    assert cli.main(["league", "--resume", str(league.folder)]) == 0
    assert len(judged) == 8 and all(name.endswith(("seed 2", "seed 3")) for name in judged)
    assert len(pd.read_csv(league.folder / files.TABLE)) == 6


def test_searches_only_ends_after_the_searches(league: League, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmation, "run", None)
    assert cli.main(["league", "--resume", str(league.folder), "--searches-only"]) == 0
    assert not (league.folder / run_files.CONFIRM).exists()


@pytest.mark.parametrize("missing", [run_files.REPORT, run_files.MADE], ids=["killed", "interrupted"])
def test_resuming_writes_what_an_earlier_session_of_the_league_did_not_get_to(
    missing: str, league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    (league.run_folder("fgsm") / missing).unlink()
    written = []
    monkeypatch.setattr(artifacts, "write_artifacts", lambda result: written.append(result.directory.name))
    assert cli.main(["league", "--resume", str(league.folder), "--searches-only"]) == 0
    assert written == ["fgsm"]


def test_report_makes_table_and_page_of_a_league_anew(league: League, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(league.folder)]) == 2
    assert f"tune-cure league --resume {league.folder} goes on" in capsys.readouterr().err
    finish_league(league, {"cure": 0.6}, examples=EXAMPLES)
    assert cli.main(["report", str(league.folder)]) == 0
    assert f"wrote {league.folder / 'league.html'}, and tables beside it" in " ".join(capsys.readouterr().out.split())
    assert (league.folder / files.PAGE).exists()


@pytest.mark.parametrize(("width", "has_clean"), [(120, True), (60, False), (30, False)])
def test_a_narrow_terminal_shows_fewer_columns_and_no_cut_ones(
    width: int, has_clean: bool, league: League, capsys: pytest.CaptureFixture[str]
) -> None:
    standings = Standings(league.methods, finish_league(league, {"cure": 0.6}), league.results())
    print_standings(standings, league.config, Console(width=width, soft_wrap=True))
    lines = capsys.readouterr().out.splitlines()
    (header,) = [line for line in lines if re.match("method +group", line)]
    assert ("clean" in header) == has_clean
    assert "…" not in header
    assert len(header.rstrip()) <= width


def test_a_method_that_is_exactly_as_good_as_the_first_is_plus_nothing_behind_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = draw_outcomes({"a": 0.5})["a"]
    standings = Standings(["a", "copy"], build_confirmation({"a": found, "copy": found}), {})
    print_standings(standings, LEAGUE, Console(width=120, soft_wrap=True))
    lines = capsys.readouterr().out.splitlines()
    assert "AutoAttack is that of the package pyautoattack 0.2.0." in lines
    (line,) = [line for line in lines if line.startswith("copy ")]
    assert "+0.0" in line and "−0.0" not in line
