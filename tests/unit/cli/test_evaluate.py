from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import tune_cure
from tests.support.exported_models import (
    random_network,
    write_best_model,
    write_network_for_pictures,
    write_search_with_model,
)
from tests.support.pictures import write_pictures
from tune_cure.cli import main as cli
from tune_cure.cli.options import program
from tune_cure.cli.steps import evaluate_run as command
from tune_cure.cli.views.evaluation import print_judgement
from tune_cure.confirmation.judgement import JudgedNetwork, Judgement
from tune_cure.confirmation.trained_networks import ModelError
from tune_cure.evaluation.names import ATTACKS, WITHOUT_AUTOATTACK
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.utils.errors import TuneCureError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def search(tmp_path: Path) -> Path:
    return write_search_with_model(tmp_path / "run").directory


def evaluate(*arguments: str) -> int:
    return cli.main(["evaluate", *arguments, "--examples", "20", "--no-autoattack"])


def test_networks_are_judged_and_compared(search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.pt"
    write_best_model(tune_cure.SearchResult(search), weights=random_network(1).state_dict()).rename(other)
    write_best_model(tune_cure.SearchResult(search))
    assert evaluate(str(search), f"mine={other}", "--output", "out") == 0
    said = capsys.readouterr().out
    assert "2 networks on 20 test images (8×8 handwritten digits" in said and "at epsilon 0.15" in said
    assert "run against mine, PGD-50-10: " in said and "run: PGD-10 " in said
    assert "this says nothing of the methods that trained them" in said
    assert pd.read_csv("out/evaluation.csv")["model"].tolist() == ["run", "mine"]


@pytest.mark.parametrize("folder", ["a@b", "me@corp.org/run"])
def test_a_folder_with_an_at_sign_says_what_its_network_was_trained_for(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    write_search_with_model(tmp_path / folder)
    assert evaluate(str(tmp_path / folder)) == 0
    said = capsys.readouterr().out
    assert "8×8 handwritten digits" in said and "at epsilon 0.15" in said


def test_a_network_that_was_trained_on_some_of_the_test_images_is_named(caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(Path("pictures"), count=10)
    networks = [write_network_for_pictures(name, held_out) for name, held_out in {"a": 4, "b": 6, "c": 4}.items()]
    tune_cure.evaluate(networks, autoattack=False, quiet=True)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        "b: may have been trained on some of these test images: the data set has none of its own, and with "
        "data.validation 6 others were held out than with 4"
    )


def test_what_was_judged_is_not_judged_again(search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune_cure.evaluate([search], examples=20, autoattack=False, quiet=True)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an attack ran again")

    monkeypatch.setattr("tune_cure.evaluation.robustness._run_attack", fail)
    second = tune_cure.evaluate([f"again={search}"], examples=20, autoattack=False, quiet=True)
    assert second.table()["pgd_50_10"].tolist() == first.table()["pgd_50_10"].tolist()
    with pytest.raises(AssertionError, match="ran again"):
        tune_cure.evaluate([search], examples=20, autoattack=False, epsilon=0.2, quiet=True)


def test_ctrl_c_says_how_to_continue(
    search: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "evaluate_robustness", interrupt)
    assert evaluate(str(search)) == 130
    said = capsys.readouterr().out
    assert "what is done is kept" in said
    assert f"{program()} evaluate {search} --examples 20 --no-autoattack\n" in said


def test_names_are_as_short_as_they_can_be() -> None:
    assert command.name_models(["a/x/best.pt", "a/y/best.pt", "n=b/best.pt"]) == {
        "x/best.pt": "a/x/best.pt", "y/best.pt": "a/y/best.pt", "n": "b/best.pt",
    }  # fmt: skip
    assert command.name_models(["a/best.pt"]) == {"best.pt": "a/best.pt"}
    assert command.name_models(["w.pt@nets:one", "w.pt@nets:two"]) == {
        "w.pt@nets:one": "w.pt@nets:one", "w.pt@nets:two": "w.pt@nets:two",
    }  # fmt: skip
    with pytest.raises(ModelError, match="names two networks; give one a name of its own: NAME=a"):
        command.name_models(["a", "a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: is no trained network"),
        (["linear.pt@{module}:linear", "--image-size", "16"], "cannot classify images of 1×16×16: RuntimeError: "),
        (["{run}", "--dataset", "cifar10", "--data-root", "nowhere"], "CIFAR-10 is not in"),
        (["linear.pt@{module}:linear"], "returns values of shape (2, 3) for 2 images, where 10 classes"),
        (["{run}", "--device", "cuda:77"], "--device cuda:77: cannot be used"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    search: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    torch.save(linear().state_dict(), "linear.pt")
    words = [word.format(run=search, module=__name__) for word in arguments]
    words = words if "--dataset" in words or "linear" not in words[0] else [*words, "--dataset", "digits"]
    assert evaluate(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not Path("results").exists()


def linear() -> torch.nn.Module:
    """Build a network of three classes."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))


def always_zero() -> torch.nn.Module:
    """Build a network of ten classes that always answers 0."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[1].bias[0] = 1
    return network


def always_one() -> torch.nn.Module:
    """Build a network of the layers of `always_zero` that always answers 1."""
    network = always_zero()
    network.register_forward_hook(lambda _, images, logits: -logits)
    return network


def test_a_network_does_not_get_the_outcomes_of_another_one_with_equal_weights() -> None:
    torch.save(always_zero().state_dict(), "weights.pt")
    models = [f"a=weights.pt@{__name__}:always_zero", f"b=weights.pt@{__name__}:always_one"]
    judgement = tune_cure.evaluate(models, dataset="digits", examples=20, autoattack=False, quiet=True)
    first, second = (judged.outcomes.correct["clean"] for judged in judgement.networks)
    assert first.sum() == second.sum() == 2 and not (first & second).any()


def test_too_many_images_are_refused(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(search), "--examples", "1000"]) == 2
    assert "--examples 1000: there are 359 test images" in capsys.readouterr().err
    with pytest.raises(TuneCureError, match="--examples 0: at least 2 test images are needed"):
        tune_cure.evaluate([search], examples=0, autoattack=False, quiet=True)


def test_the_version_of_autoattack_is_printed_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    right = np.arange(20) < 10
    for names, version in ((ATTACKS, "0.2.0"), (WITHOUT_AUTOATTACK, "")):
        judged = JudgedNetwork("mine", "mine.pt", 10, Outcomes(dict.fromkeys(names, right), 0.0, version), 1.0)
        print_judgement(Judgement([judged], "linf", 0.1, 0.1), Console(width=100))
    with_autoattack, without = capsys.readouterr().out.split("on 20 test images")[1:]
    assert "AutoAttack is that of the package pyautoattack 0.2.0." in with_autoattack.splitlines()
    assert "pyautoattack" not in without
