import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.leagues import draw_outcomes, finish_job, write_league
from tune_cure.cli.steps import league_confirmation
from tune_cure.confirmation.plan import Job
from tune_cure.data.splits import Splits
from tune_cure.league.folder import League
from tune_cure.ray_backend import confirmation


@pytest.fixture
def league(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> League:
    """A league whose searches are over; its confirmation is drawn."""

    def judge(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        drawn = draw_outcomes({job.candidate.name: 0.5 for job in jobs}, seeds=2, images=50)
        for job in jobs:
            finish_job(job, drawn[job.candidate.name][job.seed - 1])
        return {}

    monkeypatch.setattr(confirmation, "run", judge)
    monkeypatch.setattr(league_confirmation, "rehearse", lambda *_: {})
    return write_league(tmp_path, {"cure": "cure", "fgsm": "fgsm_rs"}, seeds=2, examples=50)


def confirm(league: League) -> str:
    out = io.StringIO()
    console = Console(file=out, width=1000)
    data = league.spec("cure").data
    code = league_confirmation.run(league, data, console, address=None, verbose=False, resume_command="league --resume")
    assert code == 0
    return out.getvalue()


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
