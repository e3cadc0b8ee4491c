import dataclasses
import importlib.util
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest

from tests.support.command_line import failed, fill_disk, typed_arguments
from tests.support.confirmations import PLAN, write_best_outcomes, write_outcomes, write_quick_search
from tests.support.exported_models import write_network_for_pictures
from tests.support.old_runs import copy_run
from tests.support.pictures import write_pictures
from tune_cure.cli import main as cli
from tune_cure.cli.confirm import ConfirmOptions
from tune_cure.cli.options import program
from tune_cure.cli.steps.confirm_run import prepare
from tune_cure.cli.views.interruption import STOPPING
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.plan import Job, plan_jobs
from tune_cure.confirmation.seed_words import FEW_SEEDS_WARNINGS
from tune_cure.ray_backend import confirmation
from tune_cure.reports import search_page
from tune_cure.reports.export.measurements import measured_by_confirmation
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment, locking
from tune_cure.utils.signals import WorkLeftBehindError

QUICK = ["--top", "1", "--seeds", "2", "--baselines", "fgsm", "--examples", "40", "--train-images", "200",
         "--no-autoattack"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--top", "0"], "a whole number of at least 1 is needed, but found '0'"),
        (["--seeds", "x"], "a whole number of at least 1 is needed, but found 'x'"),
        (["--baselines", "madry"], "invalid choice: 'madry'"),
        (["--epsilons", "8/0"], "a radius such as 4/255 or 0.5 is needed, but found '8/0'"),
        (["--epsilons", "-1"], "a radius such as 4/255 or 0.5 is needed, but found '-1'"),
        (["--examples", "100000"], "--examples 100000: there are 359 test images"),
        (
            ["--train-images", "100000", "--weights", "last"],
            "--train-images 100000: there are 1,438 training images",
        ),
        (
            ["--train-images", "100000"],
            "--train-images 100000: there are 1,078 training images besides 360 that choose the best epoch; "
            "--weights last trains on these, too",
        ),
        (["--weights", "best"], "argument --weights: invalid choice: 'best'"),
        (["--data-root", "/nowhere", "--bogus"], "unknown argument --bogus"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_quick_search(tmp_path)
    try:
        code = cli.main(["confirm", str(tmp_path), *arguments])
    except SystemExit as exit_:  # argparse's way
        code = int(str(exit_.code))
    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / run_files.CONFIRM).exists()


def test_a_trained_candidate_that_may_have_seen_the_test_images_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("pictures"), count=10)
    for name, held_out in {"a": 4, "b": 6, "c": 4}.items():
        write_network_for_pictures(name, held_out)
    options = ConfirmOptions(Path("a"), top=1, seeds=1, baselines=(), candidates=("b", "c"), no_autoattack=True)
    assert [note for note in prepare(options).notes if "test images" in note] == [
        "warning: b: may have been trained on some of these test images: the data set has none of its own, and with "
        "data.validation 6 others were held out than with 4"
    ]


def test_a_folder_without_a_search_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["confirm", str(tmp_path)]) == 2
    assert "holds no search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "With one seed, the intervals do not include how much seeds differ"),
        (2, "about one in eight such confirmations has a false verdict; use three or more"),
        (3, ""),
    ],
)
def test_few_seeds_are_warned_of(
    seeds: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        for job in jobs:
            write_outcomes(job, 0.6 if job.candidate.kind == "leader" else 0.4, num_images=40)
        return {}

    monkeypatch.setattr(confirmation, "run", done)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--seeds", str(seeds)]) == 0
    printed = capsys.readouterr().out
    assert f"each with {['seed 1', 'seeds 1 and 2', 'seeds 1, 2 and 3'][seeds - 1]}, on" in printed
    page = (tmp_path / run_files.CONFIRM / "confirm.html").read_text()
    for words in FEW_SEEDS_WARNINGS.values():
        is_said = bool(said) and said in words
        assert (words in printed) == (words in page) == is_said


def test_an_interrupted_confirmation_leaves_the_tables_of_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        write_outcomes(jobs[0], 0.6, num_images=40)
        write_best_outcomes(jobs[0], 0, best_epoch=1)
        write_outcomes(jobs[1], 0.6, num_images=40)  # whose best weights are still to be judged
        raise KeyboardInterrupt

    monkeypatch.setattr(confirmation, "run", interrupted)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 130
    page = tmp_path / run_files.CONFIRM / "confirm.html"
    assert f"interrupted; with what is done so far, wrote {page}" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / run_files.CONFIRM / "confirm.csv")) == 2
    assert "1 of 4 runs have been judged so far." in (tmp_path / run_files.CONFIRM / "confirm.html").read_text()


def test_an_interrupted_confirmation_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(confirmation, "run", interrupted)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--epsilons", "0.05"]) == 130
    said = capsys.readouterr().out
    assert "interrupted; no run has been judged yet" in said
    command = said.splitlines()[-1].strip()
    for resumed in (0, 1):
        content = json.loads((tmp_path / run_files.CONFIRM / environment.FILE).read_text())
        assert len(content.get("resumed", [])) == resumed
        assert cli.main(["confirm", str(tmp_path), *QUICK]) == 130
    assert command == f"{program()} confirm {tmp_path} {' '.join(QUICK[:6])} --epsilons 0.05 {' '.join(QUICK[6:])}"


def test_what_is_left_when_ray_has_died_is_said_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        finish(jobs[:1])
        return {str(job.folder): "Ray has died, or was killed" for job in jobs[1:]}

    monkeypatch.setattr(confirmation, "run", judged)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.endswith("seed-2: Ray has died, or was killed")]) == 2
    assert said[-2] == "what is done is kept. Continue with:"
    assert typed_arguments(said[-1])[:2] == ["confirm", str(tmp_path)]
    assert len(pd.read_csv(tmp_path / run_files.CONFIRM / "confirm.csv")) == 1


def test_what_goes_on_without_its_ray_ends_with_the_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_behind(*_: object, **__: object) -> dict[str, str]:
        raise WorkLeftBehindError

    def leave(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(confirmation, "run", leave_behind)
    monkeypatch.setattr("os._exit", leave)
    write_quick_search(tmp_path)
    with pytest.raises(SystemExit, match="130"):
        cli.main(["confirm", str(tmp_path), *QUICK])
    assert "interrupted; what is done is kept. Continue with:\n" in capsys.readouterr().out


def test_a_full_disk_is_one_line_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        failures = finish(jobs)
        fill_disk(monkeypatch)
        return failures

    monkeypatch.setattr(confirmation, "run", judged)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tune-cure: {tmp_path}/confirm/") and ": No space left on device; what is done is " in line
    assert line.endswith(f"; to continue: {program()} confirm {tmp_path} {' '.join(QUICK)}")


def test_the_command_that_goes_on_has_the_same_radii_and_none_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    radii: list[tuple[float, ...]] = []

    def interrupted(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        radii.append(jobs[0].plan.epsilons)
        raise KeyboardInterrupt

    monkeypatch.setattr("tune_cure.ray_backend.confirmation.run", interrupted)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--epsilons", "8/255", "0.15", "0.0313725"]) == 130
    assert cli.main(typed_arguments(capsys.readouterr().out.splitlines()[-1])) == 130
    assert radii == [(0.15, 8 / 255)] * 2


def test_one_test_image_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["confirm", str(tmp_path), "--examples", "1"])
    assert "at least 2 are needed: one image has no spread" in capsys.readouterr().err


def test_two_processes_do_not_confirm_one_search_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT_SECONDS", 0.1)
    write_quick_search(tmp_path)
    (tmp_path / run_files.CONFIRM).mkdir()
    with locking.hold_run_lock(tmp_path / run_files.CONFIRM):
        assert cli.main(["confirm", str(tmp_path), *QUICK]) == 2
    assert capsys.readouterr().err == f"tune-cure: {tmp_path / run_files.CONFIRM}: another process is writing in it\n"


def finish(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
    """In the place of Ray's jobs: leaders are right on more images than baselines."""
    for job in jobs:
        share = 0.6 if job.candidate.kind == "leader" else 0.4
        write_outcomes(job, share, autoattack=job.plan.autoattack, num_images=job.plan.examples)
        if "best" in job.weights:
            write_best_outcomes(job, job.plan.examples // 20, best_epoch=1)
    return {}


def test_the_default_baselines_say_what_the_penalty_is_worth_in_the_first_line_and_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", finish)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), "--top", "1", "--examples", "200"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    plan, results = printed.split(" The shortest training run of ")[0].split("--no-autoattack ")
    for name in ("start_from", "ablation", "fgsm", "pgd"):
        assert f"{name} baseline 2 epochs" in plan
    assert results.startswith("CURE helped: trial-2 has ")
    assert "trial-2 against ablation by itself, and for all other pairs of a column together" in printed
    report = (tmp_path / run_files.REPORT).read_text()
    assert "CURE helped: trial-2 has" in report
    assert "The test set is still untouched" not in report
    assert search_page.write(SearchResult(tmp_path)).read_text() == report


def test_the_plan_says_how_long_it_takes_and_how_to_make_it_shorter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", finish)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"trial-2 leader 2 epochs \d+ s a run trial 2", printed)
    assert re.search(
        r"about [0-9]+ s here, if it goes as fast as the search did: \d+ s of training and \d+ s of PGD\. Less with "
        r"fewer --seeds, --top 1, fewer --baselines, fewer --examples",
        printed,
    )
    assert "or --no-autoattack" not in printed
    monkeypatch.setattr(confirmation, "run", lambda *_, **__: {})
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 of 4 runs are done already" in printed
    assert "if it goes as fast" not in printed


def test_check_prints_the_plan_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the jobs were started")

    monkeypatch.setattr(confirmation, "run", start)
    write_quick_search(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--check"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "each with seeds 1 and 2, on 200 training images; judged on 40 test images" in printed
    assert "if it goes as fast as the search did" in printed
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("setting", "flags", "said"),
    [
        (
            "data.train_examples=600",
            [],
            "trained on 600 images, this trains on 1,078: hyperparameters may not carry over",
        ),
        ("data.train_examples=600", ["--weights", "last"], "trained on 600 images, this trains on 1,438: "),
        ("data.train_examples=600", ["--train-images", "200"], "trained on 600 images, this trains on 200: "),
        ("data.train_examples=600", ["--train-images", "600"], ""),
        ("data.train_examples=null", ["--train-images", "200"], ""),
    ],
)
def test_the_plan_warns_of_another_number_of_training_images_than_a_search_on_some_of_them_had(
    setting: str, flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_quick_search(tmp_path, setting)
    command = ["confirm", str(tmp_path), "--top", "1", "--seeds", "1", "--baselines", "--no-autoattack", "--check"]
    assert cli.main([*command, *flags]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert ("the search trained on" in printed) == bool(said)
    assert said in printed
    assert ("; --train-images 600 trains on as many as the search did" in printed) == bool(said)


def test_check_downloads_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_quick_search(tmp_path)
    spec = tmp_path / run_files.SPEC
    spec.write_text(spec.read_text().replace("dataset: digits", "dataset: cifar10"))
    said = failed(capsys, "confirm", str(tmp_path), *QUICK, "--check", "--data-root", str(tmp_path / "other"))
    assert f"CIFAR-10 is not in {tmp_path / 'other'}, or damaged there; on first use it is downloaded" in said
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ("evaluation.norm=linf", ["--epsilons", "2"], "--epsilons: must be at most 1 with norm linf, but found 2"),
        ("evaluation.norm=linf", ["--train-images", "1"], "at least 2 are needed"),
    ],
)
def test_what_no_network_can_be_judged_by_is_one_line_before_anything_starts(
    change: str, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_quick_search(tmp_path, change)
    try:
        code = cli.main(["confirm", str(tmp_path), *arguments])
    except SystemExit as exit_:  # argparse's way
        code = int(str(exit_.code))
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / run_files.CONFIRM).exists()


def test_a_missing_package_of_autoattack_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_quick_search(tmp_path)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyautoattack" else find_spec(name))
    assert cli.main(["confirm", str(tmp_path)]) == 2
    assert "pip install pyautoattack, or leave it out with --no-autoattack" in capsys.readouterr().err


def test_trials_at_chance_are_said_before_they_are_retrained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", finish)
    monkeypatch.setattr("tune_cure.cli.steps.confirm_run.chance_level", lambda labels: 0.95)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "warning: No trial is clearly above chance. One fixed answer is right on 95.0%" in printed


def test_a_smaller_command_says_which_runs_it_leaves_out_and_the_card_names_the_seeds_of_its_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, plan = write_quick_search(tmp_path), dataclasses.replace(PLAN, seeds=(1, 2, 3), examples=40)
    finish(plan_jobs(result, choose_candidates(result, 2, ["fgsm"]), plan))
    monkeypatch.setattr(confirmation, "run", lambda *_, **__: {})
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    left_out = (
        "Judged in the same folder, but not asked for by the command, and therefore in no table and no verdict: fgsm "
        "with seed 3 at epsilon 0.15 (38.2/255); trial-2 with seed 3 at epsilon 0.15 (38.2/255); trial-7 with seeds "
        "1, 2 and 3 at epsilon 0.15 (38.2/255)."
    )
    page, report = tmp_path / run_files.CONFIRM / run_files.CONFIRM_REPORT, tmp_path / run_files.REPORT
    for text in (capsys.readouterr().out, page.read_text(), report.read_text()):
        assert left_out in " ".join(text.split())
    table = pd.read_csv(tmp_path / run_files.CONFIRMED)
    assert table.query("contender == 'trial-2'")["seed"].tolist() == [1, 2]
    measured = measured_by_confirmation(SearchResult(tmp_path), "trial-2", None)
    assert {measurement.seeds for measurement in measured} == {(1, 2, 3)}


def test_a_baseline_that_is_left_out_is_said_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", finish)
    write_quick_search(tmp_path, "training.regularizer=none")
    assert cli.main(["confirm", str(tmp_path), "--top", "1", "--no-autoattack"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "ablation is left out: trial 2, the winner, trains without a penalty" in printed
    assert "The winner, trial-2, trains without a penalty." in printed


@pytest.mark.parametrize("is_interrupted", [True, False], ids=["while runs are judged", "while tables are written"])
def test_ctrl_c_twice_ends_a_confirmation_at_once_with_the_command_that_goes_on(
    is_interrupted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(jobs: list[Job], *_: object, on_interrupt: Callable[[], None], **__: object) -> dict[str, str]:
        write_outcomes(jobs[0], 0.6, num_images=40)
        try:
            if is_interrupted:
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            on_interrupt()
            raise
        return {}

    def write(*_: object) -> None:
        for _ in range(1 if is_interrupted else 2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second Ctrl-C was not heard")

    monkeypatch.setattr(confirmation, "run", judged)
    monkeypatch.setattr("tune_cure.cli.steps.confirm_run.write_results", write)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 130
    said = capsys.readouterr().out.splitlines()
    assert said[-3:-1] == [STOPPING, "interrupted; what is done is kept. Continue with:"]
    assert typed_arguments(said[-1])[:2] == ["confirm", str(tmp_path)]


def test_best_and_last_weights_are_planned_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "run", finish)
    write_quick_search(tmp_path)
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "360 images that the search has judged on are not trained on: they choose the best epoch" in printed
    table = printed.split("best and last weights, PGD-50-10 at epsilon 0.15 (38.2/255) ")[1]
    assert table.startswith("best last best − last 95% interval best epochs trial-2 ")
    assert re.search(r"trial-2 [0-9.]+ [0-9.]+ \+5\.0 .* 1 and 1 of 2 fgsm ", table)
    assert "best − last is robust overfitting; 360 images that were not trained on chose the best epochs" in table
    assert (
        "These are the last weights; those of the best epoch, which 360 held-out images chose, have "
        in (tmp_path / run_files.REPORT).read_text()
    )


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--weights", "last"], 0), (["--weights", "both"], 2)])
def test_a_confirmation_of_version_0_1_0_goes_on_with_the_last_weights_and_says_so(
    flags: list[str],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Job] = []
    monkeypatch.setattr(confirmation, "run", lambda jobs, *_, **__: begun.extend(jobs) or {})
    folder = copy_run("finished", tmp_path)
    quick = ["--top", "1", "--seeds", "2", "--baselines", "fgsm", "--examples", "40", "--train-images", "200"]
    assert cli.main(["confirm", str(folder), *quick, *flags]) == code
    said = capsys.readouterr()
    if code:
        assert "held_out was 0 there, and is " in said.err
        return
    assert all(job.is_done for job in begun)
    note = "the last weights alone are judged, as this confirmation was begun; move "
    assert (note in " ".join(said.out.split())) == (not flags)
