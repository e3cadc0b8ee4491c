import json
from pathlib import Path

import pytest

from tests.support.command_line import failed
from tests.support.registered_parts import forget_afterwards
from tune_cure.cli.main import main

PARTS = """
import tune_cure
from dataclasses import dataclass
from tune_cure.regularizers.regularizer import Regularizer
from tune_cure.utils.hyperparameters import hyperparameter


@dataclass
class Smooth(Regularizer):
    \"\"\"How rough the loss is.\"\"\"

    roughness: float = hyperparameter(0.5, "Largest roughness.", gt=0)

    def per_example(self, *_):
        raise NotImplementedError


tune_cure.register("regularizer", "smooth", Smooth)
"""


def test_the_schema_is_printed_or_written_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["properties"]["space"]["properties"].keys() >= {"lambda", "method", "delta"}
    file = tmp_path / "schema.json"
    for _ in range(2):  # a newer version's replaces an older one's
        assert main(["schema", "--output", str(file)]) == 0
        said = "a search space beside it begins with the line\n  # yaml-language-server: $schema=schema.json\n"
        assert capsys.readouterr().out == f"wrote {file}; {said}"
    assert json.loads(file.read_text()) == printed
    file.write_text('{"name": "mine"}')
    said = f"--output {file}: is a file of another kind, and is not replaced; name another file"
    assert said in failed(capsys, "schema", "--output", str(file))
    assert file.read_text() == '{"name": "mine"}'
    assert "none/x: cannot be written: No such file" in failed(capsys, "schema", "--output", str(tmp_path / "none/x"))


def test_the_schema_knows_the_users_own_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_afterwards(monkeypatch)
    (tmp_path / "parts_for_the_schema.py").write_text(PARTS)
    assert main(["schema", "--parts", str(tmp_path / "parts_for_the_schema.py")]) == 0
    definitions = json.loads(capsys.readouterr().out)["definitions"]
    assert {"const": "smooth", "description": "How rough the loss is."} in definitions["regularizer"]["anyOf"]
    assert definitions["roughness"]["description"] == "Largest roughness."
    assert definitions["roughness"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0, "maximum": 1e100}
