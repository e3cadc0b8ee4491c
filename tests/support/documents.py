"""The project's pages, taken apart: headings, links and blocks of code, for the tests of what they say."""

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.token import Token

PAGES = [Path(name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(Path("docs").glob("*.md"))
_MARK = re.compile(r"<!-- (not run|needs a run): (.+?) -->\s*$", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Where it stands.
        line: Its first line there.
        language: What is written behind the fence; empty for an indented block.
        text: What it says.
        not_run: Why it is not to be checked, as the comment above it says.
        run: The folder of a run that it needs, as the comment above it says.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str = ""
    run: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    """The page as markdown-it reads it."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path, kind: str) -> Iterator[tuple[int, Token]]:
    """Everything of a kind within lines of text, with the line that its paragraph begins in."""
    for token in tokens(page):
        for child in token.children or []:
            if child.type == kind:
                yield (token.map or [0])[0] + 1, child


def anchors(page: Path) -> set[str]:
    """What a link to the page may have behind #, as code hosts make it of the headings."""
    of, seen = tokens(page), Counter[str]()
    found = set()
    for heading, text in itertools.pairwise(of):
        if heading.type == "heading_open":
            said = "".join(child.content for child in text.children or [])
            slug = re.sub(r"[^\w\- ]", "", said.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    """What the page links to, and shows."""
    for line, token in inline(page, "link_open"):
        yield line, str(token.attrs["href"])
    for line, token in inline(page, "image"):
        yield line, str(token.attrs["src"])


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code of a page; a mark above the first of several that follow each other is that one's alone."""
    before = None
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            mark = _MARK.search(before.content) if before is not None and before.type == "html_block" else None
            said = {mark[1].replace("not run", "not_run").replace("needs a run", "run"): mark[2]} if mark else {}
            assert token.map is not None
            yield Block(page, token.map[0] + 1, token.info.strip(), token.content, **said)
        before = token


def tables(page: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The tables of a page: the heading that each stands below, and its rows, each cell by its column's title."""
    heading, titles, rows, cells = "", [], [], []
    for before, token in itertools.pairwise(tokens(page)):
        if token.type == "inline":
            said = "".join(child.content for child in token.children or [])
            if before.type == "heading_open":
                heading = said
            elif before.type == "th_open":
                titles.append(said)
            elif before.type == "td_open":
                cells.append(said)
        elif token.type == "tr_close" and cells:
            rows.append(dict(zip(titles, cells, strict=True)))
            cells = []
        elif token.type == "table_close":
            yield heading, rows
            titles, rows = [], []


def of_section(page: str, heading: str, first: str) -> list[dict[str, str]]:
    """The rows of the table below a heading that has `first` as one of its columns."""
    (found,) = (rows for section, rows in tables(Path("docs") / page) if section == heading and first in rows[0])
    return found


def text_of(page: str, heading: str) -> str:
    """What stands below a heading, which is given with its marks, up to the next one of its level."""
    marks, _, _ = heading.partition(" ")
    text = (Path("docs") / page).read_text(encoding="utf-8")
    return text.partition(f"{heading}\n")[2].partition(f"\n{marks} ")[0]


def agree(rows: list[dict[str, str]], frame: pd.DataFrame, forms: dict[str, Callable[["pd.Series[Any]"], str]]) -> None:
    """That a table has the rows of a CSV file, in their order, with `forms` of a row in the columns of these titles."""
    assert len(rows) == len(frame)
    for row, (_, of) in zip(rows, frame.iterrows(), strict=True):
        for title, form in forms.items():
            assert row[title] == form(of), f"{row}: {title}"


def sessions(block: Block) -> Iterator[tuple[list[str], str]]:
    """The commands of a block, word by word, each with what it printed ("" where that is not shown).

    Where a line begins with `$ `, those without it are what was printed; elsewhere every line is a command. Assignments
    before a command are left out.
    """
    text = block.text.replace("\\\n", " ")
    shows = re.search(r"^\$ ", text, re.MULTILINE) is not None
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE) if shows else text.splitlines():
        line, _, printed = part.partition("\n")
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words, printed.strip()


BLOCKS = [block for page in PAGES for block in blocks(page)]


def checked_blocks(*languages: str) -> list[Block]:
    """Return the blocks in these languages that no comment exempts from checks."""
    return [block for block in BLOCKS if block.language in languages and not block.not_run]


SHELL = checked_blocks("", "bash", "sh", "console")
