"""The public functions that start Ray, as docs/python_api.md shows them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import nn

import tune_cure
from tests.support.documents import blocks
from tests.support.registered_parts import forget_afterwards
from tune_cure.confirmation.verdicts import Confirmation

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page's code leaves, run block after block in a folder of its own."""
    page = Path("docs/python_api.md")
    code = [block for block in blocks(page) if block.language == "python" and "test_python_api" in block.not_run]
    names: dict[str, Any] = {"__name__": "__main__", "folder": tmp_path_factory.mktemp("python_api")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names["folder"])
        forget_afterwards(patch)
        for block in code:
            exec(compile(block.text, str(block), "exec"), names)
            names[f"result of line {block.line}"] = names["result"]
    return names


def test_a_search_in_python_writes_the_same_files_as_the_command(session: dict[str, Any]) -> None:
    folder = session["folder"] / "results" / "mine"
    for name in ("trials.csv", "report.html", "best_model.pt", "spec.yaml", "environment.json"):
        assert (folder / name).is_file()
    assert len(pd.read_csv(folder / "trials.csv")) == 4
    assert isinstance(session["network"], nn.Module)


def test_a_search_space_may_be_a_mapping(session: dict[str, Any]) -> None:
    result = session["result"]
    assert (result.outcome, len(result.trials)) == ("finished", 3)
    assert set(result.best.hyperparameters) == {"lambda", "epsilon"}
    assert session["space"]["model"] == "small_cnn"


def test_a_search_that_has_ended_is_neither_run_again_nor_overwritten(
    session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a search was started")

    monkeypatch.setattr("tune_cure.ray_backend.tuner.run", never)
    monkeypatch.chdir(session["folder"])
    again = tune_cure.search(session["space"], output="results/own")
    assert again.trials.equals(session["result"].trials)
    before = Path("results/own/spec.yaml").read_bytes()
    with pytest.raises(tune_cure.TuneCureError, match="holds another search"):
        tune_cure.search(session["space"], output="results/own", settings={"evaluation.epsilon": "8/255"})
    assert Path("results/own/spec.yaml").read_bytes() == before


def test_a_confirmation_in_python_returns_and_writes_its_numbers(session: dict[str, Any]) -> None:
    confirmation = session["confirmation"]
    assert isinstance(confirmation, Confirmation)
    assert confirmation.means()["seeds"].tolist() == [2, 2]
    assert len(confirmation.comparisons()) == 2  # clean and PGD-50-10
    folder = session["folder"] / "results" / "own" / "confirm"
    assert (folder / "confirm.html").is_file()
    assert (folder / "confirm.csv").is_file()


WITH_A_REGISTERED_PART = """
import sys

import ray
from torch import nn

import tune_cure


def linear(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))


tune_cure.register("network", "own_linear", linear)
space = {
    "name": "own",
    "data": {"dataset": "digits", "validation": 360},
    "model": "own_linear",
    "training": {"epochs": 1, "batch_size": 64},
    "space": {"lambda": {"uniform": [0, 1]}},
    "evaluation": {"epsilon": 0.15, "steps": 2, "examples": 100},
    "search": {"trials": 1},
    "asha": {"grace_period": 1},
}
result = tune_cure.search(space, output=sys.argv[1])
print(result.trials["status"].tolist(), ray.is_initialized())
"""


def test_a_registered_part_is_known_in_the_processes_of_trials(tmp_path: Path) -> None:
    # In a process of its own, which no Ray of another test runs in: the search starts one that knows the part.
    script = tmp_path / "script.py"
    script.write_text(WITH_A_REGISTERED_PART, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["['completed'] False"], done.stderr
