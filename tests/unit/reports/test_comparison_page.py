import json
import re
from pathlib import Path

import pytest

from tests.support.comparisons import CONFIRMED, one_trial, pair_with_confirmation, write_epochs
from tune_cure.confirmation.searches import comparison
from tune_cure.confirmation.searches.comparison import Searches
from tune_cure.reports import comparison_page
from tune_cure.reports.figures import progress


def page(searches: Searches, tmp_path: Path) -> str:
    comparison_page.write(searches, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def words(text: str) -> str:
    """The page's own text: without plotly.js, plots, styles and tags."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


@pytest.fixture
def searches(tmp_path: Path) -> Searches:
    lines = [(0, 1, 0.2), (1, 1, 0.8)]
    return comparison.name_searches(
        [write_epochs(tmp_path / "good", lines), one_trial(tmp_path / "bad", 0.3, "evaluation.steps=5")]
    )


def test_the_page_says_what_the_terminal_says(searches: Searches, tmp_path: Path) -> None:
    text_of_page = words(page(searches, tmp_path))
    assert "good bad no verdict different evaluation" in text_of_page
    assert (
        "different evaluation: PGD-3 with 1 start at epsilon 0.05 (12.8/255) on 100 images (good); PGD-5"
        in text_of_page
    )
    assert "its objective 80.0 ± 4.0% 30.0 ± 4.6%" in text_of_page
    assert "gain over start_from +60.0 ± 5.7 points none: it won" in text_of_page
    assert "lambda loguniform [0.001, 1] loguniform [0.001, 1]" in text_of_page


def test_comparable_searches_get_a_verdict_on_the_page(tmp_path: Path) -> None:
    searches = comparison.name_searches([one_trial(tmp_path / "good", 0.8), one_trial(tmp_path / "bad", 0.3)])
    text = page(searches, tmp_path)
    assert "good bad better pgd_accuracy_best +50.0 points, 95% interval +38.1 to +61.9" in words(text)
    assert 'id="warnings"' not in text  # there are none


def test_confirmed_accuracies_are_shown(tmp_path: Path) -> None:
    text_of_page = words(page(pair_with_confirmation(tmp_path, CONFIRMED), tmp_path))
    assert "test set: PGD-50-10 55.0 ± 7.1% –" in text_of_page
    assert "test set: seeds 2 on 359 images –" in text_of_page


def test_each_search_has_a_line_of_steps_in_both_plots_and_an_entry_in_the_legend(
    searches: Searches, tmp_path: Path
) -> None:
    text = page(searches, tmp_path)
    figures = [
        json.loads(plot)
        for plot in re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    ]
    assert [figure["layout"]["xaxis"]["title"]["text"] for figure in figures] == ["epochs trained", "device minutes"]
    for figure in figures:
        assert [trace["name"] for trace in figure["data"]] == ["good", "bad"]
        assert figure["data"][0]["y"] == [0.2, 0.8]
        assert {trace["line"]["shape"] for trace in figure["data"]} == {"hv"}
    assert figures[0]["data"][0]["x"] == [1, 2]
    assert figures[1]["data"][0]["x"] == pytest.approx([2.5 / 60, 5 / 60], abs=1e-4)
    assert text.count('class="legend"') == 1


def test_no_two_lines_look_alike() -> None:
    assert len({progress.line_style(number) for number in range(35)}) == 35
    colors, dashes = zip(*(progress.line_style(number) for number in range(5)), strict=True)
    assert len(set(colors)) == len(set(dashes)) == 5


def test_a_space_that_differs_is_named(tmp_path: Path) -> None:
    searches = comparison.name_searches(
        [one_trial(tmp_path / "a", 0.8), one_trial(tmp_path / "b", 0.3, "space.h={uniform: [0.5, 9]}")]
    )
    text = page(searches, tmp_path)
    assert "The searches differ in h , set in bold." in words(text)
    assert "<strong>uniform [0.5, 9]</strong>" in text


def test_searches_without_judged_trials_make_a_page_without_plots(tmp_path: Path) -> None:
    searches = comparison.name_searches([write_epochs(tmp_path / name, []) for name in "ab"])
    text = page(searches, tmp_path)
    assert 'id="progress"' not in text
    assert "a is unfinished: 0 of 1 trials have ended" in words(text)


def test_names_from_disk_are_escaped_and_requests_are_forbidden(tmp_path: Path) -> None:
    evil = "<script>alert('no')<"
    searches = comparison.name_searches([one_trial(tmp_path / evil, 0.8), one_trial(tmp_path / "b", 0.3)])
    text = page(searches, tmp_path)
    assert "<script>alert" not in text
    assert "default-src 'none'" in text
