"""The command `train`: one training run without Ray, from flags, a YAML file or a row of a search's table."""

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.steps import original_flags
from tune_cure.cli.steps.original_flags import OriginalFlags
from tune_cure.data.datasets import DATASETS
from tune_cure.models.registry import MODELS
from tune_cure.search import run_files
from tune_cure.search.run_files import RESULTS
from tune_cure.search.space import own_parts, trial_config
from tune_cure.training.config import HYPERPARAMETERS, TrainingConfig, expand_model_name
from tune_cure.training.delta import DELTA, SAME_AS, delta_names, delta_notice, expand_delta
from tune_cure.training.interactions import explain_short_training, inactive_hyperparameters
from tune_cure.training.presets import METHOD, METHODS, describe_method, expand_method
from tune_cure.training.run import CONFIG, RunSpec, add_dataset_defaults, resolve
from tune_cure.utils.files import refuse_foreign_links
from tune_cure.utils.formatting import format_hyperparameters, format_value, path_word
from tune_cure.utils.schema import choices
from tune_cure.utils.yaml_config import ProblemError, SpecError, override, parse_value, put, read_mapping

DEFAULT_FOLDER = RESULTS / "train"
KEYS = {  # of a run's YAML, by the flags that set them
    "dataset": "data.dataset",
    "data_root": "data.root",
    "model": "model.name",
    "seed": "seed",
    "threads": "threads",
}
NUMBERS = ("seed", "threads")  # those of KEYS that take a number
WITH_RESUME = ("output", "resume", "test", "device", "parts")  # the only options that go with --resume


@dataclass(frozen=True)
class TrainOptions:
    """Command line of `train`; None and empty mean that nothing was given.

    Attributes:
        config: A run's YAML, or a search's folder, or its best_config.yaml, best_config.csv or trials.csv.
        trial: The row of such a table.
        dataset: Name of a data set.
        data_root: Folder of the data.
        model: Name of a network.
        seed: Seed of the run, as typed.
        settings: Overrides of single keys: `evaluation.steps=50`.
        output: The run's folder; None takes a new one below results/.
        resume: Continue the run in the folder.
        test: Judge the best and the last network on the test set at the end.
        early_stop: End at catastrophic overfitting; None leaves it to the file.
        device: Name of a torch device; None takes CUDA if there is any.
        threads: CPU threads, as typed.
        parts: The file of the user's own parts; None takes those that the run's file names.
        hyperparameters: The texts typed after the flags of hyperparameters, by name.
        original: Flags of the original project.
    """

    config: Path | None = None
    trial: int | None = None
    dataset: str | None = None
    data_root: str | None = None
    model: str | None = None
    seed: str | None = None
    settings: tuple[str, ...] = ()
    output: Path | None = None
    resume: bool = False
    test: bool = False
    early_stop: bool | None = None
    device: str | None = None
    threads: str | None = None
    parts: Path | None = None
    hyperparameters: dict[str, str] = field(default_factory=dict)
    original: OriginalFlags = field(default_factory=OriginalFlags)

    def resume_command(self, directory: Path) -> str:
        """Return the command that continues the run in `directory`."""
        words = ["train", "--output", path_word(directory), "--resume", *["--test"] * self.test]
        words += ["--device", self.device] if self.device else []
        words += ["--parts", path_word(self.parts)] if self.parts else []
        return f"{command_line.program()} {shlex.join(words)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.usage = "tune-cure train [--config FILE] [--HYPERPARAMETER X ...] [options]"
    parser.description = "Trains one network, without Ray, and leaves its log, curves and checkpoints in a folder."
    parser.epilog = (
        "The command line of CURE_fast_adversarial works as it is: --opt SGD, --delta-init random, --betta 5, "
        "--epsilon 8 (from 1 on: in 1/255), --alpha 10 (beside such an epsilon or from 4 on: in 1/255), "
        "--opt-level O0 (no mixed precision)."
    )
    _add_subject(parser)
    _add_manner(parser)
    _add_hyperparameters(parser)
    original_flags.add_arguments(parser)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is trained")
    config_help = (
        "a run's YAML, or a search's folder (its winner, or its --trial), best_config.yaml, best_config.csv or "
        "trials.csv; flags override it"
    )
    group.add_argument("--config", type=Path, metavar="FILE", help=config_help)
    group.add_argument("--trial", type=int, metavar="N", help="the trial whose row of the table is taken")
    group.add_argument("--dataset", help=f"default cifar10; {_datasets()}")
    group.add_argument("--data-root", "--data-dir", metavar="FOLDER", help="where the data is")
    group.add_argument("--model", metavar="NAME", help=f"default: the data set's; {', '.join(MODELS)}")
    parts_help = "a file that registers parts of your own, such as my_parts.py (docs/own_parts.md)"
    group.add_argument("--parts", type=Path, metavar="FILE", help=parts_help)
    seed_help = "seed of the weights, of the order of the data and of the attacks; default 0"
    group.add_argument("--seed", metavar="N", help=seed_help)
    set_help = "any other key: evaluation.steps=50"
    group.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=set_help)


def _datasets() -> str:
    """Return every data set with what is used with it where the user says nothing."""
    return "; ".join(f"{name} ({dataset.describe_defaults()})" for name, dataset in DATASETS.items())


def _add_manner(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it runs")
    output_help = f"the run's folder (default: {DEFAULT_FOLDER})"
    group.add_argument("--output", "--out-dir", type=Path, metavar="FOLDER", help=output_help)
    group.add_argument("--resume", action="store_true", help="continue the run in the folder")
    group.add_argument("--test", action="store_true", help="judge the best and the last network on the test set")
    stop_help = "end at catastrophic overfitting, instead of warning (a run's key early_stop)"
    group.add_argument("--early-stop", action="store_true", default=None, help=stop_help)
    group.add_argument("--device", help="cuda, cuda:1, cpu (default: cuda if there is one)")
    threads_help = "CPU threads (default: the trial's if --config is from a search, else a fast number, measured)"
    group.add_argument("--threads", metavar="N", help=threads_help)


def _add_hyperparameters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("hyperparameters (the keys of training: in a search space)")
    method_help = f"stands for the hyperparameters of a paper that are not given. One of {', '.join(METHODS)}."
    group.add_argument(f"--{METHOD}", dest=f"training.{METHOD}", metavar="X", help=method_help)
    for name, field_name in HYPERPARAMETERS.items():
        info = TrainingConfig.model_fields[field_name]
        flags = [f"--{name.replace('_', '-')}", *original_flags.FLAGS.get(name, [])]
        names = f" One of {', '.join(choices(info))}." if choices(info) else ""
        help_text = f"{info.description}{names} [{format_value(info.default)}]"
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if info.annotation is bool else {}
        group.add_argument(*flags, dest=f"training.{name}", metavar="X", help=help_text, **alone)
    delta_help = f"the original's word for regularizer and direction. One of {', '.join(delta_names())}."
    group.add_argument(f"--{DELTA}", dest=f"training.{DELTA}", metavar="X", help=delta_help)


def read_options(parsed: argparse.Namespace) -> TrainOptions:
    """Return a parsed command line as options."""
    texts = {name: getattr(parsed, f"training.{name}") for name in (METHOD, *HYPERPARAMETERS, DELTA)}
    simple = [item.name for item in fields(TrainOptions) if item.name not in ("hyperparameters", "original")]
    values = {name: getattr(parsed, name) for name in simple}
    return TrainOptions(
        **values | {"settings": tuple(parsed.settings)},
        hyperparameters={name: text for name, text in texts.items() if text is not None},
        original=original_flags.read_options(parsed),
    )


def run(options: TrainOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    spec = read_begun(options) if options.resume else read_run(options, console.print)
    from tune_cure.cli.steps import (
        train_run,  # imports pandas and plotly: not before the configuration is known to be good
    )

    return train_run.run(spec, options, console)


def read_run(options: TrainOptions, say: Callable[[str], None]) -> RunSpec:
    """Return the run that the command line describes; `say` prints a line.

    Raises:
        SpecError: It describes none that can be trained.
    """
    return resolve_run(read_content(options), options, say, options.config or "command line")


def read_content(options: TrainOptions) -> dict[str, Any]:
    """Return the sections of the run in the file that `options` name; empty without a file.

    Raises:
        SpecError: The file cannot be read, or has no such row.
    """
    is_table = options.config is not None and (options.config.suffix == ".csv" or options.config.is_dir())
    if options.trial is not None and not is_table:
        raise SpecError("--trial: names a row of a table: a trials.csv, or a search's folder, is needed as --config")
    return trial_config.read(options.config, options.trial) if options.config else {}


def resolve_run(
    content: dict[str, Any], options: TrainOptions, say: Callable[[str], None], source: str | Path
) -> RunSpec:
    """Return the run that a mapping of sections and the command line describe together.

    Args:
        content: The sections; changed in place.
        options: The command line, which overrides them.
        say: Prints a line.
        source: Names the mapping in errors.

    Raises:
        SpecError: They describe no run that can be trained.
    """
    try:
        if options.early_stop:
            content["early_stop"] = True
        expand_model_name(content)
        for flag, path in KEYS.items():
            text = getattr(options, flag)
            if text is not None:
                put(content, path, parse_value(text, f"--{flag}") if flag in NUMBERS else text)
        for assignment in options.settings:
            override(content, assignment)
            expand_model_name(content)
        _import_parts(content, options.config or Path(source), options)
        given = options.hyperparameters
        _expand_delta(content, say)
        values = original_flags.translate(given, options.original, say)
        if DELTA in values:
            say(f"--{delta_notice(values[DELTA])}")
        _take_method(content, expand_delta(values), say)
        defaults = add_dataset_defaults(content)
        original_flags.rescale(content, given, say)
        spec = resolve(content)
        if defaults:
            say(f"defaults of {spec.data.dataset}: {format_hyperparameters(defaults)}")
        inactive = inactive_hyperparameters(spec.training)
        for key in given.keys() & inactive.keys():
            say(f"--{key.replace('_', '-')} has no effect: {inactive[key]}")
        for line in explain_short_training(spec.training):
            say(line)
        return spec
    except ProblemError as problem:
        raise problem.within(source) from problem


def _take_method(content: dict[str, Any], values: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Put hyperparameters that were typed, and the keys of a method, into the sections of a run.

    What was typed, and the keys of a method that was typed, count instead of the keys of the file that say the same.
    What was typed beside a method counts more than the method.

    Args:
        content: The sections; changed in place.
        values: What was typed.
        say: Prints a line.

    Raises:
        ProblemError: There is no such method.
    """
    typed = expand_method(values)
    for key in typed:
        for other in SAME_AS.get(key, ()):
            if isinstance(content.get("training"), dict):
                content["training"].pop(other, None)
    for key, value in typed.items():
        put(content, f"training.{key}", value)
    training = content.get("training")
    if isinstance(training, dict):
        content["training"] = training = expand_method(training)
        if line := describe_method(training):
            say(f"method {line}")


def _expand_delta(content: dict[str, Any], say: Callable[[str], None]) -> None:
    """Put regularizer and direction in the place of `training.delta`, so that flags can change either of them."""
    training = content.get("training")
    if isinstance(training, dict) and DELTA in training:
        content["training"] = expand_delta(training, "training")
        say(f"training.{delta_notice(training[DELTA])}")


def read_begun(options: TrainOptions) -> RunSpec:
    """Return the run that was begun in the folder of `options`.

    Raises:
        FolderError: A link in the folder leads out of it.
        SpecError: The folder holds no run, or the command line has flags that do not go with --resume.
    """
    directory = options.output or DEFAULT_FOLDER
    file = directory / CONFIG
    simple = [item.name for item in fields(options) if item.name not in (*WITH_RESUME, "hyperparameters", "original")]
    given = [f"--{name.replace('_', '-')}" for name in simple if getattr(options, name) not in (None, ())]
    given += [f"--{name.replace('_', '-')}" for name in options.hyperparameters] + options.original.given
    if given:
        flag = "--set" if given[0] == "--settings" else given[0]
        raise SpecError(f"--resume takes its configuration from {file}: leave out {flag}")
    if not file.is_file():
        raise SpecError(f"{directory}: holds no training run: there is no {CONFIG} in it")
    refuse_foreign_links(directory)
    try:
        content = read_mapping(file)
        _import_parts(content, file, options)
        return resolve(content)
    except ProblemError as problem:
        raise problem.within(file) from problem


def _import_parts(content: dict[str, Any], file: Path, options: TrainOptions) -> None:
    """Import the modules of the user's own parts, and put their paths into the sections of a run.

    Args:
        content: The sections, changed in place.
        file: The file that they are from.
        options: The command line. The parts that it names count instead of those of the file.

    Raises:
        SpecError: The file is of a run's folder, whose parts may not be imported from where they are.
        ProblemError: One cannot be imported.
    """
    content |= own_parts.read_parts(content, file.parent)
    parts = content.get("parts", [])
    if options.parts or file.with_name(run_files.SPEC).is_file() or options.resume:
        parts = own_parts.choose_parts(parts, file, options.parts)
    own_parts.import_modules(parts)
    if parts:
        content["parts"] = parts
