"""`make test-oldest` tests what pyproject.toml promises."""

import re
import tomllib
from pathlib import Path


def test_the_oldest_pytorch_that_is_tested_is_the_oldest_that_is_allowed() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {line for line in project["dependencies"] if re.match("torch(vision)?>=", line)}
    (tested,) = re.findall(r"^OLDEST = (.*)$", Path("Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {re.sub(r"==(\d+\.\d+)\.0$", r">=\1", version) for version in tested.split()} == allowed
