import io
import logging

import pytest
from rich.table import Table
from rich.text import Text

from tune_cure.cli.console import SafeConsole, SafeFormatter

HOSTILE = "\x1b]0;owned\x07\x9b2Jcafé\u202eexe\r"


@pytest.fixture
def console() -> SafeConsole:
    return SafeConsole(
        file=io.StringIO(), force_terminal=True, width=200, soft_wrap=True, highlight=False, markup=False
    )


def printed(console: SafeConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_no_text_controls_the_terminal_in_lines_tables_or_texts(console: SafeConsole) -> None:
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    for renderable in (HOSTILE, Text(HOSTILE), table):
        console.print(renderable)
    said = printed(console)
    assert "\x1b]" not in said
    assert not set("\x07\x9b\u202e\r") & set(said)
    assert said.count("café") == 4


def test_the_consoles_own_styles_and_line_breaks_remain(console: SafeConsole) -> None:
    console.print("two\nlines\tand a tab", style="bold")
    assert printed(console) == "\x1b[1mtwo\x1b[0m\n\x1b[1mlines   and a tab\x1b[0m\n"


def test_warnings_have_no_control_characters() -> None:
    record = logging.makeLogRecord({"msg": "%s: damaged", "args": ("a\x1b[2J",)})
    assert SafeFormatter("%(message)s").format(record) == r"a\x1b[2J: damaged"
