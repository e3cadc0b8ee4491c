import ast
from pathlib import Path

import tune_cure
from tune_cure.search import run_files

PACKAGE = Path(tune_cure.__file__).parent
ROOMS = ("search", "confirmation", "ray_backend", "reports", "cli")
NAMES = {value for value in vars(run_files).values() if isinstance(value, str) and Path(value).suffix in
         (".yaml", ".jsonl", ".json", ".db", ".pt", ".html", ".csv", ".parquet", ".md", ".tex", ".npz")}  # fmt: skip


def test_no_other_module_spells_out_the_name_of_a_runs_file() -> None:
    assert {"spec.yaml", "journal.jsonl", "environment.json", "trials.csv", "best_model.pt", "confirm.csv"} < NAMES
    spelled_out = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for room in ROOMS
        for path in (PACKAGE / room).rglob("*.py")
        if path != Path(run_files.__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in NAMES
    ]

    assert spelled_out == []
