"""The site that `make docs` builds: that it is whole without a network, also when it is opened from the disk."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.browser import dump_page, needs_browser

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
"""What a browser fetches by itself: tags and the attributes that say from where."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """Collects what a page has loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        value = dict(attrs).get(LOADED.get(tag, ""))
        if value and not (tag == "link" and dict(attrs).get("rel") in ("next", "prev", "canonical")):
            self.found.append(value)


def loads(page: Path) -> list[str]:
    reader = Loads()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.found


def test_pages_load_nothing_from_another_host_and_every_file_that_they_load_exists(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for address in loads(page):
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
            if page.name != "404.html" and not address.startswith("data:"):  # a server shows that at any address
                assert (page.parent / address.partition("?")[0]).is_file(), f"{page.name}: there is no {address}"


def test_stylesheets_load_nothing_from_another_host(site: Path) -> None:
    for file in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", file.read_text(encoding="utf-8")), file


def test_the_search_of_the_site_works_without_a_server(site: Path) -> None:
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    assert "iframe-worker.js" in loads(site / "index.html")


def test_the_navigation_stands_beside_the_page_from_1100_pixels_on(site: Path) -> None:
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("assets/stylesheets/*.css"))
    assert "68.75em" in styles
    assert "76.25em" not in styles


@needs_browser
@pytest.mark.parametrize("query", ["out of memory", "CUDA out of memory"])
def test_the_search_finds_troubleshooting_for_a_symptom(query: str, site: Path, tmp_path: Path) -> None:
    address = f"{(site / 'index.html').as_uri()}?q={query.replace(' ', '+')}"
    html = dump_page(address, tmp_path, milliseconds=15000)
    links = re.findall(r'href="([^"?]*)[^"]*" class="md-search-result__link', html)
    assert Path(links[0]).name == "troubleshooting.html"
