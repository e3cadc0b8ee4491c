"""Texts for people, in the terminal, in reports and in notebooks."""

import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

STATUS_WORDS = {  # fit after "trial 7" and after "7 trials"
    "completed": "ran to the end",
    "stopped": "stopped early",
    "unfinished": "unfinished",
    "catastrophic_overfitting": "overfitted catastrophically",
    "diverged": "diverged",
    "failed": "failed",
}


_drawers: dict[type, Callable[[Any], str]] = {}  # of the pictures of results; see `draw_with`

_HIDDEN = re.compile(
    r"[^\t\n\x20-\x7e\u00a0-\U0010ffff]"  # control characters, with which escape sequences of a terminal begin
    r"|[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"  # invisible, or turn text around
    r"|[\ud800-\udfff\U000e0000-\U000e007f]"  # half a character, which no file can hold; invisible tags
)


def spell_out(text: str) -> str:
    """Return `text` with control characters and invisible ones spelled out, but with its tabs and line breaks.

    All text that reaches the terminal, a page or a model card passes through here. It may come from a file that
    somebody sent, and could otherwise move the cursor, or be shown in another order than it is written.
    """
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_markdown(text: str) -> str:
    """Return `text` in one line, in which nothing is taken for Markdown or HTML."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in one_line(text))


def one_line(text: str) -> str:
    """Return `text` with line breaks and control characters spelled out, cut after 2,000 characters."""
    if text.isprintable() and len(text) <= 2000:
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:2000])[:2000]


def shorten_repr(value: Any) -> str:
    """Return a user's value as an error repeats it: its repr, cut after 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def format_duration(seconds: float) -> str:
    """Return a duration in words: 45 s, 3 min 20 s, 2 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def format_seconds(seconds: float) -> str:
    """Return a duration in words, also one of less than a second: 0.35 s, 4.2 s, 1 min 5 s."""
    return f"{seconds:.2g} s" if seconds < 9.95 else format_duration(seconds)


def format_value(value: Any) -> str:
    """Return a hyperparameter's value, floats to four digits; a dash for None, the value of an inactive one."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_exactly(number: float) -> str:
    """Return the shortest text that is read back as the same number: 0.8, 1, 0.6666666666666666."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def format_hyperparameters(values: dict[str, Any]) -> str:
    """Return hyperparameters in one line: lambda 0.1  h 1."""
    return "  ".join(f"{key} {format_value(value)}" for key, value in values.items())


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 trial, 2,000 trials."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def format_untrained_epochs(epochs: Mapping[str, int]) -> str:
    """Return how many epochs trials did not train, by cause: 9 epochs (diverged) and 12 epochs (unfinished).

    Args:
        epochs: Numbers of epochs by the status of the trials, or `budget` where the search's budget was spent.
    """
    causes = {**STATUS_WORDS, "budget": "the budget was spent"}
    return join_words(
        f"{format_count(epochs[cause], 'epoch')} ({words})" for cause, words in causes.items() if cause in epochs
    )


def path_word(path: str | Path) -> str:
    """Return a path as a word of a command line: ./-a for -a, which would be taken for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def quote_path(path: str | Path) -> str:
    """Return a path as it is typed in a shell: `path_word`, in quotes where these are needed."""
    return shlex.quote(path_word(path))


def join_words(items: Iterable[str], conjunction: str = "and") -> str:
    """Join words as in a sentence: a, b and c."""
    *before, last = list(items) or [""]
    return f"{', '.join(before)} {conjunction} {last}" if before else last


def format_radius(epsilon: float, norm: str) -> str:
    """Return the radius of a threat model in words: epsilon 0.03137 (8/255), or epsilon 0.5 in L2."""
    return f"epsilon {epsilon:.4g}" + (f" ({255 * epsilon:.3g}/255)" if norm == "linf" else f" in {format_norm(norm)}")


def format_norm(norm: str) -> str:
    """Return a norm as people write it: L∞ or L2; one of the user's own has its name in the YAML file."""
    return {"linf": "L∞", "l2": "L2"}.get(norm, norm)


def format_points(difference: float) -> str:
    """Return a difference of two fractions in percentage points, with its sign: +1.5, −0.3."""
    return f"{100 * difference:+z.1f}".replace("-", "−")  # z: no negative zero


def format_percent(fraction: float | None, error: float | None = None, *, digits: int = 1, unit: str = "%") -> str:
    """Return a fraction in percent: 47.3%, or 47.3 ± 1.6% with its error; a dash if the fraction is missing.

    Args:
        fraction: An accuracy or another share, of 1. None and NaN mean that it was not measured.
        error: Its standard error or standard deviation, of 1. None and NaN mean that there is none to show.
        digits: Decimal places.
        unit: What follows the number; empty in a table whose column already says percent.
    """
    if fraction is None or math.isnan(fraction):
        return "–"
    text = f"{100 * fraction:.{digits}f}"
    return f"{text}{unit}" if error is None or math.isnan(error) else f"{text} ± {100 * error:.{digits}f}{unit}"


def note_missing_seeds(measured: int, seeds: int) -> str:
    """Return what follows a mean over fewer seeds than were trained: ` (2 of 3 seeds)`; empty for all, and for none."""
    return f" ({measured} of {format_count(seeds, 'seed')})" if 0 < measured < seeds else ""


def draw_with(kind: type, draw: Callable[[Any], str]) -> None:
    """Have notebooks show pictures of the results of a class; a room above that of the class draws them.

    Args:
        kind: The class.
        draw: Returns the pictures of a result as HTML; empty for none.
    """
    _drawers[kind] = draw


def format_notebook(result: object, headline: str, note: str = "", tables: Iterable[str] = ()) -> str:
    """Return what a notebook shows of a result, as HTML.

    Args:
        result: The result; its pictures stand between the headline and the tables.
        headline: Plain text.
        note: The line below the headline, plain text; empty for none.
        tables: Tables, made by `format_table`.
    """
    draw = _drawers.get(type(result))
    below = f"<br>{escape(note)}" if note else ""
    return f"<p><strong>{escape(headline)}</strong>{below}</p>{draw(result) if draw else ''}{''.join(tables)}"


def format_table(frame: Any, formats: Mapping[str, str] | None = None) -> str:
    """Return a table without its index, as HTML; pandas escapes its texts.

    Args:
        frame: The table.
        formats: How the numbers of a column are written: `{:.1%}`. Other numbers have four digits.
    """
    formatters = {name: text.format for name, text in (formats or {}).items() if name in frame}
    html: str = frame.to_html(index=False, formatters=formatters, float_format="{:.4g}".format, na_rep="–", border=0)
    return html
