import ast
from pathlib import Path

MAX_MODULES = 16
MAX_LINES = 400
TOP_LEVEL = {"__init__", "__main__", "results"}


def test_only_rooms_and_the_documented_re_exports_lie_at_the_top_of_the_package() -> None:
    assert {path.stem for path in Path("tune_cure").glob("*.py")} == TOP_LEVEL


def test_no_folder_has_more_modules_than_a_reader_keeps_in_mind() -> None:
    folders = [folder for folder in Path("tune_cure").rglob("*") if folder.is_dir() and folder.name != "__pycache__"]
    sizes = {str(folder): len([*folder.glob("*.py")]) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > MAX_MODULES} == {}


def test_every_room_says_what_is_inside_and_what_it_may_import() -> None:
    for init in Path("tune_cure").glob("*/__init__.py"):
        docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        assert "import" in docstring.lower(), f"{init} does not say what the room may import"


def test_no_module_is_longer_than_one_sitting() -> None:
    lengths = {
        str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in Path("tune_cure").rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}
