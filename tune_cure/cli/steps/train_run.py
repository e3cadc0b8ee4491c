"""A training run from its data to its page. The command `train` and `tune_cure.train` share these steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from tune_cure.cli.steps.continuing import explaining_disk_fault
from tune_cure.cli.train import DEFAULT_FOLDER, TrainOptions
from tune_cure.cli.views import duration, training
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.interruption import EXIT_CODE
from tune_cure.data import folders, splits as splits_module
from tune_cure.training.run import BEST, BEST_WEIGHTS, CONFIG, LAST, LOG, TEST, Run, RunSpec
from tune_cure.training.speed import choose_threads, cpu_threads
from tune_cure.training.trainer import check_network
from tune_cure.utils import environment, locking
from tune_cure.utils.environment import describe_missing, is_installed
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import make_run_folder, replace_text
from tune_cure.utils.signals import ignore_ctrl_c
from tune_cure.utils.yaml_config import SpecError


def run(spec: RunSpec, options: TrainOptions, console: Console) -> int:
    """Train, print how to continue if that is interrupted, and return the command's exit code."""
    with open_run(spec, options) as begun:
        command = options.resume_command(begun.directory)
        try:
            with explaining_disk_fault(command):
                return _run(begun, options, console)
        except KeyboardInterrupt:
            ignore_ctrl_c()
            epochs = spec.training.epochs
            saved = f"{len(begun.log)} of {epochs} epochs are saved" if begun.log else "no epoch was finished"
            alert(console, f"interrupted; {saved}. Continue with:\n  {command}")
            return EXIT_CODE


def _run(begun: Run, options: TrainOptions, console: Console) -> int:
    training.say_plan(begun, console.print)
    if missing := describe_missing(["plotly"]):
        console.print(missing)
    duration.say_run_duration(begun, console.print)
    training.train_epochs(begun, console.print, console)
    if options.test and begun.trainer.best_epoch:
        training.say_test(begun.evaluate_on_test(), begun, console.print)
    page = write_page(begun)
    pages = [page.name] if page else []
    files = [
        name for name in (*pages, LOG, CONFIG, BEST, BEST_WEIGHTS, LAST, TEST) if (begun.directory / name).exists()
    ]
    console.print(f"wrote in {begun.directory}: {', '.join(files)}")
    return 1 if begun.log[-1]["diverged"] else 0


def write_page(run: Run) -> Path | None:
    """Write the run's page and return its path; None without plotly, which draws its plots."""
    if not is_installed("plotly"):
        return None
    from tune_cure.reports import training_page

    return training_page.write(run)


@contextmanager
def open_run(spec: RunSpec, options: TrainOptions) -> Iterator[Run]:
    """Load the data, and yield the run on its CPU threads, with its folder locked against other processes.

    Raises:
        TuneCureError: The device or the data cannot be used, or the folder is not free or cannot be continued.
    """
    device = choose_device(options.device)
    # A YAML file that somebody sent may say where data is read, but only the user where it is written.
    splits = splits_module.load(spec.data, download=bool(options.data_root) or folders.is_default(spec.data.root))
    check_network(spec.model, splits, device)
    spec = spec.model_copy(update={"data": splits_module.with_validation(spec.data, splits)})
    if options.resume:
        directory = options.output or DEFAULT_FOLDER
    else:
        directory = make_run_folder(DEFAULT_FOLDER, options.output)
        if spec.threads is None and device.type == "cpu":
            threads = choose_threads(spec.training, splits, model=spec.model, evaluation=spec.evaluation)
            spec = spec.model_copy(update={"threads": threads})
    with cpu_threads(spec.threads), locking.hold_run_lock(directory):
        if not options.resume:
            replace_text(directory / CONFIG, spec.to_yaml())
        begun = Run(spec, splits, directory, device)
        if options.resume:
            begun.restore()
        environment.write(directory, splits.source)
        yield begun


def choose_device(name: str | None) -> torch.device:
    """Return the device of that name, or for None CUDA if there is any, else the CPU.

    Raises:
        SpecError: The device cannot be used.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch that was built without CUDA asserts
        raise SpecError(f"--device {name}: cannot be used: {first_line(error)}") from error
    if device.type not in ("cpu", "cuda"):  # MPS, for example, lacks float64
        raise SpecError(f"--device {name}: cannot be used: cpu and cuda can")
    return device
