import ast
import multiprocessing
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.unit_limits import refuse_both


def imported_modules(file: Path) -> Iterator[str]:
    """Yield the names of the modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_tests_import_shared_code_from_tests_support_alone() -> None:
    for file in Path("tests").rglob("*.py"):
        own = [name for name in imported_modules(file) if name.split(".")[0] == "tests"]
        assert [name for name in own if not name.startswith("tests.support.")] == [], file


def test_unit_tests_lie_in_the_rooms_of_the_package() -> None:
    rooms = {folder.name for folder in Path("tune_cure").iterdir() if (folder / "__init__.py").exists()}
    folders = {folder.name for folder in Path("tests/unit").iterdir() if (folder / "__init__.py").exists()}
    assert folders <= rooms
    assert [file.name for file in Path("tests/unit").glob("test_*.py")] == []


def test_a_unit_test_that_starts_a_process_fails_and_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_both(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="move this test to tests/integration"):
        subprocess.run(["true"], check=True)
    with pytest.raises(pytest.fail.Exception, match="move this test to tests/integration"):
        multiprocessing.Process(target=print).start()


def test_a_unit_test_that_starts_ray_fails_and_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    refuse_both(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="starts no Ray"):
        ray.init()
