import argparse
import dataclasses
import importlib
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.command_line import typed_arguments
from tests.support.journals import write_search
from tune_cure.cli import confirm, evaluate, league, search, train
from tune_cure.cli.confirm import ConfirmOptions
from tune_cure.cli.main import COMMANDS, build_parser, main
from tune_cure.cli.options import program
from tune_cure.cli.train import TrainOptions

LEAST = {  # the arguments without which a command is refused
    "search": ["--space", "quickstart"],
    "league": ["quickstart", "--methods", "cure", "pgd"],
    "confirm": ["FOLDER"],
    "compare": ["A", "B"],
    "evaluate": ["MODEL"],
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
    arguments = vars(parsed).keys() - {"command", "parser", "verbose", "quiet"}
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
    shortest = league.LeagueOptions(space="quickstart", methods=("cure", "pgd"))
    assert league.read_options(parse("league", *LEAST["league"])) == shortest
    assert league.read_options(parse("league", "--resume", "run")) == league.LeagueOptions(resume=Path("run"))


def test_the_command_that_continues_a_confirmation_is_the_same_confirmation() -> None:
    flags = "--top 2 --seeds 5 --baselines fgsm ablation --epsilons 4/255 0.1 --examples 50 --train-images 60"
    others = "--no-autoattack --data-root 'my data' --address auto"
    options = confirm.read_options(parse("confirm", "a run", *shlex.split(f"{flags} {others}")))
    assert confirm.read_options(parse(*typed_arguments(options.command()))) == options


def test_the_command_that_continues_a_training_run_keeps_its_device_its_test_and_its_parts() -> None:
    options = TrainOptions(test=True, device="cuda:1", parts=Path("my parts.py"), hyperparameters={"lambda": "3"})
    resumed = train.read_options(parse(*typed_arguments(options.resume_command(Path("a run")))))
    assert resumed == TrainOptions(
        output=Path("a run"), resume=True, test=True, device="cuda:1", parts=Path("my parts.py")
    )


def test_folders_and_files_that_begin_like_a_flag_can_be_typed_as_printed() -> None:
    resumed = train.read_options(
        parse(*typed_arguments(TrainOptions(parts=Path("-p.py")).resume_command(Path("-run"))))
    )
    assert (resumed.output, resumed.parts) == (Path("-run"), Path("-p.py"))
    confirmed = ConfirmOptions(directory=Path("-run"), data_root="-data", parts=Path("-p.py"))
    again = confirm.read_options(parse(*typed_arguments(confirmed.command())))
    assert (again.directory, Path(str(again.data_root)), again.parts) == (Path("-run"), Path("-data"), Path("-p.py"))
    judged = evaluate.EvaluateOptions(models=("-run", "a=-run"), output=Path("-out"))
    words = evaluate.read_options(parse(*typed_arguments(judged.command())))
    assert (words.models, words.output) == (("./-run", "a=-run"), Path("-out"))


def test_the_command_that_continues_a_search_keeps_its_folder_and_its_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = search.SearchOptions(space="cure", settings=("search.trials=3",), address="auto")
    run = tmp_path / "a run"
    run.mkdir()
    write_search(run, 1)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(options.resume_command(Path("a run"), "a run"))
    words = words[words.index("search") + 1 :]
    assert words == ["--resume", str(run), "--address", "auto"]
    resumed = search.SearchOptions(space=f"{run}/spec.yaml", output=str(run), resume=True, address="auto")
    assert search.read_options(parse("search", *words)) == resumed
    in_store = options.resume_command(Path("a run"), "s3://bucket/run")
    assert f"--space '{run}/spec.yaml' --output s3://bucket/run --resume --address auto" in in_store


def test_resume_with_a_folder_takes_its_own_space_unless_another_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["cure", "--resume", "run"], ["--resume", "run", "--space", "cure"]):
        options = search.read_options(parse("search", *words))
        assert options == search.SearchOptions(space="cure", output="run", resume=True)
    assert main(["search", "--resume", str(tmp_path)]) == 2
    assert "holds no search: there is no spec.yaml in it" in capsys.readouterr().err
    for words, said in (
        (["--resume", "run", "--output", "other"], "one folder is needed, but found --resume run and --output other"),
        (["--resume", "s3://bucket/run"], "--resume URI: a search space is needed, too"),
    ):
        with pytest.raises(SystemExit):
            main(["search", *words])
        assert said in capsys.readouterr().err


def test_the_program_is_named_as_it_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Path(sys.executable).with_name("tune-cure")
    monkeypatch.setattr("shutil.which", lambda name_: str(name))
    assert program() == "tune-cure"
    monkeypatch.setattr("shutil.which", lambda name_: "/usr/bin/tune-cure")
    assert program() == f"{shlex.quote(sys.executable)} -m tune_cure"
