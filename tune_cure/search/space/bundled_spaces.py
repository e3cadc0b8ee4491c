"""Search spaces that come with the project. They are found by name: `cure` or `cure.yaml` in place of a path."""

from pathlib import Path

from tune_cure.utils.registry import did_you_mean
from tune_cure.utils.yaml_config import SpecError

_PACKAGE = Path(__file__).parents[2]
FOLDERS = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")  # in an installed wheel; in a checkout


def bundled() -> dict[str, Path]:
    """Return the bundled files by their names without `.yaml`."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find(space: str) -> Path:
    """Return the file at the path `space`, or the bundled space of that name if there is no such file.

    Raises:
        SpecError: There is neither.
    """
    path, spaces = Path(space), bundled()
    if path.exists() or not spaces:
        return path  # reading it gives the error, if there is one
    named = path.name.removesuffix(".yaml")
    if path.name == space and named in spaces:
        return spaces[named]
    raise SpecError(
        f"{space}: there is no such file, nor a bundled space of this name; "
        f"bundled are {', '.join(spaces)}{did_you_mean(named, spaces)}"
    )


def search_command() -> str:
    """Return the command that starts a search here: the script of a checkout, or the installed command."""
    return "python run_search.py" if Path("run_search.py").is_file() else "tune-cure search"
