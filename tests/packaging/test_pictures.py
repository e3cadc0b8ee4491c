"""tools/pictures.py, without a browser and without a search."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.journals import write_search


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", Path("tools/pictures.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_terminal_is_the_live_view_in_the_middle_of_the_search(
    script: ModuleType, tmp_path: Path
) -> None:
    write_search(tmp_path)
    script.draw_terminal(tmp_path, tmp_path / "terminal.svg")
    text = " ".join(ElementTree.parse(tmp_path / "terminal.svg").getroot().itertext()).replace("\xa0", " ")
    assert "$ tune-cure search --space quickstart" in text
    assert "12 of 24" in text
    assert "waiting" not in text
    assert "best so far" in text


def test_every_picture_that_is_taken_is_one_of_the_documentation(script: ModuleType) -> None:
    for picture, *_ in script.PAGES:
        assert (Path("docs") / picture).exists()


def test_without_a_browser_the_names_of_those_that_are_looked_for_are_said(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "BROWSERS", ("nowhere",))
    with pytest.raises(SystemExit, match="none of nowhere is installed"):
        script.find_browser()
