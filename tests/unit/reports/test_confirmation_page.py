import json
import re
from pathlib import Path

import pytest

from tests.support.confirmations import finish, plan_quick_jobs, write_best_outcomes, write_outcomes
from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.reports import confirmation_page, confirmation_section
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return plan_quick_jobs(tmp_path)


def test_the_page_gives_verdicts_and_warnings(jobs: list[Job]) -> None:
    result = SearchResult(jobs[0].folder.parents[2])
    finish(jobs, leader=0.6, baseline=0.4)
    folder = result.directory / run_files.CONFIRM
    confirmation_page.write(result, jobs, folder)
    text = (folder / run_files.CONFIRM_REPORT).read_text()
    assert "<strong>better</strong>" in text
    assert "No sign of masked gradients in any run." in text
    assert "https://" not in text.split("<script>")[0].split("</style>")[1]
    assert text.count("Plotly.newPlot") == 1


def test_the_page_says_how_confirmation_and_search_were_run(jobs: list[Job]) -> None:
    result = SearchResult(jobs[0].folder.parents[2])
    folder = result.directory / run_files.CONFIRM
    folder.mkdir(exist_ok=True)
    for directory, command in ((result.directory, "tune-cure search"), (folder, "tune-cure confirm")):
        (directory / environment.FILE).write_text(json.dumps({"command": command, "cpus": 2}))
    finish(jobs)
    confirmation_page.write(result, jobs, folder)
    text = (folder / run_files.CONFIRM_REPORT).read_text()
    own, searched = text.split("How it was run")[1].split("How the search was run")
    assert "tune-cure confirm" in own and "tune-cure search" not in own
    assert "tune-cure search" in searched and "spec.yaml" in searched


def test_runs_that_all_diverged_are_not_said_to_have_no_sign_of_masked_gradients(jobs: list[Job]) -> None:
    confirmation = finish(jobs)
    confirmation.table["diverged"] = True
    assert "masked gradients" not in confirmation_section.warnings(confirmation)
    confirmation.table.loc[0, "diverged"] = False
    assert "No sign of masked gradients in any run." in confirmation_section.warnings(confirmation)


def test_a_mean_over_some_of_the_seeds_says_over_how_many(jobs: list[Job]) -> None:
    for job in jobs:
        write_outcomes(job, 0.5, autoattack=job.seed < 3)
    accuracies = confirmation_section.accuracies(Confirmation(jobs))
    assert "withstood all of them. AutoAttack is that of the package pyautoattack 0.2.0.</p>" in accuracies
    assert re.search(r'<td class="number">50\.\d ± \d\.\d \(2 of 3 seeds\)</td>', accuracies)
    assert re.search(r'<td class="number">50\.\d ± \d\.\d</td>', accuracies)


def test_page_and_report_have_best_and_last_weights_beside_each_other(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, held_out=50)
    result = SearchResult(tmp_path)
    folder = tmp_path / run_files.CONFIRM
    finish(jobs)
    confirmation = confirmation_page.write(result, jobs, folder)
    assert "Best and last weights" not in (folder / run_files.CONFIRM_REPORT).read_text()
    assert "Best and last weights" not in confirmation_section.report_section(confirmation, result)
    for job in jobs:
        write_best_outcomes(job, 40, best_epoch=job.seed)
    confirmation = confirmation_page.write(result, jobs, folder)
    for text in (
        (folder / run_files.CONFIRM_REPORT).read_text(),
        confirmation_section.report_section(confirmation, result),
    ):
        part = text.split("Best and last weights")[1]
        assert '<td class="number">+10.0</td>' in part
        assert '<td class="number">1, 2, 3</td>' in part
        assert "50 of the search's validation images, which were not trained on, chose the best epoch" in part
