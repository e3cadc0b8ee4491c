"""Terminal of the commands: text that comes from files cannot take control of it."""

import logging
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tune_cure.utils.formatting import spell_out


class SafeConsole(Console):
    """Console that spells out control characters in what it prints, but not its own."""

    @property
    def is_terminal(self) -> bool:
        """Return whether it prints on a terminal; a quiet one shows nothing that moves."""
        return super().is_terminal and not self.quiet

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as a text, spelled out before the columns of a table are measured; see `Console`."""
        return super().render_str(spell_out(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object into segments; see `Console`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(spell_out(segment.text), segment.style)


def alert(console: Console, text: str, **options: Any) -> None:
    """Print what the user must know: on the console, or on the standard error if the console is quiet.

    Args:
        console: The console of a command.
        text: The lines.
        options: Those of `Console.print`.
    """
    if console.quiet:
        print(spell_out(text), file=sys.stderr)
    else:
        console.print(text, **options)


class SafeFormatter(logging.Formatter):
    """Formatter of log records that spells out control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return spell_out(super().format(record))


class TerminalHandler(logging.Handler):
    """Handler that prints log records on what is the standard error when they come.

    A live view prints there above its picture. A handler that keeps the stream of its beginning would print into the
    picture, which wipes the line out when it is drawn the next time.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        print(self.format(record), file=sys.stderr)
