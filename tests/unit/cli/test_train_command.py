import errno
import os
from pathlib import Path

import pandas as pd
import pytest
from torch import nn

from tests.support.command_line import typed_arguments
from tests.support.spaces import QUICK_RUN
from tune_cure.cli import main as cli, train
from tune_cure.cli.options import program
from tune_cure.cli.views import training
from tune_cure.models.registry import MODELS
from tune_cure.training.run import Run, RunSpec
from tune_cure.utils import locking
from tune_cure.utils.files import FolderError


def asked_for(*arguments: str) -> RunSpec:
    parsed = cli.build_parser(["train"]).parse_args(["train", *arguments])
    return train.read_run(train.read_options(parsed), print)


def test_the_command_of_the_original_project_is_taken_as_it_is() -> None:
    long = "--delta classic --lr-schedule piecewise --lr-max 0.1 --lr-min 0.0 --opt SGD --lambda 10 --h 3 --epochs 200"
    training = asked_for(*long.split()).training
    assert training.regularizer == "cure"
    assert (training.direction, training.lr_schedule, training.lr_max, training.lr_min) == (
        "classic",
        "piecewise",
        0.1,
        0,
    )
    assert (training.optimizer, training.lambda_, training.h, training.epochs) == ("sgd", 10, 3, 200)
    short = "--delta linf --lr-schedule cyclic --lr-max 0.2 --lr-min 0.0 --opt SGD --lambda 4 --h 3 --epochs 30"
    training = asked_for(*short.split(), "--batch-size", "128").training
    assert (training.direction, training.lr_schedule, training.batch_size) == ("linf", "cyclic", 128)


def test_flags_and_values_of_the_original_are_translated(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--lambda_ 4 --gamma 0.5 --betta 5 --kapa 1 --delta FGSM --delta-init random --opt Adam"
    others = "--epsilon 8 --alpha 10 --opt-level O0 --interpol True --lr-schedule fix"
    training = asked_for(*flags.split(), *others.split()).training
    assert (training.lambda_, training.hat_weight, training.trades_weight, training.clean_weight) == (4, 0.5, 5, 1)
    assert (training.direction, training.init, training.optimizer) == ("fgsm", "uniform", "adam")
    assert (training.epsilon, training.amp, training.lr_schedule) == (8 / 255, "off", "fixed")
    assert training.alpha == pytest.approx(1.25)
    said = capsys.readouterr().out
    assert "--epsilon 8 is taken as 8/255" in said
    assert "--alpha 10 is taken as a step of 10/255, 1.25 times epsilon" in said
    assert "--interpol has no effect: nor has it there" in said
    assert asked_for("--epsilon", "12", "--norm", "l2").training.epsilon == 12
    assert asked_for("--gamma", "0.3", "--hat", "False").training.hat_weight == 0
    assert asked_for("--gamma", "0.3", "--hat", "True").training.hat_weight == 0.3
    assert asked_for("--hat", "1").training.hat_weight == 0.5
    assert "--hat is taken as --hat-weight 0.5" in capsys.readouterr().out
    assert asked_for("--delta", "None").training.regularizer == "none"


def test_epochs_too_few_for_a_schedule_are_said_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    asked_for("--method", "nuat", "--epochs", "1")
    assert "lambda_schedule ramp reaches 0% in 1 epoch, and 100% in 10 or more" in capsys.readouterr().out
    asked_for("--method", "nuat", "--epochs", "10")
    assert "reaches" not in capsys.readouterr().out


def test_an_alpha_beside_an_epsilon_in_pixels_is_in_pixels_too(capsys: pytest.CaptureFixture[str]) -> None:
    training = asked_for("--epsilon", "8", "--alpha", "2").training
    assert (training.epsilon, training.alpha) == (8 / 255, pytest.approx(0.25))
    assert "--alpha 2 is taken as a step of 2/255, 0.25 times epsilon" in capsys.readouterr().out
    for epsilon, norm in (("8/255", "linf"), ("1.5", "l2")):
        assert asked_for("--epsilon", epsilon, "--norm", norm, "--alpha", "2").training.alpha == 2
    assert "is taken as" not in capsys.readouterr().out


def test_the_command_line_takes_flags_of_the_original_that_the_help_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[train.TrainOptions] = []

    def run(options: train.TrainOptions, console: object) -> int:
        taken.append(options)
        return 0

    monkeypatch.setattr(train, "run", run)
    words = "--delta classic --lr-one-drop 0.01 --loss-scale 1.0 --master-weights --lr-drop-epoch 5 --interpol True"
    assert cli.main(["train", *words.split(), "--hat", "1", "--opt-level", "O2"]) == 0
    assert set(taken[0].original.given) == {"--hat", "--opt-level", *train.original_flags.WITHOUT_EFFECT}


def test_flags_override_a_file_and_every_hyperparameter_has_one(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: small_cnn\ntraining: {epochs: 7, lr_max: 0.3}\n")
    file = ["--config", str(tmp_path / "run.yaml")]
    judged = ["--set", "evaluation={norm: l2, epsilon: 0.5}"]
    spec = asked_for(*file, "--lr-max", "0.05", "--nesterov", "true", *judged, "--seed", "3")
    assert (spec.training.epochs, spec.training.lr_max, spec.training.nesterov) == (7, 0.05, True)
    assert (spec.model.name, spec.evaluation.norm, spec.seed) == ("small_cnn", "l2", 3)


def test_the_number_of_threads_is_left_to_the_machine_unless_it_is_asked_for() -> None:
    assert asked_for().threads is None


def test_a_switch_needs_no_value() -> None:
    assert asked_for("--nesterov").training.nesterov
    assert not asked_for("--penalty-two-sided", "false").training.penalty_two_sided
    assert asked_for("--early-stop").early_stop


def test_what_was_asked_for_but_has_no_effect_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    asked_for("--h", "3", "--delta", "random", "--attack-steps", "5", "--momentum", "0.8")
    said = capsys.readouterr().out
    assert "--h has no effect: direction is random" in said
    assert "--attack-steps has no effect: attack is fgsm" in said
    assert "--momentum" not in said


def test_other_balls_in_training_than_in_judging_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *QUICK_RUN, "--epochs", "1", "--norm", "l2", "--epsilon", "1.5"]
    assert cli.main([*command, "--output", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "256 images to train on by fgsm at epsilon 1.5 in L2, judged by PGD-3" in said
    assert "trains in l2, but is judged in linf" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "--epsilon 0.15",
            "trains at epsilon 0.15 (38.2/255), but is judged at epsilon 0.03137 (8/255): "
            "--set evaluation.epsilon=0.15?",
        ),
        ("--epsilon 3/255", "trains at epsilon 0.01176 (3/255), but is judged at epsilon 0.03137 (8/255): "),
        ("--epsilon 0.15 --set evaluation.epsilon=0.15", ""),
        ("--epsilon 12/255", ""),
        ("--epsilon 4/255", ""),
        ("--epsilon 0.15 --attack none", ""),
    ],
)
def test_another_radius_in_training_than_in_judging_is_pointed_out_if_it_differs_by_more_than_half(
    arguments: str, said: str
) -> None:
    warning = training.describe_other_ball(asked_for(*arguments.split()))
    assert warning.startswith(said)
    assert bool(warning) == bool(said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nesterov", "maybe"], "--nesterov: true or false is needed, but found 'maybe' (str)"),
        (["--trial", "3"], "--trial: names a row of a table"),
        (["--resume", "--early-stop"], "leave out --early-stop"),
        (["--lambda", "x"], "command line: --lambda: 'x' is not a number or a fraction such as 8/255"),
        (["--delta", "clasic"], "did you mean 'classic'?"),
        (["--threads", "0"], "command line: threads: input should be greater than or equal to 1, but found 0"),
        (["--threads", "two"], "threads: a whole number is needed, but found 'two'"),
        (["--resume", "--threads", "2"], "leave out --threads"),
        (["--epochs", "0"], "--epochs: input should be greater than or equal to 1, but found 0"),
        (["--model", "resnet"], "model.name: 'resnet' is not one of"),
        (["--lr-min", "0.3"], "training.lr_min: must be at most lr_max"),
        (["--set", "data=5"], "data: a mapping of keys is needed, but found 5 (int)"),
        (["--device", "abacus"], "--device abacus: cannot be used"),
        (["--device", "meta"], "--device meta: cannot be used: cpu and cuda can"),
        (["--resume", "--lambda", "3"], "leave out --lambda"),
        (["--resume", "--output", "nowhere"], "nowhere: holds no training run"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["--data-root", "nowhere"], "CIFAR-10 is not in"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed
    assert not (tmp_path / "results").exists()


def test_an_unknown_flag_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--lamda", "3"])
    assert stopped.value.code == 2
    assert "unknown argument --lamda; did you mean '--lambda'?" in capsys.readouterr().err


def test_a_run_says_what_it_does_and_leaves_log_curves_checkpoints_and_test_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert cli.main(["train", *QUICK_RUN, "--epochs", "2", "--output", str(folder), "--test"]) == 0
    printed = capsys.readouterr().out
    assert "epoch 1/2  loss " in printed
    assert "on all 359 test images, by PGD-3 with 1 start at epsilon 0.15 (38.2/255):" in printed
    names = {"config.yaml", "environment.json", "epochs.csv", "last.pt", "test.csv", "curves.html"}
    names |= {"best_model.pt", "best_model.safetensors"}
    assert {file.name for file in folder.iterdir()} == names | {locking.LOCK_FILE}
    page = (folder / "curves.html").read_text()
    assert "small_cnn on digits" in page
    assert "Test set" in page
    assert cli.main(["train", *QUICK_RUN, "--output", str(folder)]) == 2  # what is there is not overwritten


def test_the_test_set_can_be_judged_on_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert cli.main(["train", *QUICK_RUN, "--epochs", "1", "--output", str(folder)]) == 0
    assert not (folder / "test.csv").exists()
    assert cli.main(["train", "--output", str(folder), "--resume", "--test"]) == 0
    assert pd.read_csv(folder / "test.csv")["epoch"].tolist() == [1, 1]


def test_an_interrupted_run_prints_a_command_that_judges_on_the_test_set_and_takes_the_same_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = ["--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_epoch", interrupted)
        assert cli.main(["train", *QUICK_RUN, "--epochs", "1", *out, "--test", "--device", "cpu"]) == 130
    words = typed_arguments(capsys.readouterr().out.splitlines()[-1])
    assert words == ["train", *out, "--resume", "--test", "--device", "cpu"]
    assert cli.main(words) == 0
    assert (tmp_path / "out" / "test.csv").exists()


def test_a_disk_that_fills_in_an_epoch_is_one_line_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(run: Run, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run.directory / "last.pt"))

    out = tmp_path / "out"
    monkeypatch.setattr(Run, "train_epoch", full)
    assert cli.main(["train", *QUICK_RUN, "--epochs", "1", "--output", str(out)]) == 1
    assert capsys.readouterr().err == (
        f"tune-cure: {out}/last.pt: No space left on device; what is done is kept; to continue: "
        f"{program()} train --output {out} --resume\n"
    )


def test_nothing_is_written_into_a_folder_before_it_is_locked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise FolderError(f"{folder}: cannot be locked")

    monkeypatch.setattr(locking, "hold_run_lock", refuse)
    out = tmp_path / "out"
    assert cli.main(["train", *QUICK_RUN, "--epochs", "1", "--output", str(out)]) == 2
    assert capsys.readouterr().err == f"tune-cure: {out}: cannot be locked\n"
    assert [*out.iterdir()] == []


def test_a_diverged_run_says_so_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["--lr-max", "1e30", "--lr-schedule", "fixed", "--momentum", "0", "--epochs", "3"]
    assert cli.main(["train", *QUICK_RUN, *wild, "--output", str(tmp_path / "out"), "--test"]) == 1
    printed = capsys.readouterr().out
    assert "diverged: the loss became NaN or infinite" in printed
    assert "It diverged before it could be judged" in (tmp_path / "out" / "curves.html").read_text()


@pytest.mark.parametrize("stop", [True, False])
def test_catastrophic_overfitting_is_said_and_ends_the_run_on_request(
    stop: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_cure.training.trainer.catastrophic_overfitting", lambda before, now: before is not None)
    command = ["train", *QUICK_RUN, "--epochs", "4", "--output", str(tmp_path / "out")]
    assert cli.main([*command, *["--early-stop"] * stop]) == 0
    assert "catastrophic overfitting: the network withstands single steps" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "epochs.csv")) == (2 if stop else 4)


@pytest.mark.parametrize(("statistics", "lag", "advised"), [("running", -1, 1), ("batch", -1, 0), ("running", 1, 0)])
def test_a_network_that_is_worse_evaluated_than_trained_is_explained_once(
    statistics: str, lag: float, advised: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr(training, "STATISTICS_LAG", lag)
    command = ["train", *QUICK_RUN, "--epochs", "2", "--penalty-statistics", statistics]
    assert cli.main([*command, "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("running statistics may lag behind") == advised


def test_two_processes_do_not_go_on_with_one_run_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT_SECONDS", 0.1)
    out = tmp_path / "run"
    assert cli.main(["train", *QUICK_RUN, "--epochs", "1", "--output", str(out)]) == 0
    with locking.hold_run_lock(out):
        assert cli.main(["train", "--output", str(out), "--resume"]) == 2
    assert capsys.readouterr().err == f"tune-cure: {out}: another process is writing in it\n"


def test_a_method_stands_for_its_hyperparameters_and_flags_override_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = asked_for("--method", "n_fgsm", "--noise", "3").training
    named = (training.method, training.init, training.noise, training.regularizer)
    assert named == ("n_fgsm", "clipped_noise", 3, "none")
    said = capsys.readouterr().out
    assert "method n_fgsm (FGSM from noise beyond the ball; de Jorge et al. 2022, arXiv 2202.01181): " in said
    assert "): attack fgsm  init clipped_noise  alpha 1" in said
    assert "given instead: noise 3" in said
    assert asked_for("--method", "n_fgsm", "--step-size", "0.02").training.step_size == 0.02


def test_a_method_that_is_typed_counts_instead_of_the_keys_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("training: {method: gat, step_size: 0.01, epochs: 7}\n")
    file = ["--config", str(tmp_path / "run.yaml")]
    of_file, typed = asked_for(*file).training, asked_for(*file, "--method", "gradalign").training
    assert (of_file.method, of_file.regularizer, of_file.step_size, of_file.epochs) == ("gat", "gat", 0.01, 7)
    assert (typed.method, typed.regularizer, typed.step_size, typed.alpha) == ("gradalign", "gradalign", None, 1)


@pytest.mark.parametrize(
    ("training", "arguments", "step"),
    [
        ("{alpha: 0.5}", "--step-size 0.05", {"step_size": 0.05}),
        ("{alpha: 0.5}", "--step-size 0.05 --set training.alpha=null", {"step_size": 0.05}),
        ("{alpha: 0.5}", "--step-size 0.05 --method gat", {"step_size": 0.05}),
        ("{step_size: 0.05}", "--alpha 0.5", {"step_size": None, "alpha": 0.5}),
        ("{method: gat, step_size: 0.05}", "--alpha 0.5", {"step_size": None, "alpha": 0.5}),
    ],
)
def test_a_step_that_is_typed_counts_instead_of_that_of_a_file_in_other_units(
    training: str, arguments: str, step: dict[str, float | None], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(f"training: {training}\n")
    found = asked_for("--config", str(tmp_path / "run.yaml"), *arguments.split()).training
    assert found.model_dump(include={"alpha", "step_size"}) == step


def test_the_recorded_run_of_a_method_is_the_same_run(tmp_path: Path) -> None:
    spec = asked_for("--method", "nuat", "--dataset", "digits")
    (tmp_path / "config.yaml").write_text(spec.to_yaml())
    assert asked_for("--config", str(tmp_path / "config.yaml")) == spec


def test_a_network_that_cannot_take_the_images_is_one_line_and_no_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def large_images(num_classes: int, in_channels: int, width: int | None = None) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(224 * 224 * in_channels, num_classes))

    monkeypatch.setitem(MODELS, "large_images", large_images)
    command = ["train", *QUICK_RUN, "--model", "large_images", "--output", str(tmp_path / "out")]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("tune-cure: model.name: network 'large_images' in training mode cannot classify images")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
