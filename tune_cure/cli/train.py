"""The command `train`: one training run without Ray, from flags, a YAML file or a row of a search's table.

It takes the command line of `CURE_fast_adversarial` as it is: where a flag had another name there, or values in other
units, it is translated, and said so if the number that is used is not the one that was given.
"""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tune_cure.data import config as config_module, splits as splits_module
from tune_cure.data.datasets import DATASETS
from tune_cure.models.networks import MODELS
from tune_cure.reports import training_page
from tune_cure.search.space.trial_config import read
from tune_cure.training.config import (
    HYPERPARAMETERS,
    TrainingConfig,
    expand_model_name,
    inactive_hyperparameters,
    parse_hyperparameter,
)
from tune_cure.training.run import BEST, CONFIG, LAST, LOG, TEST, Run, RunSpec, resolve
from tune_cure.utils import cpu, environment, locking
from tune_cure.utils.files import make_run_folder, replace_text
from tune_cure.utils.formatting import (
    format_duration,
    format_hyperparameters,
    format_percent,
    format_radius,
    format_value,
)
from tune_cure.utils.schema import choices
from tune_cure.utils.signals import treat_sigterm_as_ctrl_c
from tune_cure.utils.yaml_config import ProblemError, SpecError, override, parse_value, put, read_mapping

OTHER_NAMES = {  # flags of the original project, and one of Python's: lambda is a keyword there
    "optimizer": ["--opt"],
    "init": ["--delta-init"],
    "lambda": ["--lambda_"],
    "clean_weight": ["--kapa"],
    "trades_weight": ["--betta"],
    "hat_weight": ["--gamma"],
}
OTHER_VALUES = {
    "lr_schedule": {"fix": "fixed", "steplr": "fixed"},  # its StepLR never steps
    "init": {"random": "uniform"},
}
STATISTICS_LAG = 0.2  # of clean validation accuracy behind adversarial training accuracy, which is harder to reach
SHORT_FOR = {
    "dataset": "data.dataset",
    "data_root": "data.root",
    "model": "model.name",
    "seed": "seed",
    "threads": "threads",
}
NUMBERS = ("seed", "threads")  # of these
WITHOUT_EFFECT = {  # flags of the original project, and why
    "--interpol": "as there",
    "--loss-scale": "the scale of fp16 losses adapts itself",
    "--master-weights": "weights are float32 always",
    "--lr-drop-epoch": "onedrop drops after half of the epochs",
    "--lr-one-drop": "onedrop drops to a tenth of lr_max",
}
HAT_WEIGHT = 0.5  # what the original weighs that term with where --gamma is not given
ALPHA_LIMIT = 4  # a step of so many epsilons is none: it was meant in 1/255


def add_parser(commands: Any) -> None:
    """Adds the command to an argument parser's subcommands."""
    parser = commands.add_parser(
        "train",
        help="train one network, without Ray",
        usage="tune-cure train [--config FILE] [--HYPERPARAMETER X ...] [options]",
        description="Trains one network, without Ray, and leaves its log, curves and checkpoints in a folder.",
        epilog="The command line of CURE_fast_adversarial works as it is: --opt SGD, --delta-init random, --betta 5, "
        "--epsilon 8 (from 1 on: in 1/255), --alpha 10 (from 4 on: in 1/255), --opt-level O0 (no mixed precision).",
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a run's YAML, or best_config.yaml, best_config.csv or trials.csv of a search; flags override it",
    )
    what.add_argument("--trial", type=int, metavar="N", help="which row of a table")
    what.add_argument("--dataset", help=f"default cifar10; {', '.join(DATASETS)}")
    what.add_argument("--data-root", "--data-dir", metavar="FOLDER", help="where the data is")
    what.add_argument("--model", metavar="NAME", help=f"default preact_resnet18; {', '.join(MODELS)}")
    what.add_argument("--seed", metavar="N", help="of weights, order of the data and attacks; default 0")
    what.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other key: evaluation.steps=50"
    )
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--output", "--out-dir", type=Path, metavar="FOLDER", help="the run's folder (default: results/train)"
    )
    how.add_argument("--resume", action="store_true", help="continue the run in the folder")
    how.add_argument("--test", action="store_true", help="judge the best and the last network on the test set")
    stop_help = "end at catastrophic overfitting, instead of warning (a run's key early_stop)"
    how.add_argument("--early-stop", action="store_true", default=None, help=stop_help)
    how.add_argument("--device", help="cuda, cuda:1, cpu (default: cuda if there is one)")
    threads_help = "CPU threads (default: those of the trial where --config is of a search, else as torch chooses)"
    how.add_argument("--threads", metavar="N", help=threads_help)
    how.add_argument("--verbose", action="store_true", help="show what libraries say")
    searched = parser.add_argument_group("hyperparameters (the keys of training: in a search space)")
    for name, field in HYPERPARAMETERS.items():
        of = TrainingConfig.model_fields[field]
        flags = [f"--{name.replace('_', '-')}", *OTHER_NAMES.get(name, [])]
        names = f" One of {', '.join(choices(of))}." if choices(of) else ""
        help_text = f"{of.description}{names} [{format_value(of.default)}]"
        alone = {"nargs": "?", "const": "true"} if of.annotation is bool else {}
        searched.add_argument(*flags, dest=f"training.{name}", metavar="X", help=help_text, **alone)
    searched.add_argument("--hat", choices=("0", "1", "True", "False", "true", "false"), help=argparse.SUPPRESS)
    searched.add_argument("--opt-level", choices=("O0", "O1", "O2"), help=argparse.SUPPRESS)
    for flag in WITHOUT_EFFECT:
        searched.add_argument(flag, nargs="?", const=True, help=argparse.SUPPRESS)
    parser.set_defaults(run=train, parser=parser)


def train(options: argparse.Namespace, console: Console) -> int:
    """Runs the command and returns its exit code."""
    device = _device(options.device)
    if options.resume:
        directory = options.output or Path("results/train")
        spec = _begun(options, directory)
    else:
        spec = asked_for(options, console)
    # A file that somebody sent may say where data is, but only the user where it is written.
    splits = splits_module.load(spec.data, download=bool(options.data_root) or config_module.is_default(spec.data.root))
    if not options.resume:
        directory = make_run_folder(Path("results/train"), options.output)
        replace_text(directory / CONFIG, spec.to_yaml())
    cpu.configure_cpu(spec.threads)
    with locking.hold_run_lock(directory):
        run = Run(spec, splits, directory, device)
        if options.resume:
            run.restore()
        environment.write(directory, splits.source)
        return _run(run, options, console)


def _run(run: Run, options: argparse.Namespace, console: Console) -> int:
    """Trains, says how to go on if that is interrupted, and returns the exit code."""
    _print_plan(run, console)
    treat_sigterm_as_ctrl_c()
    try:
        _train(run, console)
    except KeyboardInterrupt:
        saved = f"{len(run.log)} of {run.spec.training.epochs} epochs are saved" if run.log else "no epoch was finished"
        resume = f"tune-cure train --output {shlex.quote(str(run.directory))} --resume" + " --test" * options.test
        resume += f" --device {shlex.quote(options.device)}" if options.device else ""
        console.print(f"interrupted; {saved}. Continue with:\n  {resume}")
        return 130
    return _finish(run, options, console)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise SpecError(f"--device {name}: cannot be used: {str(error).splitlines()[0]}") from error
    return device


# ---- What is asked for


def asked_for(options: argparse.Namespace, console: Console) -> RunSpec:
    """The run that the command line describes."""
    if options.trial is not None and (options.config is None or options.config.suffix != ".csv"):
        raise SpecError("--trial: names a row of a table: a best_config.csv or trials.csv is needed as --config")
    content = read(options.config, options.trial) if options.config else {}
    try:
        if options.early_stop:
            content["early_stop"] = True
        content.setdefault("data", {"dataset": "cifar10"})
        content.setdefault("model", {"name": "preact_resnet18"})
        expand_model_name(content)
        for flag, path in SHORT_FOR.items():
            text = getattr(options, flag)
            if text is not None:
                put(content, path, parse_value(text, f"--{flag}") if flag in NUMBERS else text)
        for assignment in options.set:
            override(content, assignment)
            expand_model_name(content)
        texts = {name: getattr(options, f"training.{name}") for name in HYPERPARAMETERS}
        given = {name: text for name, text in texts.items() if text is not None}
        for key, number in _parsed(given, options, console).items():
            put(content, f"training.{key}", number)
        _rescale(content, given, console)
        spec = resolve(content)
        idle = inactive_hyperparameters(spec.training)
        for key in given.keys() & idle.keys():
            console.print(f"--{key.replace('_', '-')} has no effect: {idle[key]}")
        return spec
    except ProblemError as problem:
        raise problem.within(options.config or "command line") from problem


def _parsed(given: dict[str, str], options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Hyperparameters as typed after their flags, by this project's names."""
    values: dict[str, Any] = {}
    for key, text in given.items():
        if TrainingConfig.model_fields[HYPERPARAMETERS[key]].annotation is str:
            text = OTHER_VALUES.get(key, {}).get(text.lower(), text.lower())
        flag = f"--{key.replace('_', '-')}"
        values[key] = parse_hyperparameter(key, parse_value(text, flag), flag)
    for flag, why in WITHOUT_EFFECT.items():
        if getattr(options, flag.lstrip("-").replace("-", "_")) is not None:
            console.print(f"{flag} has no effect: {why}")
    if options.opt_level:
        values["amp"] = "off" if options.opt_level == "O0" else "auto"
    if options.hat in ("0", "False", "false"):
        values["hat_weight"] = 0.0
    elif options.hat and "hat_weight" not in values:
        values["hat_weight"] = HAT_WEIGHT
        console.print(f"--hat is taken as --hat-weight {HAT_WEIGHT}")
    return values


def _rescale(content: dict[str, Any], given: dict[str, str], console: Console) -> None:
    """Turns an epsilon and an alpha that were typed in the original project's 1/255 into this project's units."""
    training = content.get("training")
    if not isinstance(training, dict):
        return  # `resolve` says what is wrong
    if "epsilon" in given and training["epsilon"] >= 1 and training.get("norm", "linf") == "linf":
        console.print(f"--epsilon {training['epsilon']:g} is taken as {training['epsilon']:g}/255")
        training["epsilon"] /= 255
    if "alpha" in given and training["alpha"] >= ALPHA_LIMIT:
        step = training["alpha"] / 255
        epsilon = parse_hyperparameter("epsilon", training.get("epsilon", TrainingConfig().epsilon), "training.epsilon")
        training["alpha"] = step / epsilon
        console.print(
            f"--alpha {255 * step:g} is taken as a step of {255 * step:g}/255, {training['alpha']:.4g} times epsilon"
        )


def _begun(options: argparse.Namespace, directory: Path) -> RunSpec:
    """The run that was begun in `directory`."""
    file = directory / CONFIG
    allowed = {"resume", "output", "test", "device", "verbose", "run", "parser"}
    given = [key for key, text in vars(options).items() if key not in allowed and text not in (None, [])]
    if given:
        flag = given[0].removeprefix("training.").replace("_", "-")
        raise SpecError(f"--resume takes its configuration from {file}: leave out --{flag}")
    if not file.is_file():
        raise SpecError(f"{directory}: holds no training run: there is no {CONFIG} in it")
    try:
        return resolve(read_mapping(file))
    except ProblemError as problem:
        raise problem.within(file) from problem


# ---- What is seen


def _print_plan(run: Run, console: Console) -> None:
    spec, splits = run.spec, run.trainer.splits
    device = run.trainer.device
    attack = spec.training.attack
    against = "" if attack == "none" else f" by {attack} at {format_radius(spec.training.epsilon, spec.training.norm)}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    console.print(
        f"{spec.model.name} on {spec.data.dataset}: {len(splits.train):,} images to train on{against}, judged by "
        f"{spec.evaluation} on {len(run.trainer.judged_on):,} validation images; {where}; results in {run.directory}"
    )
    if spec.training.attack != "none" and spec.training.norm != spec.evaluation.norm:
        console.print(f"trains in {spec.training.norm}, but is judged in {spec.evaluation.norm}: set evaluation.norm?")
    changed = {
        name: getattr(spec.training, field)
        for name, field in HYPERPARAMETERS.items()
        if getattr(spec.training, field) != TrainingConfig.model_fields[field].default
    }
    console.print(f"hyperparameters that are not at their defaults: {format_hyperparameters(changed) or 'none'}")


def _train(run: Run, console: Console) -> None:
    total, advised = run.spec.training.epochs, False
    while not run.finished:
        with _bar(run, console) as on_step:
            row = run.epoch(on_step)
        console.print(_line(row, total, is_best=run.trainer.best_epoch == run.trainer.epoch))
        if row["diverged"]:
            console.print("diverged: the loss became NaN or infinite; a lower lr_max or lambda may help")
        elif row["catastrophic_overfitting"]:
            console.print("catastrophic overfitting: the network withstands single steps, but not many small ones")
        elif not advised and _lags(row, run.spec.training):
            advised = True
            console.print(
                f"adversarial training images are classified better ({row['train_adversarial_accuracy']:.0%}) than "
                f"clean validation images ({row['clean_accuracy']:.0%}): batch norm's running statistics may lag "
                "behind; --penalty-statistics batch, or a lower lambda or lr_max, may help"
            )


def _lags(row: dict[str, Any], config: TrainingConfig) -> bool:
    """Whether the network is far worse evaluated than trained, and the penalty may be why: see docs/correctness.md."""
    by_running = config.lambda_ > 0 and config.delta != "none" and config.penalty_statistics == "running"
    return by_running and bool(row["clean_accuracy"] < row["train_adversarial_accuracy"] - STATISTICS_LAG)


@contextmanager
def _bar(run: Run, console: Console) -> Iterator[Any]:
    """A bar that the steps of an epoch fill, in a terminal; what to call after each step."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        name = f"epoch {run.trainer.epoch + 1}/{run.spec.training.epochs}"
        task = progress.add_task(name, total=run.trainer.steps_per_epoch)

        def on_step(done: int) -> None:
            progress.update(task, completed=done)
            if done == run.trainer.steps_per_epoch:
                progress.update(task, description=f"{name}, judging")

        yield on_step


def _line(row: dict[str, Any], epochs: int, *, is_best: bool) -> str:
    """An epoch in one line."""
    start = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
    if row["diverged"]:
        return f"{start}  loss not finite"
    judged = "  ".join(
        f"{word} {format_percent(row[f'{name}_accuracy'], row[f'{name}_accuracy_se'])}"
        for word, name in (("clean", "clean"), ("FGSM", "fgsm"), ("PGD", "pgd"))
    )
    seconds = row["train_seconds"] + row["eval_seconds"]
    return f"{start}  loss {row['train_loss']:.4f}  {judged}  {format_duration(seconds)}" + "  best so far" * is_best


def _finish(run: Run, options: argparse.Namespace, console: Console) -> int:
    if options.test and run.trainer.best_epoch:
        _print_test(run.judge_on_test(), run, console)
    page = training_page.write(run)
    files = [name for name in (page.name, LOG, CONFIG, BEST, LAST, TEST) if (run.directory / name).exists()]
    console.print(f"wrote in {run.directory}: {', '.join(files)}")
    return 1 if run.log[-1]["diverged"] else 0


def _print_test(frame: pd.DataFrame, run: Run, console: Console) -> None:
    console.print(f"on all {frame['examples'].iloc[0]:,} test images, by {run.spec.evaluation}:")
    for _, row in frame.iterrows():
        console.print(
            f"  {row['weights']} (epoch {row['epoch']}): "
            f"clean {format_percent(row['clean_accuracy'], row['clean_accuracy_se'])}, "
            f"PGD {format_percent(row['pgd_accuracy'], row['pgd_accuracy_se'])}"
        )
