import io
import logging

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_cure.cli.views.console import SafeConsole, SafeFormatter, TerminalHandler, alert

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


def test_a_log_record_is_printed_above_the_picture_of_a_live_view(capsys: pytest.CaptureFixture[str]) -> None:
    handler = TerminalHandler()
    handler.setFormatter(SafeFormatter("%(message)s"))
    record = logging.LogRecord("tune_cure", logging.WARNING, "", 0, "memory is short", (), None)
    console = SafeConsole(force_terminal=True, width=40, file=io.StringIO())
    with Live(Text("picture"), console=console, auto_refresh=False) as live:
        handler.emit(record)
        live.refresh()
    assert "memory is short" not in capsys.readouterr().err
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.index("memory is short") < shown.rindex("picture")
    handler.emit(record)
    assert capsys.readouterr().err == "memory is short\n"


def test_a_quiet_console_shows_no_moving_picture_and_alerts_on_the_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quiet, loud = SafeConsole(quiet=True, force_terminal=True), SafeConsole(force_terminal=True, width=80)
    assert (quiet.is_terminal, loud.is_terminal) == (False, True)
    alert(quiet, "bad: \x1b[2J", style="bold")
    assert capsys.readouterr() == ("", "bad: \\x1b[2J\n")
    alert(loud, "bad")
    assert capsys.readouterr() == ("bad\n", "")
