import itertools
import logging
import shlex
import signal
import tomllib
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.support.command_line import failed, typed_arguments
from tests.support.journal_lines import begin
from tests.support.journals import write_search
from tests.support.registered_parts import forget_afterwards
from tests.support.spaces import TINY
from tune_cure.cli.main import main
from tune_cure.cli.steps import search_run
from tune_cure.cli.views import duration, interruption
from tune_cure.ray_backend.resources import Machine
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils import locking


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default results folder is below the current one: make that a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_typo_in_the_space_is_one_line_and_starts_nothing(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space.write_text(TINY.replace("lambda: {log", "lamda: {log"))
    line = failed(capsys, "search", "--space", str(space))
    assert line.startswith(f"tune-cure: {space}: space.lamda: unknown key; allowed are ")
    assert line.endswith("did you mean 'lambda'?\n")
    assert not (elsewhere / "results").exists()


def test_data_that_is_nowhere_is_one_line_and_starts_nothing(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    nowhere = elsewhere / "nowhere"
    said: list[str] = []
    monkeypatch.setattr(logging.Logger, "info", lambda *arguments: said.append(str(arguments)))
    line = failed(capsys, "search", "--space", str(space), "--set", "data.dataset=cifar10", "--data-root", str(nowhere))
    assert not said
    assert line.startswith(f"tune-cure: CIFAR-10 is not in {nowhere} and cannot be downloaded (")
    assert "; put cifar-10-batches-py/ (from https://www.cs.toronto.edu/~kriz/cifar.html) there, or " in line
    assert "--data-root" in line
    assert not (elsewhere / "results").exists()


def test_a_yaml_cannot_have_data_written_where_it_likes(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", never)
    theirs = elsewhere / "theirs"
    space.write_text(TINY.replace("{dataset: digits,", f"{{dataset: cifar10, root: {theirs},"))
    line = failed(capsys, "search", "--space", str(space))
    assert f"CIFAR-10 is not in {theirs}" in line
    assert "--data-root" in line
    assert not theirs.exists()


def test_a_dashboard_that_must_not_be_opened_is_one_line_and_starts_nothing(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    search = ("search", "--space", str(space))
    assert "with a token only" in failed(capsys, *search, "--dashboard-host", "0.0.0.0")
    line = failed(capsys, *search, "--dashboard-host", "0.0.0.0", "--address", "127.0.0.1:6379")
    assert "not with --address" in line
    assert not (elsewhere / "results").exists()


def test_square_brackets_in_names_are_printed_as_they_are(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space.write_text(TINY.replace("{dataset: digits,", "{dataset: cifar10,"))
    assert main(["search", "--space", str(space), "--check", "--data-root", "/none/[/]/[bold]"]) == 0
    assert "CIFAR-10 is not in /none/[/]/[bold]" in capsys.readouterr().out


def test_a_trial_that_fits_no_machine_is_one_line(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for check in (["--check"], []):
        line = failed(capsys, "search", "--space", str(space), *check, "--set", "resources.cpus_per_trial=9999")
        assert "a trial takes 9999 CPUs" in line
    assert not (elsewhere / "results").exists()


@pytest.mark.parametrize("arguments", [[], ["serach"], ["search"], ["search", "--space"], ["replay"]])
def test_a_wrong_command_line_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    version = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (caught.value.code, capsys.readouterr().out) == (0, f"tune-cure {version}\n")


def test_help_names_every_registered_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    out = capsys.readouterr().out
    for name in ("digits", "svhn", "wide_resnet28_10", "classic", "cyclic", "adam", "tpe"):
        assert name in out


def test_check_prints_the_plan_and_starts_nothing(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["search", "--space", str(space), "--check", "--set", "search.trials=5"]
    assert main([*check, "--resolved", "resolved.yaml"]) == 0
    out = capsys.readouterr().out
    for said in (
        "5 trials by tpe",
        "600 train, 100 validation, 359 test images of 1×8×8, 10 classes",
        "may stop a trial after epoch 1, 2; runs to 4",
        "at most 20",
        "lambda: loguniform [0.001, 1]",
    ):
        assert said in out
    assert "resolved:" not in out
    resolved = (elsewhere / "resolved.yaml").read_text()
    assert yaml.safe_load(resolved)["search"]["trials"] == 5
    assert not (elsewhere / "results").exists()
    assert "resolved.yaml: cannot be written: File exists" in failed(capsys, *check, "--resolved", "resolved.yaml")
    assert main([*check, "--verbose"]) == 0
    found, _, plan = capsys.readouterr().out.partition("resolved:\n\n")[2].rpartition("\n\nsearch ")
    assert (found.strip(), "5 trials by tpe" in plan) == (resolved.strip(), True)  # the plan is last


def test_check_says_where_results_would_go_and_refuses_a_folder_that_the_search_would_refuse(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def output(*arguments: str) -> str:
        assert main(["search", str(space), "--check", *arguments]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("results "))
        return line.removeprefix("results").strip()

    assert output() == "results/tiny"
    assert output("--output", "s3://bucket/run") == "results/tiny, copied to s3://bucket/run"
    (elsewhere / "results" / "tiny").mkdir(parents=True)
    assert output() == "results/tiny-2"
    assert output("--output", "mine") == "mine"
    assert not (elsewhere / "mine").exists()
    (elsewhere / "results" / "tiny" / "thesis.txt").write_text("precious")
    assert "is not empty" in failed(capsys, "search", str(space), "--check", "--output", "results/tiny")
    assert "holds no search" in failed(capsys, "search", str(space), "--check", "--resume", "--output", "mine")


def test_check_does_not_download(space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--check", "--set", "data.dataset=cifar10", "--data-root", str(elsewhere / "none")]
    assert main(["search", "--space", str(space), *arguments]) == 0
    assert "not here yet: CIFAR-10 is not in" in capsys.readouterr().out


def test_check_refuses_data_that_the_search_would_refuse(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(12):
        picture = elsewhere / "pics" / "abc"[index % 3] / f"{index}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * index, 0, 0)).save(picture)
    for data, said in (
        (["data.dataset=image_folder", "data.root=pics"], "data.validation: 100 images are to be held out of 12"),
        (["data.dataset=image_folder", "data.root=none"], "none: there is no such folder"),
        (
            ["data.dataset=cifar10", "data.root=theirs"],
            f"{elsewhere / 'theirs'}, or damaged there",
        ),  # not downloaded there
        (["data.validation=5000"], "data.validation: 5000 images"),
    ):
        overrides = [word for assignment in data for word in ("--set", assignment)]
        for check in (["--check"], []):
            assert said in failed(capsys, "search", "--space", str(space), *overrides, *check)


def test_check_says_what_a_space_for_gpus_costs_without_one(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_cure.cli.views.search_plan.this_machine", lambda: Machine(cpus=2, gpus=0))
    check = ["search", "--space", str(space), "--check"]
    assert main([*check, "--set", "resources.gpus_per_trial=auto", "--resolved", "resolved.yaml"]) == 0
    out = capsys.readouterr().out
    assert "no GPU found: an epoch of small_cnn takes about " in out
    assert yaml.safe_load((elsewhere / "resolved.yaml").read_text())["name"] == "tiny"  # can be copied
    assert main([*check, "--set", "resources.gpus_per_trial=0"]) == 0
    assert "no GPU found" not in capsys.readouterr().out


@pytest.mark.parametrize(("norm", "said"), [("linf", "uniform [0.02353, 0.04706] (6/255, 12/255)"), ("l2", "04706]\n")])
def test_check_shows_a_radius_as_it_was_written(
    norm: str, said: str, space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--set", "space.epsilon={uniform: [6/255, 12/255]}", "--set", "start_from=[]"]
    assert main(["search", "--space", str(space), "--check", *changes, "--set", f"training.norm={norm}"]) == 0
    out = capsys.readouterr().out
    assert said in "\n".join(line.rstrip() for line in out.splitlines())


def test_check_names_the_schedules_for_which_some_trials_are_too_short(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--set", "space.lambda_schedule={choice: [constant, late]}", "--set", "start_from=[]"]
    for epochs, is_said in ((4, True), (8, False)):
        assert main(["search", str(space), "--check", *changes, "--set", f"training.epochs={epochs}"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert ("lambda_schedule late reaches 25% in 4 epochs, and 100% in 8 or more" in out) == is_said


def test_check_says_which_sampler_auto_stands_for_and_why(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--set", "search.sampler=auto", "--set", "search.trials=30", "--set", "search.scheduler=none"]
    assert main(["search", "--space", str(space), "--check", *changes]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "30 trials by gp (auto: 30 trials over 4 numbers, and none is stopped in the first third of" in out


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("budget_epochs=6", "budget 6 epochs of training"),
        ("budget_epochs=6", "epochs at most 6; about 6 with early stopping"),
        ("budget_epochs=6", "the search, about 6 epochs, 1 at a time"),
        ("budget_seconds=90", "budget 1 min 30 s of training"),
        ("budget_seconds=90", "with early stopping; fewer if the budget ends before"),
    ],
)
def test_check_counts_no_more_than_the_budget_pays_for(
    setting: str, said: str, space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--space", str(space), "--check", "--set", f"search.{setting}"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--resolved", "my.yaml"], "--resolved: makes no difference without --check"),
        (["--force"], "--force: makes no difference without --resume"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused_before_the_search_starts(
    flags: list[str],
    said: str,
    space: Path,
    elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_run, "run", lambda *_: pytest.fail("the search was started"))
    assert failed(capsys, "search", str(space), *flags) == f"tune-cure: {said}\n"
    assert [path.name for path in elsewhere.iterdir()] == [space.name]


def test_a_folder_with_something_in_it_is_not_overwritten(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "thesis.txt").write_text("precious")
    assert "is not empty" in failed(capsys, "search", "--space", str(space), "--output", str(elsewhere / "mine"))


def test_resume_where_nothing_was_begun_is_one_line(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no search" in failed(capsys, "search", "--space", str(space), "--resume")
    assert "holds no search" in failed(capsys, "report", str(elsewhere))


@pytest.mark.parametrize("again", [["--resume"], []], ids=["--resume", "the same command"])
@pytest.mark.parametrize("written", [3, 2, 1, 0])
def test_a_search_that_was_interrupted_before_its_first_trial_is_taken_up_again(
    written: int, again: list[str], space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    taken: list[str] = []

    def interrupted(spec: SearchSpec, folder: search_run.RunFolder, *_: object) -> None:
        assert (folder.directory / "spec.yaml").read_text() == spec.to_yaml()  # before Ray is imported
        taken.append(folder.directory.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(search_run, "run_trials", interrupted)
    out = tmp_path / "out"
    command = ["search", "--space", str(space), "--output", str(out)]
    assert main(command) == 130
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == f"interrupted; all state is in {out}. Continue with:"
    assert said[-1].endswith(f" search --resume {out}")
    for name in ("spec.yaml", "journal.jsonl", "environment.json")[written:]:  # as if the signal had come before
        (out / name).unlink()
    assert main([*command, *again]) == 130
    assert taken == ["out", "out"]


def test_a_search_whose_copy_is_in_a_store_goes_on_from_the_newer_journal_that_is_still_here(
    space: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[tuple[str, int]] = []

    def killed(spec: SearchSpec, folder: search_run.RunFolder, *_: object) -> None:
        resumed.append((folder.directory.name, len(folder.record.events)))
        begin(Journal(folder.directory), len(resumed) - 1)
        if len(resumed) == 1:
            folder.storage.copy_all()
        begin(Journal(folder.directory), len(resumed))  # after the last copy
        raise KeyboardInterrupt

    monkeypatch.setattr(search_run, "run_trials", killed)
    command = ["search", "--space", str(space), "--output", f"file://{elsewhere}/store/run"]
    assert main(command) == 130
    assert main([*command, "--resume"]) == 130
    (elsewhere / "results" / "tiny").rename(elsewhere / "lost")
    assert main([*command, "--resume"]) == 130
    assert resumed == [("tiny", 0), ("tiny", 2), ("tiny", 1)]


@pytest.mark.parametrize("begun", [False, True], ids=["before the first trial", "after another search of that name"])
def test_a_search_with_a_store_that_was_interrupted_before_its_first_trial_is_taken_up_again(
    begun: bool, space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def interrupted(spec: SearchSpec, folder: search_run.RunFolder, *_: object) -> None:
        taken.append(folder.directory.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(search_run, "run_trials", interrupted)
    if begun:
        (elsewhere / "results" / "tiny").mkdir(parents=True)
        write_search(elsewhere / "results" / "tiny", 1)
    assert main(["search", "--space", str(space), "--output", f"file://{elsewhere}/store/run"]) == 130
    assert main(typed_arguments(capsys.readouterr().out.splitlines()[-1])) == 130
    assert taken == ["tiny-2" if begun else "tiny"] * 2


def test_ctrl_c_while_the_time_of_a_search_is_estimated_says_how_to_continue(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(duration, "say_search_duration", interrupted)
    out = tmp_path / "out"
    assert main(["search", "--space", str(space), "--output", str(out)]) == 130
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"tune-cure: interrupted; all state is in {out}. Continue with:"
    assert second.endswith(f" search --resume {out}")


def test_a_folder_that_is_somebody_elses_is_not_taken_for_one_of_a_search(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (["spec.yaml"], [".lock", "environment.json", "config.yaml"], [".lock", "thesis.tex"]):
        out = tmp_path / "-".join(names)
        out.mkdir()
        for name in names:
            (out / name).touch()
        assert "is not empty" in failed(capsys, "search", "--space", str(space), "--output", str(out))


def test_a_search_without_a_folder_of_its_own_goes_beside_one_that_is_starting(
    space: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_run, "run_trials", interrupted)
    command = ["search", "--space", str(space)]
    assert main(command) == main(command) == 130
    assert [path.name for path in (elsewhere / "results").iterdir()] == ["tiny"]
    with locking.hold_run_lock(elsewhere / "results" / "tiny"):
        assert main(command) == 130
    assert sorted(path.name for path in (elsewhere / "results").iterdir()) == ["tiny", "tiny-2"]


def test_the_tables_of_a_search_are_written_although_ctrl_c_is_pressed_meanwhile_and_once_more_ends_it(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    presses = 1

    def write(result: SearchResult, folder: search_run.RunFolder) -> Path:
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
        (folder.directory / "report.html").touch()
        return folder.directory / "report.html"

    def ended(spec: SearchSpec, folder: search_run.RunFolder, *_: object) -> SearchResult:
        write_search(folder.directory)
        return SearchResult(folder.directory, "finished")

    monkeypatch.setattr(search_run, "run_trials", ended)
    monkeypatch.setattr(search_run, "write_results", write)
    for presses in (1, 2):
        out = tmp_path / f"pressed {presses}"
        assert main(["search", "--space", str(space), "--output", str(out)]) == 130
        said = capsys.readouterr().out.splitlines()
        assert said[-3:-1] == [interruption.STOPPING, f"interrupted; all state is in {out}. Continue with:"]
        assert said[-1].endswith(f" search --resume {shlex.quote(str(out))}")
        assert (out / "report.html").exists() == (presses == 1)


def test_a_search_that_a_time_budget_ended_exits_with_the_code_on_which_batch_systems_run_it_again(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(spec: SearchSpec, folder: search_run.RunFolder, *_: object) -> SearchResult:
        write_search(folder.directory)
        return SearchResult(folder.directory, outcome, "the time budget is used up" * (outcome == "time"))

    monkeypatch.setattr(search_run, "run_trials", ended)
    monkeypatch.setattr(search_run, "write_results", lambda result, folder: None)
    for outcome, code in (("time", 75), ("finished", 0)):
        out = tmp_path / outcome
        assert main(["search", str(space), "--quiet", "--output", str(out)]) == code
        said = f"the time budget is used up; all state is in {out}. Continue with:\n  "
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(said) if outcome == "time" else output.err == ""


def test_a_dry_run_is_a_check(space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(space), "--dry-run"]) == 0
    assert "8 trials by tpe" in capsys.readouterr().out
    assert not (elsewhere / "results").exists()


OWN_NETWORK = """
import tune_cure
from torch import nn


def large_images(num_classes, in_channels, width=None):
    return nn.Sequential(nn.Flatten(), nn.Linear(224 * 224 * in_channels, num_classes))


tune_cure.register("network", "large_images", large_images)
"""


def test_a_network_that_cannot_take_the_images_is_one_line_and_starts_nothing(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_afterwards(monkeypatch)
    (elsewhere / "own_large.py").write_text(OWN_NETWORK)
    space.write_text("parts: own_large.py\n" + TINY.replace("{name: small_cnn, width: 4}", "large_images"))
    commands = [["search", "--space", str(space)], ["league", str(space), "--methods", "cure", "fgsm_rs"]]
    for command, check in itertools.product(commands, ([], ["--check"])):
        line = failed(capsys, *command, *check)
        assert "model.name: network 'large_images' in training mode cannot classify images of 1×8×8: Runtime" in line
        assert "choose a network from (N, 1, 8, 8) images to (N, 10) logits, or another data.image_size" in line
    assert not (elsewhere / "results").exists()
