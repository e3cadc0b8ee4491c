import io
import signal
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.command_line import fill_disk
from tests.support.leagues import draw_outcomes, finish_job, write_league
from tune_cure.cli.main import main
from tune_cure.cli.steps import league_confirmation, league_run
from tune_cure.cli.views.interruption import Interruption
from tune_cure.confirmation.plan import Job
from tune_cure.data.splits import Splits
from tune_cure.league.folder import League
from tune_cure.ray_backend import confirmation
from tune_cure.utils.files import DiskError
from tune_cure.utils.signals import on_ctrl_c


@pytest.fixture
def is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let confirmations be drawn."""

    def judge(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        drawn = draw_outcomes({job.candidate.name: 0.5 for job in jobs}, seeds=2, images=50)
        for job in jobs:
            finish_job(job, drawn[job.candidate.name][job.seed - 1])
        return {}

    monkeypatch.setattr(confirmation, "run", judge)
    monkeypatch.setattr(league_confirmation, "rehearse", lambda *_: {})


@pytest.fixture
def league(is_drawn: None, tmp_path: Path) -> League:
    """A league whose searches are over; its confirmation is drawn."""
    return write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, seeds=2, examples=50)


def run(league: League, out: io.StringIO) -> int:
    console = Console(file=out, width=1000)
    data = league.spec("cure").data
    return league_confirmation.run(league, data, console, address=None, verbose=False, resume_command="league --resume")


def confirm(league: League) -> str:
    out = io.StringIO()
    assert run(league, out) == 0
    return out.getvalue()


def test_a_method_whose_trials_all_failed_does_not_keep_the_others_from_being_judged(
    is_drawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {"broken": "pgd", "cure": "cure", "fgsm": "fgsm_rs"}
    write_league(tmp_path, methods, failing=["broken"], seeds=2, examples=50)
    monkeypatch.setattr(league_run, "run_searches", None)  # an error if it is called
    assert main(["league", "--resume", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "broken: all of its 4 trials failed: broken; its search is given up, and the league goes on without" in out
    assert f"To search it anew, delete {tmp_path / 'broken'} and resume the league" in out
    assert "- broken has no place: no trial of its search has come to a sound end." in out
    names = ["cure", "cure-preset", "fgsm", "fgsm-preset"]
    assert sorted(path.name for path in (tmp_path / "confirm").iterdir() if path.is_dir()) == names
    assert (tmp_path / "league.html").is_file()


def test_the_time_of_the_confirmation_is_said_before_it_starts(league: League) -> None:
    lines = confirm(league).splitlines()
    (line,) = [line for line in lines if "if it goes as fast as the search did: " in line]
    assert line.startswith("about ") and " of training, " in line and line.endswith(" of AutoAttack")
    assert lines.index(line) < next(number for number, text in enumerate(lines) if "wins" in text)
    assert "if it goes as fast" not in confirm(league)  # nothing is left


@pytest.mark.parametrize("num_classes", [3, 10])
def test_parts_of_autoattack_that_need_more_classes_are_named_before_it_starts(
    num_classes: int, league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Splits, "num_classes", property(lambda _: num_classes))
    said = "APGD-T and FAB-T, need 4 classes, and there are 3: they are left out, and APGD-CE + Square remain"
    assert (said in confirm(league)) == (num_classes == 3)


def test_ctrl_c_while_the_runs_are_planned_trains_none_and_says_how_to_go_on(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> dict[str, int]:
        signal.raise_signal(signal.SIGINT)
        return {}

    monkeypatch.setattr(league_confirmation, "rehearse", interrupted)
    monkeypatch.setattr(confirmation, "run", None)
    after_the_searches, out = Interruption(print), io.StringIO()
    after_the_searches.finish()
    with on_ctrl_c(after_the_searches):
        assert run(league, out) == 130
    assert out.getvalue() == "interrupted; what is done is kept. Continue with:\n  league --resume\n"


def test_a_disk_that_is_full_is_one_line_with_the_command_that_goes_on(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(*_: object, **__: object) -> dict[str, str]:
        fill_disk(monkeypatch)
        return {}

    monkeypatch.setattr(confirmation, "run", judge)
    with pytest.raises(DiskError, match=": No space left on device; what is done is kept; to continue: league --resu"):
        run(league, io.StringIO())
