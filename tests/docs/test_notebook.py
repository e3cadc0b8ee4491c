"""The notebook in examples/: what it keeps, and that it runs in an empty folder."""

import ast
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

NOTEBOOK = Path("examples/first_search.ipynb")
MAX_BYTES = 300_000


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    """The cells with code."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_run_from_top_to_bottom_without_an_error(cells: list[dict[str, Any]]) -> None:
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds == {"stream", "execute_result", "display_data"}
    assert NOTEBOOK.stat().st_size < MAX_BYTES


def test_the_notebook_shows_pictures_of_the_search_and_of_the_confirmation(cells: list[dict[str, Any]]) -> None:
    shown = {cell["id"]: "".join(cell["outputs"][-1]["data"].get("text/html", "")) for cell in cells if cell["outputs"]}
    assert [shown[name].count('<img src="data:image/png;base64,') for name in ("search", "confirm")] == [2, 3]


def test_the_code_of_the_notebook_is_python(cells: list[dict[str, Any]]) -> None:
    for cell in cells:
        ast.parse("".join(cell["source"]))


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of the packages that run notebooks
def test_the_notebook_runs_from_an_empty_folder_to_a_confirmed_winner(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    results = tmp_path / "results" / "first_search"
    assert len(pd.read_csv(results / "trials.csv")) == 8
    judged = pd.read_csv(results / "confirm" / "confirm.csv")
    assert judged["autoattack"].notna().sum() == 6
    assert (tmp_path / "results" / "first_winner" / "model.safetensors").exists()
