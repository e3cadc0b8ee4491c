"""Sorting and filtering of the tables of pages, as report.js does it. Skipped where there is no Node.js."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tune_cure.reports import html_page

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")

WITHOUT_A_PAGE = "globalThis.document = {querySelectorAll: () => []}; globalThis.addEventListener = () => {};"
ROWS = """
const rowOf = (...cells) => ({
  cells: cells.map((cell) => ({textContent: String(cell.text ?? cell), dataset: cell.sort ? {sort: cell.sort} : {}})),
  textContent: cells.map((cell) => cell.text ?? cell).join(" "),
});
"""


def evaluate(expression: str, rows: list[list[Any]]) -> Any:
    """The value of an expression of JavaScript about `rows`, lists of texts or of objects with `text` and `sort`."""
    script = (Path(html_page.__file__).parent / "report.js").read_text(encoding="utf-8")
    script = f"{WITHOUT_A_PAGE}\n{script}\n{ROWS}\nconst rows = {json.dumps(rows)}.map((cells) => rowOf(...cells));"
    assert NODE is not None
    command = [NODE, "-e", f"{script}\nconsole.log(JSON.stringify({expression}));"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def matching(term: str, names: list[str], rows: list[list[Any]]) -> list[str]:
    """The first cells of the rows that a term of the filter keeps."""
    test = f"testOf({json.dumps(term)}, {json.dumps(names)})"
    kept: list[str] = evaluate(f"rows.filter({test}).map((row) => row.cells[0].textContent)", rows)
    return kept


def order_of(column: int, rows: list[list[Any]]) -> list[str]:
    """The first cells of the rows in ascending order of a numeric column."""
    expression = f'sorted(rows, {column}, true, "ascending").map((row) => row.cells[0].textContent)'
    first: list[str] = evaluate(expression, rows)
    return first


def test_a_comparison_takes_the_column_of_that_name_before_one_that_begins_so() -> None:
    names, rows = ["trial", "howitended", "h"], [["0", "ran to the end", "0.5"], ["1", "stopped early", "1.5"]]
    assert matching("h<1", names, rows) == ["0"]
    assert matching("how=stopped", names, rows) == ["1"]


def test_a_radius_is_compared_as_a_number() -> None:
    names, rows = ["trial", "epsilon"], [["0", "4/255"], ["1", "8/255"], ["2", "12.5/255"]]
    assert matching("epsilon<0.02", names, rows) == ["0"]
    assert matching("epsilon>=8/255", names, rows) == ["1", "2"]
    assert matching("epsilon=8/255", names, rows) == ["1"]
    assert order_of(1, rows) == ["0", "1", "2"]


def test_durations_are_sorted_by_their_seconds() -> None:
    rows = [["a", {"text": "2 min 5 s", "sort": "125"}], ["b", {"text": "45 s", "sort": "45"}], ["c", "–"]]
    rows.append(["d", {"text": "1 h 0 min", "sort": "3600"}])
    assert order_of(1, rows) == ["b", "a", "d", "c"]
    assert matching("training<100", ["method", "training"], rows) == ["b"]
