"""What a command imports before it answers: help, errors in a YAML file and finished runs do not wait for torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.exported_models import write_best_model
from tests.support.journals import BEST, write_search
from tests.support.spaces import TINY
from tune_cure.cli.main import COMMANDS
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult

SLOW_TO_IMPORT = ("matplotlib", "optuna", "pandas", "plotly", "ray", "scipy", "sklearn", "torch", "torchvision")
SCRIPT = """
import sys
from tune_cure.cli.main import main
for line in sys.argv[1].splitlines():
    try:
        code = main(line.split("|"))
    except SystemExit as error:
        code = error.code
    print("code", code)
print("imported", *sorted(name for name in sys.modules if "." not in name or name == "scipy.stats"))
"""


def run(*commands: list[str]) -> tuple[list[int], set[str]]:
    """Run command lines in one new process; return their exit codes, and what the process has imported."""
    lines = "\n".join("|".join(words) for words in commands)
    process = subprocess.run([sys.executable, "-c", SCRIPT, lines], capture_output=True, text=True, check=True)
    printed = process.stdout.splitlines()
    codes = [int(line.split()[1]) for line in printed if line.startswith("code ")]
    return codes, set(printed[-1].split()[1:])


def test_the_help_and_the_version_import_no_library() -> None:
    codes, imported = run(["--help"], ["--version"])
    assert codes == [0, 0]
    assert imported.isdisjoint([*SLOW_TO_IMPORT, "numpy", "pydantic", "rich", "yaml"])


def test_the_help_names_every_command() -> None:
    printed = subprocess.run([sys.executable, "-m", "tune_cure", "--help"], capture_output=True, text=True, check=True)
    for name, summary in COMMANDS.items():
        assert f"    {name} " in printed.stdout
        assert " ".join(summary.split()) in " ".join(printed.stdout.split())


def test_an_error_in_a_yaml_file_is_printed_before_any_slow_library_is_imported(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(TINY.replace("lambda: {log", "lamda: {log"))
    (tmp_path / "run.yaml").write_text("training: {epoch: 3}\n")
    codes, imported = run(
        ["search", "--space", str(tmp_path / "space.yaml")], ["train", "--config", str(tmp_path / "run.yaml")]
    )
    assert codes == [2, 2]
    assert imported.isdisjoint(SLOW_TO_IMPORT)


def test_commands_that_only_read_a_run_do_not_import_ray(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    for directory in (folder, other):
        directory.mkdir()
        write_search(directory)
        write_best_model(SearchResult(directory))
    codes, imported = run(
        ["report", str(folder)],
        ["replay", str(folder)],
        ["compare", str(folder), str(other)],
        ["export", str(folder), "--to", str(tmp_path / "export")],
    )
    assert codes == [0, 0, 0, 0]
    assert "plotly" in imported
    assert "ray" not in imported


def test_watch_compare_and_replay_import_neither_what_draws_nor_what_searches_nor_torch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_search(tmp_path / name)
    codes, imported = run(
        ["watch", str(tmp_path / "a")],
        ["compare", str(tmp_path / "a"), str(tmp_path / "b")],
        ["replay", str(tmp_path / "a")],
    )
    assert codes == [0, 0, 0]
    allowed = ("pandas", "scipy")  # scipy.special, not the distributions of scipy.stats
    assert imported.isdisjoint({*SLOW_TO_IMPORT, "scipy.stats"}.difference(allowed))


def test_a_report_whose_figures_and_model_are_as_they_were_imports_neither_matplotlib_nor_torch(tmp_path: Path) -> None:
    write_search(tmp_path)
    checkpoint = tmp_path / "trials" / "best"
    checkpoint.mkdir(parents=True)
    saved = {"model": {"name": "small_cnn"}, "weights": {"w": torch.ones(2)}, "epoch": 1}
    torch.save({"best_model": saved}, checkpoint / run_files.CHECKPOINT)
    Journal(tmp_path).append("checkpoint", BEST, epoch=100, path="trials/best")
    codes, imported = run(["report", str(tmp_path)])
    assert codes == [0]
    assert {"matplotlib", "torch"} <= imported
    made = {path: path.read_bytes() for path in [*(tmp_path / "figures").iterdir(), tmp_path / run_files.BEST_MODEL]}
    codes, imported = run(["report", str(tmp_path)])
    assert codes == [0]
    assert imported.isdisjoint({"matplotlib", "torch"})
    assert {path: path.read_bytes() for path in made} == made


def test_the_package_is_quick_to_import_in_any_order() -> None:
    orders = (
        "import tune_cure; import tune_cure.search.results",
        "import tune_cure.search.results; import tune_cure",
        "from tune_cure.search.results import SearchResult; import tune_cure",
        "from tune_cure import search; import tune_cure.search.results; import tune_cure",
    )
    check = "; assert callable(tune_cure.search) and tune_cure.search.results.SearchResult is tune_cure.SearchResult"
    slow = "{'torch', 'pandas', 'pydantic'}"
    quick = f"import sys, tune_cure; tune_cure.__version__; assert {slow}.isdisjoint(sys.modules)"
    for script in (*(order + check for order in orders), quick):
        subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("room", ["data", "models", "gradients", "evaluation.metrics", "training.run"])
def test_importing_a_room_imports_no_library_for_plots_or_tables(room: str) -> None:
    script = f"import sys, tune_cure.{room}; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    slow = {*SLOW_TO_IMPORT, "PIL", "pyautoattack"} - {"torch"}
    assert set(process.stdout.split()).isdisjoint(slow)
