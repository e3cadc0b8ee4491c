import sys

import pytest

from tune_cure.utils.environment import LEFT_OUT, MissingPackageError, describe_missing, is_installed, require


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


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
