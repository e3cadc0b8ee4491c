"""The report as a browser shows it: its tables and its plots' buttons. Skipped where there is no Chromium."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import dump_page, needs_browser
from tests.support.journals import write_search
from tune_cure.reports import search_page
from tune_cure.reports.figures import catalog
from tune_cure.search.results import SearchResult

pytestmark = needs_browser

ACTIONS = """
addEventListener("load", () => {
  const table = document.querySelector("#trials").parentElement.querySelector("table");
  const rows = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const trials = () => rows().map((row) => parseInt(row.cells[0].textContent));
  const column = (number) => rows().map((row) => row.cells[number].textContent.trim());
  const click = (number) => table.tHead.rows[0].cells[number].querySelector("button").click();
  const filter = document.querySelector("#trials").parentElement.querySelector(".filter input");
  const type = (text) => { filter.value = text; filter.dispatchEvent(new Event("input")); };
  const found = {first: trials()};
  click(0); found.ascending = trials();
  click(0); found.descending = trials();
  click(0); found.again = trials();
  click(2); found.accuracies = column(2);
  click(2); click(2);
  type("stopped lambda<0.1"); found.filtered = [column(1), column(7)];
  found.count = document.querySelector("#trials").parentElement.querySelector("output").value;
  type("");
  found.order = table.tHead.rows[0].cells[2].ariaSort;
  const more = table.closest(".scrollable").previousElementSibling;
  found.more = more.hidden ? "" : more.textContent;
  found.buttons = [...document.querySelectorAll(".modebar-btn")].map((button) => button.dataset.title);
  const pre = Object.assign(document.createElement("pre"), {id: "found", textContent: JSON.stringify(found)});
  document.body.replaceChildren(pre);
});
"""


def act(directory: Path, width: int) -> dict[str, Any]:
    """What the page shows while `ACTIONS` click and type, in a window of `width` pixels."""
    page = search_page.write(SearchResult(directory))
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{ACTIONS}</script></body>"))
    html = dump_page(page.as_uri(), directory / "profile", width=width)
    found = re.search(r'<pre id="found">(.*?)</pre>', html, flags=re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(unescape(found[1]))
    return content


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("run")
    write_search(directory)
    return act(directory, 600)


def test_a_click_sorts_a_second_one_reverses_and_a_third_restores_the_ranking(found: dict[str, Any]) -> None:
    assert found["ascending"] == sorted(found["first"]) == found["descending"][::-1]
    assert found["again"] == found["first"]
    accuracies = [float(text.split()[0]) for text in found["accuracies"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found["order"] is None


def test_words_and_comparisons_filter_the_rows(found: dict[str, Any]) -> None:
    statuses, lambdas = found["filtered"]
    assert statuses
    assert all("stopped early" in status for status in statuses)
    assert all(float(value) < 0.1 for value in lambdas)
    assert found["count"] == f"{len(statuses)} of 24 rows"


def test_columns_out_of_sight_are_named(found: dict[str, Any]) -> None:
    assert found["more"].startswith("scrolls sideways: ")
    assert "momentum" in found["more"] or "others" in found["more"]


def test_no_button_sends_a_plot_anywhere(found: dict[str, Any]) -> None:
    assert "Download plot as a PNG" in found["buttons"]
    assert not [title for title in found["buttons"] if re.search("share|cloud|edit", title, flags=re.IGNORECASE)]


SCROLLS = """
addEventListener("load", () => {
  const box = document.querySelector("#plot-parallel").closest(".scrollable"), button = box.previousElementSibling;
  const found = {inner: box.scrollWidth, first: button.textContent};
  found.fits = document.documentElement.scrollWidth <= innerWidth;
  box.scrollLeft = box.scrollWidth;
  box.dispatchEvent(new Event("scroll"));
  found.last = button.textContent;
  const pre = Object.assign(document.createElement("pre"), {id: "found", textContent: JSON.stringify(found)});
  document.body.replaceChildren(pre);
});
"""


def test_a_plot_that_is_too_wide_for_the_page_scrolls_and_says_so(tmp_path: Path) -> None:
    write_search(tmp_path)
    result = SearchResult(tmp_path)
    plots = [replace(plot, min_width=1200 * (plot.name == "parallel")) for plot in catalog.build_plots(result)]
    page = search_page.write(result, plots)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{SCROLLS}</script></body>"))
    html = dump_page(page.as_uri(), tmp_path / "profile", width=500)
    match = re.search(r'<pre id="found">(.*?)</pre>', html, flags=re.DOTALL)
    assert match is not None
    found = json.loads(unescape(match[1]))
    assert found == {"inner": 1200, "first": "scrolls sideways →", "last": "← back", "fits": True}
