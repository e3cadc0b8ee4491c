import importlib.metadata
import sys
from pathlib import Path

import pytest

from tests.support.journals import write_search
from tests.support.spaces import tiny
from tune_cure.cli.steps.fitting import fit_to_data
from tune_cure.data import splits
from tune_cure.reports.figures.importance import write_importance
from tune_cure.search.results import SearchResult
from tune_cure.utils.environment import (
    DISTRIBUTIONS,
    LEFT_OUT,
    MissingPackageError,
    describe_missing,
    is_installed,
    require,
)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    version, names = importlib.metadata.version, {DISTRIBUTIONS.get(module, module) for module in modules}

    def version_of_others(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", version_of_others)


def test_nothing_is_said_where_nothing_is_missing() -> None:
    assert all(map(is_installed, LEFT_OUT))
    assert describe_missing(LEFT_OUT) == ""


def test_missing_packages_are_one_line_with_what_is_left_out_and_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide(monkeypatch, "plotly", "sklearn")
    assert describe_missing(LEFT_OUT) == (
        "without plotly: no pages with plots (report.html, confirm.html, curves.html); "
        "without scikit-learn: nothing in the report on what mattered (pip install plotly scikit-learn)"
    )
    assert describe_missing(["tensorboardX"]) == ""


def test_what_cannot_be_done_without_a_package_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    require("plotly", "the report")
    hide(monkeypatch, "plotly")
    with pytest.raises(MissingPackageError, match=r"^the report needs the package plotly, .*: pip install plotly$"):
        require("plotly", "the report")


def test_without_scikit_learn_a_report_leaves_out_what_mattered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_search(tmp_path)
    assert write_importance(SearchResult(tmp_path))
    hide(monkeypatch, "sklearn")
    assert write_importance(SearchResult(tmp_path)) == {}


def test_without_scikit_learn_a_search_that_needs_it_to_choose_its_winner_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, posterior = tiny(tmp_path), tiny(tmp_path, "rescore.choose=posterior")
    images = splits.load(spec.data)
    hide(monkeypatch, "sklearn")
    fit_to_data(spec, images)
    with pytest.raises(MissingPackageError, match=r"^rescore\.choose: posterior needs the package scikit-learn"):
        fit_to_data(posterior, images)
