"""The base class of every error that a user can cause and mend."""

from tune_cure.utils.formatting import one_line


class TuneCureError(ValueError):
    """An input that cannot be used: the command prints its one line and exits with code 2.

    Every room derives its own errors from this class, so that a caller can catch them all at once. Control characters
    in the text, for example of a file's name, are spelled out.

    Attributes:
        exit_code: The exit code of a command that this error ends.
    """

    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class where it has no text, as a TimeoutError."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
