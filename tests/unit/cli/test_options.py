import argparse
import dataclasses
import importlib
import shlex
from pathlib import Path

import pytest

from tune_cure.cli import confirm, search, train
from tune_cure.cli.confirm import ConfirmOptions
from tune_cure.cli.main import COMMANDS, build_parser
from tune_cure.cli.train import TrainOptions

LEAST = {  # the arguments without which a command is refused
    "search": ["--space", "quickstart"],
    "confirm": ["FOLDER"],
    "compare": ["A", "B"],
    "export": ["FOLDER", "--to", "OTHER"],
    "report": ["FOLDER"],
    "replay": ["FOLDER"],
    "watch": ["FOLDER"],
}


def parse(*words: str) -> argparse.Namespace:
    return build_parser([words[0]]).parse_args(words)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_of_a_command_is_a_field_of_its_frozen_options(command: str) -> None:
    parsed = parse(command, *LEAST.get(command, []))
    options = importlib.import_module(f"tune_cure.cli.{command}").read_options(parsed)
    names = {field.name for field in dataclasses.fields(options)}
    arguments = vars(parsed).keys() - {"command", "parser", "verbose"}
    if command == "train":
        original = {"hat", "opt_level", *(flag[2:].replace("-", "_") for flag in train.original_flags.WITHOUT_EFFECT)}
        arguments = {name for name in arguments - original if not name.startswith("training.")}
        names -= {"hyperparameters", "original"}
    assert names - {"verbose"} == arguments
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, next(iter(names)), None)


def test_defaults_of_the_options_are_those_of_the_command_line() -> None:
    assert search.read_options(parse("search", "--space", "cure")) == search.SearchOptions(space="cure")
    assert confirm.read_options(parse("confirm", "run")) == ConfirmOptions(directory=Path("run"))
    assert train.read_options(parse("train")) == TrainOptions()


def test_the_command_that_continues_a_confirmation_is_the_same_confirmation() -> None:
    flags = "--top 2 --seeds 5 --baselines fgsm ablation --epsilons 4/255 0.1 --examples 50 --train-images 60"
    others = "--no-autoattack --data-root 'my data' --address auto"
    options = confirm.read_options(parse("confirm", "a run", *shlex.split(f"{flags} {others}")))
    assert confirm.read_options(parse(*shlex.split(options.command())[1:])) == options


def test_the_command_that_continues_a_training_run_keeps_its_device_and_its_test() -> None:
    options = TrainOptions(test=True, device="cuda:1", hyperparameters={"lambda": "3"})
    words = shlex.split(options.resume_command(Path("a run")))
    resumed = train.read_options(parse(*words[1:]))
    assert resumed == TrainOptions(output=Path("a run"), resume=True, test=True, device="cuda:1")


def test_the_command_that_continues_a_search_keeps_its_folder_and_its_cluster() -> None:
    options = search.SearchOptions(space="cure", settings=("search.trials=3",), address="auto")
    words = shlex.split(options.resume_command(Path("a run"), "a run"))
    words = words[words.index("--space") :]
    resumed = search.SearchOptions(space="a run/spec.yaml", output="a run", resume=True, address="auto")
    assert search.read_options(parse("search", *words)) == resumed
    assert "--output s3://bucket/run " in options.resume_command(Path("a run"), "s3://bucket/run")
