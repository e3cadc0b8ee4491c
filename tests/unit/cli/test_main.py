import errno
import importlib.util
import os
from pathlib import Path

import pytest

from tests.support.command_line import failed, fill_disk
from tests.support.journals import write_search
from tests.support.spaces import TINY
from tune_cure.cli import search
from tune_cure.cli.main import build_parser, main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command line that cannot be parsed, and returns the one line that it prints."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small search space in a folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def test_a_misspelt_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "serach", "--space", "cure") == (
        "tune-cure: unknown command 'serach'; did you mean 'search'?; see tune-cure --help\n"
    )
    assert "unknown command 'quickstart'; commands are search, train, " in refused(capsys, "quickstart")


def test_a_search_takes_its_space_with_or_without_the_flag() -> None:
    for words in (["quickstart"], ["--space", "quickstart"], ["--check", "quickstart"], ["quickstart", "--check"]):
        parsed = build_parser(["search"]).parse_args(["search", *words])
        assert search.read_options(parsed).space == "quickstart"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a search space is needed: a YAML file, or one of cifar100, cifar10_cpu, cure, "),
        (["cure", "--space", "quickstart"], "one search space is needed, but found cure and quickstart"),
        (["--space", "cure", "--chekc"], "unknown argument --chekc; did you mean '--check'?"),
        (["cure", "--trials", "5"], "unknown argument --trials; did you mean --set search.trials=5?"),
        (["--space", "cure", "--trials", "5"], "unknown argument --trials; did you mean --set search.trials=5?"),
        (["--trials=5", "cure"], "unknown argument --trials=5; did you mean --set search.trials=5?"),
        (["cure", "--epochs"], "unknown argument --epochs; did you mean --set training.epochs=X?"),
        (
            ["cure", "--grace-period", "2"],
            "unknown argument --grace-period; did you mean --set asha.grace_period=2?",
        ),
        (
            ["cure", "--steps", "9"],
            "did you mean --set evaluation.steps=9, --set asha.steps=9 or --set rescore.steps=9?",
        ),
    ],
)
def test_a_wrong_command_line_of_a_search_says_what_was_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "search", *words)
    assert line.startswith("tune-cure search: ")
    assert said in line
    assert line.endswith("; see tune-cure search --help\n")


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["confirm", "run", "--seed", "7"], "--seed; did you mean '--seeds'?"),
        (["confirm", "run", "--epsilon=8/255"], "--epsilon=8/255; did you mean '--epsilons'?"),
        (["confirm", "run", "--exam", "9"], "--exam; did you mean '--examples'?"),
        (["search", "cure", "--dash", "0.0.0.0"], "--dash; did you mean '--dashboard-host'?"),
        (["league", "cure", "--seed", "3", "--methods", "cure"], "--seed; did you mean '--seeds'?"),
        (["train", "--seeds", "3"], "--seeds; did you mean '--seed'?"),
        (["report", "--verb"], "--verb; did you mean '--verbose'?"),
        (["confirm", "run", "--e"], "--e; did you mean '--epsilons' or '--examples'?"),
    ],
)
def test_a_flag_is_never_taken_for_another_that_begins_like_it(
    command: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *command) == (
        f"tune-cure {command[0]}: unknown argument {hint}; see tune-cure {command[0]} --help\n"
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trials=5", "trials: unknown key; did you mean search.trials?"),
        ("lr_max=0.1", "lr_max: unknown key; did you mean training.lr_max?"),
        ("search.epochs=5", "search.epochs: unknown key; did you mean training.epochs?"),
        ("search.trails=5", "search.trails: unknown key; allowed are trials, "),
        ("steps=5", "steps: unknown key; did you mean evaluation.steps, asha.steps or rescore.steps?"),
    ],
)
def test_a_key_in_the_wrong_section_is_answered_with_its_own(
    setting: str, said: str, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in failed(capsys, "search", str(space), "--set", setting)


def test_an_output_that_is_a_file_is_said_to_be_one(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["search", str(space)], ["train", "--dataset", "digits"]):
        assert main([*command, "--output", str(space)]) == 2
        assert capsys.readouterr().err == f"tune-cure: --output {space}: is a file; a folder is needed\n"


def test_a_yaml_file_that_cannot_be_parsed_is_named_with_line_and_column(
    space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space.write_text("name: tiny\nspace: [\n")
    assert failed(capsys, "search", str(space)) == (
        f"tune-cure: {space}: is not valid YAML: line 3, column 1: while parsing a flow node: "
        "expected the node content, but found '<stream end>'\n"
    )
    space.write_text("name: tiny\nname: other\n")
    assert failed(capsys, "search", str(space)) == (
        f"tune-cure: {space}: is not valid YAML: line 1, column 1: the key 'name' is given twice\n"
    )
    space.write_bytes(b"name: \xff\n")
    assert "is not valid YAML: 'utf-8' codec can't decode" in failed(capsys, "search", str(space))


def test_a_folder_of_runs_is_answered_with_the_runs_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_search(tmp_path / name, 1)
    for command in ("report", "watch", "replay", "confirm"):
        said = failed(capsys, command, str(tmp_path))
        assert (
            said == f"tune-cure: {tmp_path}: holds no search itself, but these: {tmp_path}/a, {tmp_path}/b; name one\n"
        )


def test_train_takes_the_winner_of_a_runs_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_search(tmp_path, 1)
    wanted = f"tune-cure: {tmp_path}: holds no best_config.csv; tune-cure report {tmp_path} writes it\n"
    assert failed(capsys, "train", "--config", str(tmp_path)) == wanted


@pytest.mark.parametrize(
    "command", [["report"], ["confirm"], ["search"], ["train", "--config"], ["evaluate"], ["league", "--resume"]]
)
def test_a_path_that_no_file_can_have_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = failed(capsys, *command, "x" * 300)
    assert said.startswith("tune-cure: xxx")
    assert said.endswith(": File name too long\n")


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "watch", "--quiet", "--verbose")
    assert "argument --verbose: not allowed with argument --quiet" in said


def test_a_quiet_command_prints_warnings_and_errors_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_search(tmp_path / name)
    folders = (str(tmp_path / "a"), str(tmp_path / "b"))
    assert main(["compare", *folders, "--csv", str(tmp_path / "table.csv"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "table.csv").exists()
    monkeypatch.setattr(
        "tune_cure.confirmation.searches.comparison.comparison_warnings", lambda searches: ["be careful"]
    )
    assert main(["compare", *folders, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "warning: be careful\n")
    assert "holds no search" in failed(capsys, "report", str(tmp_path / "none"), "--quiet")


def test_completion_without_its_package_is_an_error_of_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = failed(capsys, "--print-completion", "bash")
    assert said == (
        "tune-cure: --print-completion needs the package shtab, which is not installed: pip install shtab\n"
    )


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["search", "tiny.yaml", "--output", "new"], "new/spec.yaml"),
        (["search", "--resume", "run"], "run/environment.json"),
        (["league", "tiny.yaml", "--methods", "cure", "fgsm_rs", "--output", "new"], "new/league.yaml"),
        (["replay", "run"], "run/replay.csv"),
        (
            ["train", "--dataset", "digits", "--model", "small_cnn", "--threads", "1", "--output", "new"],
            "new/config.yaml",
        ),
    ],
)
def test_a_full_disk_is_one_line_that_names_the_file(
    words: list[str], file: str, space: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run").mkdir()
    write_search(Path("run"))
    fill_disk(monkeypatch)
    assert main(words) == 1
    assert capsys.readouterr().err == f"tune-cure: {file}: No space left on device\n"


def test_an_error_of_the_system_that_is_no_fault_of_the_disk_stays_a_traceback(
    space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(search, "run", fail)
    with pytest.raises(ConnectionResetError):
        main(["search", str(space)])
