import ast
import re
from pathlib import Path

MAX_MODULES = 16
MAX_LINES = 400
MAX_CODE_LINES = 50
PRIVATE_NAMES = re.compile(r"ray\._private|_raylet|ray\.util\.client|\._ot_|_completed_trials|_trial_id\b")
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


def count_code_lines(function: ast.AST, lines: list[str]) -> int:
    """Return the number of a function's lines without docstrings, comments and empty lines."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.end_lineno
    docstrings = set()
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    numbers = set(range(function.lineno, function.end_lineno + 1)) - docstrings
    return sum(1 for number in numbers if lines[number - 1].strip() and not lines[number - 1].strip().startswith("#"))


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {}
    for path in Path("tune_cure").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{path} {node.name}"] = count_code_lines(node, text.splitlines())
    assert {name for name, length in lengths.items() if length > MAX_CODE_LINES} == set()


def test_private_names_of_ray_and_optuna_are_used_in_one_file() -> None:
    users = [str(path) for path in Path("tune_cure").rglob("*.py") if PRIVATE_NAMES.search(path.read_text("utf-8"))]
    assert users == ["tune_cure/ray_backend/ray_internals.py"]


def test_modules_of_optuna_beyond_its_interface_are_imported_in_one_file() -> None:
    private = re.compile(r"optuna(\.\w+)*\._\w")
    users = [str(path) for path in Path("tune_cure").rglob("*.py") if private.search(path.read_text("utf-8"))]
    assert users == ["tune_cure/search/proposals/gp_sampler.py"]
