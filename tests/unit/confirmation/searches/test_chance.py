import json
import math
import re
from pathlib import Path

import pytest

from tests.support.journals import VALUES, epoch
from tests.support.spaces import tiny
from tune_cure.confirmation.searches.chance import find_chance
from tune_cure.reports import search_page
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult


def write_trials(
    directory: Path, accuracies: list[tuple[float, float]], *, chance: float | None = 1 / 3
) -> SearchResult:
    """A search on 100 images, each trial of which has one epoch with a PGD and a clean accuracy."""
    tiny(directory, f"search.trials={max(1, len(accuracies))}", "search.scheduler=none", "training.epochs=1")
    journal = Journal(directory)
    journal.path.touch()
    for number, (pgd, clean) in enumerate(accuracies):
        journal.append("trial", number, origin="sampler" if number else "start_from", hyperparameters=VALUES)
        epoch(journal, number, 1, pgd, pgd, ended="completed", clean_accuracy=clean)
        journal.append("end", number, status="completed", reason="")
    if chance is not None:
        content = {"command": "tune-cure search", "chance_level": chance}
        (directory / run_files.ENVIRONMENT).write_text(json.dumps(content))
    return SearchResult(directory)


def page_text(result: SearchResult) -> str:
    html = search_page.write(result).read_text(encoding="utf-8")
    html = re.sub(r"<(script|style)>.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_three_classes_at_a_third_are_at_chance(tmp_path: Path) -> None:
    finding = find_chance(write_trials(tmp_path, [(0.26, 0.33), (0.34, 0.34), (0.34, 0.34)]))
    assert finding is not None
    assert finding.claim == "No trial is clearly above chance"
    assert "One fixed answer is right on 33.3% of the 100 validation images, attacked or not" in finding.evidence
    assert "A network that always gives one answer has equal PGD and clean accuracy." in finding.evidence
    assert finding.reasons.startswith("Likely reasons: too few epochs; a learning rate")


def test_networks_that_learn_but_withstand_no_more_than_a_fixed_answer_are_said(tmp_path: Path) -> None:
    finding = find_chance(write_trials(tmp_path, [(0.1, 0.9), (0.35, 0.8)]))
    assert finding is not None
    assert finding.claim == "No trial is clearly above chance under attack"
    assert "the highest PGD accuracy of any epoch is 35.0%, though clean accuracy reaches 90.0%" in finding.evidence


@pytest.mark.parametrize(
    ("accuracies", "chance"),
    [([(0.6, 0.9), (0.3, 0.4)], 1 / 3), ([(0.34, 0.34)], None), ([(0.2, 0.3)], 0.05), ([], 1 / 3)],
)
def test_nothing_is_said_where_a_trial_is_above_chance_or_chance_is_not_known(
    accuracies: list[tuple[float, float]], chance: float | None, tmp_path: Path
) -> None:
    assert find_chance(write_trials(tmp_path, accuracies, chance=chance)) is None


def test_a_search_that_minimizes_is_not_judged_by_its_robust_accuracy(tmp_path: Path) -> None:
    result = write_trials(tmp_path, [(0.35, 0.9)])
    assert find_chance(result) is not None
    result.spec = result.spec.model_copy(update={"search": result.spec.search.model_copy(update={"mode": "min"})})
    assert find_chance(result) is None


@pytest.mark.parametrize("level", ["0.3", True, 0.0, 1.5, math.inf, None])
def test_a_chance_level_of_another_kind_counts_as_not_recorded(level: object, tmp_path: Path) -> None:
    result = write_trials(tmp_path, [(0.01, 0.01)])
    (tmp_path / run_files.ENVIRONMENT).write_text(json.dumps({"command": "x", "chance_level": level}))
    assert find_chance(result) is None


def test_the_report_names_no_winner_of_trials_at_chance(tmp_path: Path) -> None:
    text = page_text(write_trials(tmp_path, [(0.26, 0.33), (0.34, 0.34)]))
    assert "at chance" in text
    assert "No trial is clearly above chance. One fixed answer is right on 33.3%" in text
    assert "Trial 1 ranks first, with" in text
    assert "Next: change the space; a confirmation would compare guesses. Likely reasons: too few epochs" in text
    for words in ("won", "+8.0 points", "compared with start_from", "The winner differs"):
        assert words not in text
