import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_by_room", Path("tools/coverage_by_room.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_of_a_room_and_of_its_folders_are_added_up(script: ModuleType) -> None:
    def file(covered: int, total: int) -> dict[str, dict[str, int]]:
        counts = {"covered_lines": covered, "num_statements": total, "covered_branches": 1, "num_branches": 2}
        return {"summary": counts}

    files = {
        "tune_cure/search/journal.py": file(3, 4),
        "tune_cure/search/space/config.py": file(5, 6),
        "tune_cure/__main__.py": file(0, 1),
        "run_search.py": file(1, 1),
    }
    rooms = script.count_by_room(files)
    assert list(rooms) == ["(top level)", "search"]
    assert rooms["search"] == {"covered_lines": 8, "num_statements": 10, "covered_branches": 2, "num_branches": 4}
    assert rooms["(top level)"]["num_statements"] == 1


def test_a_share_of_nothing_is_no_number(script: ModuleType) -> None:
    assert (script.percent(1, 3), script.percent(0, 0)) == ("33.3%", "-")
