"""CSV tables in which no text is a formula to a spreadsheet program."""

import re
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t]")  # how a text begins that is taken for one; quotes may stand before it
_QUOTED = re.compile(r"'+[=+\-@\t]")


def format_csv(frame: "pd.DataFrame") -> str:
    """Return a table as CSV, without its index. Text that begins with = + - or @ has a quote in front of it.

    Numbers stay as they are, negative ones too. `read_csv` takes the quotes away.
    """
    return _map_texts(frame, lambda text: f"'{text}" if _FORMULA.match(text) else text).to_csv(index=False)


def read_csv(path: str | PathLike[str], **options: Any) -> "pd.DataFrame":
    """Read a table that `format_csv`, or anything else, wrote; `options` are those of `pandas.read_csv`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no table.
    """
    import pandas as pd  # slow to import: few commands read tables

    return _map_texts(pd.read_csv(path, **options), lambda text: text[1:] if _QUOTED.match(text) else text)


def _map_texts(frame: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    """Return the frame with `change` applied to each cell that is a text."""
    import pandas as pd

    changed = {}
    for name, column in frame.select_dtypes(exclude=["number", "bool"]).items():
        values = [change(value) if isinstance(value, str) else value for value in column]
        changed[str(name)] = pd.Series(values, index=column.index, dtype=column.dtype)
    return frame.assign(**changed)
