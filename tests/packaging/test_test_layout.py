import ast
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import unit_limits
from tests.support.unit_limits import refuse_both, refuse_long_test


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


def test_a_unit_test_over_twice_the_aim_fails_unless_the_machine_is_as_much_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(unit_limits, "EXAMPLES", None)
    monkeypatch.setattr(unit_limits, "measure_slowness", lambda: 1.0)
    refuse_long_test(3.9, num_imported=0)
    with pytest.raises(pytest.fail.Exception, match=r"at most 4\.0 s of CPU time on this machine, but this one 4\.5"):
        refuse_long_test(4.5, num_imported=0)
    monkeypatch.setattr(unit_limits, "measure_slowness", lambda: 1.5)
    refuse_long_test(4.5, num_imported=0)
    with pytest.raises(pytest.fail.Exception, match=r"at most 6\.0 s"):
        refuse_long_test(6.1, num_imported=0)


def test_a_unit_test_that_is_the_first_to_import_libraries_may_take_eight_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(unit_limits, "EXAMPLES", None)
    monkeypatch.setattr(unit_limits, "measure_slowness", lambda: 1.0)
    refuse_long_test(7.9, num_imported=500)
    with pytest.raises(pytest.fail.Exception, match=r"at most 8\.0 s"):
        refuse_long_test(8.1, num_imported=500)


@pytest.mark.parametrize("case", ["lines are traced", "thousands of examples are asked for"])
def test_the_time_of_a_unit_test_has_no_limit_where_something_makes_it_longer_on_purpose(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_traced = case == "lines are traced"
    monkeypatch.setattr(sys, "gettrace", lambda: print if is_traced else None)
    monkeypatch.setattr(unit_limits, "EXAMPLES", None if is_traced else "5000")
    monkeypatch.setattr(unit_limits, "measure_slowness", lambda: 1.0)
    refuse_long_test(100.0, num_imported=0)


def test_the_fixed_work_says_how_slow_this_machine_is() -> None:
    assert 1 <= unit_limits.measure_slowness() < 50
