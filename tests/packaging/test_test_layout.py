import ast
from collections.abc import Iterator
from pathlib import Path


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
