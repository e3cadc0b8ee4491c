"""What the terminal shows of a confirmation's results."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.confirmations import plan_quick_jobs, write_outcomes
from tune_cure.cli.views.confirmation import print_results
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.search.results import SearchResult


def test_a_mean_over_some_of_the_seeds_says_over_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = plan_quick_jobs(tmp_path)
    for job in jobs:
        write_outcomes(job, 0.5, autoattack=job.seed < 3)
    print_results(Confirmation(jobs), SearchResult(tmp_path), Console(width=200))
    printed = capsys.readouterr().out
    (row, *_) = re.findall(r"^trial-2 +3 .*", printed, re.MULTILINE)
    assert re.fullmatch(r"trial-2 +3( +\d+\.\d +\d\.\d){2} +\d+\.\d +\d\.\d \(2 of 3 seeds\)", row)
    assert "\nAutoAttack is that of the package pyautoattack 0.2.0.\n" in printed
