"""The part of a page that a tool writes: between two marks, which name the tool."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def rewrite(page: str, tool: str, content: str) -> str:
    """Return the text `page` with `content` between the marks of `tool`, the name of its module."""
    begin, end = f"<!-- written by tools/{tool}.py -->", f"<!-- end of what tools/{tool}.py writes -->"
    before, found, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"the page lacks {begin if not found else end}")
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def write_or_check(page: Path, written: Callable[[str], str], description: str | None) -> int:
    """Write a page, or with `--check` on the command line compare it; return the exit code.

    Args:
        page: Its file.
        written: Returns the text that it should have, given the one that it has.
        description: What `--help` says.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is out of date")
    options = parser.parse_args()
    now = page.read_text(encoding="utf-8")
    wanted = written(now)
    if options.check:
        if now != wanted:
            print(f"{page.name} is out of date; run: make reference", file=sys.stderr)
        return int(now != wanted)
    page.write_text(wanted, encoding="utf-8")
    return 0
