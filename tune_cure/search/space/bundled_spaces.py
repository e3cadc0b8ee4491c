"""The search spaces that come with the project, found by name: `cure` or `cure.yaml` in place of a path."""

from pathlib import Path

from tune_cure.utils.registry import did_you_mean
from tune_cure.utils.yaml_config import SpecError

_PACKAGE = Path(__file__).parents[2]
FOLDERS = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")  # in an installed wheel; in a checkout


def bundled() -> dict[str, Path]:
    """The files by their names without `.yaml`."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find(space: str) -> Path:
    """The file that is meant by `space`: one at that path, or if there is none a bundled one of that name.

    Raises:
        SpecError: There is neither.
    """
    path, spaces = Path(space), bundled()
    if path.exists() or not spaces:
        return path  # whoever reads it says what is wrong with it
    named = path.name.removesuffix(".yaml")
    if path.name == space and named in spaces:
        return spaces[named]
    raise SpecError(
        f"{space}: there is no such file, nor a bundled space of this name; "
        f"bundled are {', '.join(spaces)}{did_you_mean(named, spaces)}"
    )


def search_command() -> str:
    """What a search is started with here: in a checkout its script, elsewhere what the package has installed."""
    return "python run_search.py" if Path("run_search.py").is_file() else "tune-cure search"
