import html
import re
from pathlib import Path

import pytest

from tests.support.journals import write_clean_search, write_search
from tune_cure.attacks.registry import NORMS
from tune_cure.reports.narrative import summarize_search
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load


def read_summary(directory: Path) -> str:
    """The section "Summary" of a search's report, as text."""
    return html.unescape(re.sub(r"<[^>]*>", "", summarize_search(SearchResult(directory), {})))


@pytest.mark.parametrize(
    ("change", "aim"),
    [
        ("search.metric=pgd_accuracy", "that make small_cnn most robust against adversarial images."),
        ("search.metric=[clean_accuracy_best, pgd_accuracy]", "that give small_cnn the highest clean accuracy."),
        ("search.mode=min", "that give small_cnn the lowest PGD accuracy."),
    ],
)
def test_the_summary_says_what_the_search_was_for(change: str, aim: str, tmp_path: Path) -> None:
    write_search(tmp_path, 3)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", [change]).to_yaml())
    assert aim in read_summary(tmp_path)


@pytest.mark.parametrize(
    ("norm", "radius"),
    [("linf", "epsilon 0.15 (38.2/255) in L∞"), ("l2", "epsilon 0.15 in L2"), ("l1", "epsilon 0.15 in l1")],
)
def test_the_summary_names_the_norm_of_the_attack_also_one_of_the_users_own(
    norm: str, radius: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NORMS, "l1", NORMS["l2"])
    write_search(tmp_path, 3)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", [f"evaluation.norm={norm}"]).to_yaml())
    assert f"1 random start within {radius}." in read_summary(tmp_path)


def test_the_summary_of_a_search_for_clean_accuracy_names_it(tmp_path: Path) -> None:
    write_clean_search(tmp_path)
    text = read_summary(tmp_path)
    assert "most robust" not in text
    assert "It ranks first by the clean accuracy after the last epoch: 90.0%." in text
