import re
import tomllib
from pathlib import Path

MODULES = {path.stem for path in Path("tune_cure").glob("*.py")} - {"__init__", "__main__"}


def test_every_module_has_its_place_among_the_layers() -> None:
    linter = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers")
    named = [name.strip().removeprefix("tune_cure.") for layer in layers for name in layer.split("|")]
    assert sorted(named) == sorted(MODULES)


def test_every_module_has_its_place_in_the_table_of_rooms() -> None:
    page = Path("docs/design.md").read_text(encoding="utf-8")
    rooms = page.partition("## The rooms")[2].partition("\n## ")[0]
    files = [cell for line in rooms.splitlines() if line.startswith("| `") for cell in re.findall(r"`(\w+)\.py`", line)]
    assert sorted(files) == sorted(MODULES)
