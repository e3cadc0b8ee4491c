"""What notebooks show of the results of the public functions: pictures within the text, tables, nothing that runs."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tune_cure
from tests.support.confirmations import finish, plan_quick_jobs
from tests.support.journals import BEST, write_search
from tune_cure.cli.api import TrainResult
from tune_cure.cli.steps import evaluate_run
from tune_cure.confirmation.judgement import JudgedNetwork
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.reports.figures import notebook


def pictures(shown: str) -> list[Image.Image]:
    """The pictures in what a notebook shows; each must have something drawn, and a text for those who cannot see it."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="[^"]+" width="\d+">', shown)
    assert len(found) == shown.count("<img")
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
    for image in images:
        assert np.asarray(image.convert("L")).std() > 5
    assert "<script" not in shown and "http" not in shown
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    write_search(folder)
    return folder


def test_a_search_shows_its_curves_and_its_trade_off_above_the_leaders(folder: Path) -> None:
    shown = tune_cure.SearchResult(folder)._repr_html_()
    curves, trade_off = pictures(shown)
    assert curves.size == trade_off.size == (832, 460)
    assert shown.index("<img") < shown.index("<table")
    assert f"the best is trial {BEST}" in shown


def test_a_search_without_a_judged_trial_shows_no_picture(tmp_path: Path) -> None:
    write_search(tmp_path, 2, num_unfinished=2, judged=False)
    assert pictures(tune_cure.SearchResult(tmp_path)._repr_html_()) == []


def test_without_matplotlib_the_tables_are_shown_and_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "is_installed", lambda name: name != "matplotlib")
    shown = tune_cure.SearchResult(folder)._repr_html_()
    assert pictures(shown) == []
    assert "<code>pip install matplotlib</code>" in shown
    assert "<table" in shown


def test_a_confirmation_shows_every_seed_under_each_attack(tmp_path: Path) -> None:
    confirmation = finish(plan_quick_jobs(tmp_path), leader=0.6)
    shown = confirmation._repr_html_()
    assert len(pictures(shown)) == 3  # AutoAttack, PGD-50-10, clean
    assert shown.count("<table") == 2
    assert "12 of 12 runs judged on the test set" in shown


def test_a_training_run_shows_its_accuracies_by_epoch(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"epoch": epoch} for epoch in (1, 2)]
    for row in rows:
        for name in ("clean_accuracy", "fgsm_accuracy", "pgd_accuracy"):
            row |= {name: 0.2 * row["epoch"], f"{name}_se": 0.02}
    shown = TrainResult(tmp_path, pd.DataFrame(rows), None, 2, None)._repr_html_()
    assert len(pictures(shown)) == 1
    assert "2 epochs trained, the best is epoch 2 with a PGD accuracy of 40.0 ± 2.0%" in shown


def test_a_comparison_shows_the_verdict_and_the_best_so_far_of_each_search(folder: Path, tmp_path: Path) -> None:
    for name in ("<b>", "other"):
        (tmp_path / name).mkdir()
        write_search(tmp_path / name, 24 if name == "other" else 12)
    shown = tune_cure.compare(tmp_path / "<b>", tmp_path / "other")._repr_html_()
    assert len(pictures(shown)) == 2
    assert "<b>" not in shown and "&lt;b&gt;" in shown


def test_a_replay_shows_what_is_lost_against_what_is_saved(folder: Path) -> None:
    shown = tune_cure.replay(folder, grace_period=[1, 2], reduction_factor=[2, 3])._repr_html_()
    assert len(pictures(shown)) == 1
    assert "recommended: grace period" in shown


def test_a_judgement_shows_every_network_under_each_attack() -> None:
    right = np.arange(100) < 60
    outcomes = Outcomes({"clean": right, "pgd": right, "pgd_50_10": right & (np.arange(100) < 40)}, 0.0)
    networks = [JudgedNetwork(name, "a file", 10, outcomes, 1.0) for name in ("one", "two")]
    shown = evaluate_run.Judgement(networks, "linf", 8 / 255, 0.1)._repr_html_()
    assert len(pictures(shown)) == 2
    assert shown.count("<table") == 2
