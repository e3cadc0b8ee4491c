"""The judgement of trained networks. The command `evaluate` and `tune_cure.evaluate` share these steps."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.evaluate import DEFAULT_FOLDER, EvaluateOptions
from tune_cure.cli.steps.continuing import KEPT, explaining_disk_fault
from tune_cure.cli.steps.train_run import choose_device
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.evaluation import print_judgement
from tune_cure.cli.views.interruption import EXIT_CODE
from tune_cure.confirmation import judgement as judging
from tune_cure.confirmation.checks import at_most, check_attacks
from tune_cure.confirmation.judgement import JudgedNetwork, Judgement, outcome_key
from tune_cure.confirmation.task import choose_task, explain_trained_images
from tune_cure.confirmation.trained_networks import (
    ModelError,
    TrainedNetwork,
    load_trained,
    rehearse_network,
    split_reference,
)
from tune_cure.data import folders, splits as splits_module
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Examples
from tune_cure.evaluation.chance import chance_level
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import ATTACK_LABELS, explain_missing_parts
from tune_cure.evaluation.robustness import evaluate_robustness
from tune_cure.reports.figures.notebook import pictures_of_judgement
from tune_cure.search import run_files
from tune_cure.search.space.own_parts import import_chosen_parts
from tune_cure.utils import cpu, environment, locking
from tune_cure.utils.files import make_folder, refuse_foreign_links
from tune_cure.utils.formatting import draw_with, format_count, format_percent, format_radius
from tune_cure.utils.signals import ignore_ctrl_c

_logger = logging.getLogger(__name__)
SAVED = "outcomes"
"""Folder of the outcomes of each network, in the command's folder."""

draw_with(Judgement, pictures_of_judgement)


def run(options: EvaluateOptions, console: Console) -> int:
    """Judge the networks, print what came of it, and return the command's exit code."""
    try:
        with explaining_disk_fault(options.command()):
            judgement = judge(options, console.print)
    except KeyboardInterrupt:
        ignore_ctrl_c()
        alert(console, f"interrupted; {KEPT}\n  {options.command()}")
        return EXIT_CODE
    print_judgement(judgement, console)
    files = f"{judging.TABLE}, {judging.SUMMARY} and {run_files.OUTCOMES}"
    console.print(f"\nwrote in {options.output}: {files}")
    return 0


def evaluate(
    models: Sequence[str | Path],
    *,
    dataset: str | None = None,
    data_root: str | Path | None = None,
    image_size: int | None = None,
    norm: str | None = None,
    epsilon: float | None = None,
    examples: int | None = None,
    autoattack: bool = True,
    output: str | Path = DEFAULT_FOLDER,
    device: str | None = None,
    trust_code: bool = False,
    parts: str | Path | None = None,
    quiet: bool = False,
) -> Judgement:
    """Judge trained networks of any origin, as they are, on the same test images; write the tables and return them.

    What an earlier call has judged with the same `output` is not judged again.

    Args:
        models: The networks: folders of runs or of exports, files that this package saved, `weights.pt@module:name`,
            `robustbench:ID`. `NAME=MODEL` gives one its name in the tables.
        dataset: The data set; None takes that of the first network that tells.
        data_root: Folder of the data; None takes the default.
        image_size: Side to resize images to, in pixels; None takes that of the first network that tells.
        norm: Norm of the attacks; None takes that of the first network that tells.
        epsilon: Their radius, in pixel units; None takes that of the first network that tells.
        examples: Test images to judge on, stratified; None is all.
        autoattack: Judge by AutoAttack, too, not by PGD-50-10 alone.
        output: Where the tables go.
        device: The device; None takes CUDA where there is any.
        trust_code: Import the code of networks that saved files name as `module:name`.
        parts: The file of your own parts, which is imported.
        quiet: Print no progress.

    Returns:
        `table()` has the accuracies, `comparisons()` the verdicts.

    Raises:
        TuneCureError: A network, the data or the threat model cannot be used.
    """
    options = EvaluateOptions(
        models=tuple(map(str, models)),
        dataset=dataset,
        data_root=None if data_root is None else str(data_root),
        image_size=image_size,
        norm=norm,
        epsilon=epsilon,
        examples=examples,
        no_autoattack=not autoattack,
        output=Path(output),
        device=device,
        trust_code=trust_code,
        parts=None if parts is None else Path(parts),
    )
    return judge(options, command_line.progress(quiet))


def judge(options: EvaluateOptions, say: Callable[[str], None]) -> Judgement:
    """Judge the networks that `options` name, and write the tables.

    Args:
        options: The command line.
        say: Prints a line.

    Raises:
        TuneCureError: A network, the data or the threat model cannot be used.
    """
    if options.parts:
        import_chosen_parts([], options.output, options.parts)
    named = name_models(options.models)
    task = choose_task(
        (split_reference(model)[0] for model in named.values()),
        data={"dataset": options.dataset, "root": options.data_root, "image_size": options.image_size},
        evaluation={"norm": options.norm, "epsilon": options.epsilon},
    )
    device = choose_device(options.device)
    check_attacks([task.evaluation.epsilon], task.evaluation, autoattack=not options.no_autoattack)
    networks = {
        name: load_trained(model, trust_code=options.trust_code, dataset=task.data.dataset, norm=task.evaluation.norm)
        for name, model in named.items()
    }
    test, source, num_classes = _load_images(options, named, task.data)
    for name, trained in networks.items():
        rehearse_network(name, trained, test, num_classes)
    folder = make_folder(options.output)
    refuse_foreign_links(folder)
    cpu.configure_cpu(None)
    with locking.hold_run_lock(folder):
        environment.write(folder, source)
        at = format_radius(task.evaluation.epsilon, task.evaluation.norm)
        say(f"{format_count(len(networks), 'network')} on {len(test):,} test images ({source}) at {at}, on {device}")
        if left_out := explain_missing_parts(num_classes, autoattack=not options.no_autoattack):
            say(left_out)
        on_device = test.to(device)
        judged = [_judge(name, trained, on_device, task.evaluation, options, say) for name, trained in networks.items()]
        norm, epsilon = task.evaluation.norm, task.evaluation.epsilon
        judgement = Judgement(judged, norm, epsilon, chance_level(test.own_labels))
        judgement.write(folder)
    return judgement


def name_models(models: Sequence[str]) -> dict[str, str]:
    """Return the networks of a command line by the names that they get in tables.

    `NAME=MODEL` gives a name. Others are called after their files, with as many of the folders above as it takes to
    tell them apart.

    Raises:
        ModelError: Two have the same name.
    """
    given = [_split_name(model) for model in models]
    paths = [Path(model).parts or (model,) for name, model in given if not name]
    most = max(map(len, paths), default=1)
    length = next((n for n in range(1, most + 1) if len({path[-n:] for path in paths}) == len(paths)), most)
    named: dict[str, str] = {}
    for given_name, model in given:
        name = given_name or "/".join((Path(model).parts or (model,))[-length:])
        if name in named:
            raise ModelError(f"{name}: names two networks; give one a name of its own: NAME={model}")
        named[name] = model
    return named


def _split_name(text: str) -> tuple[str, str]:
    """Return the name and the network of `NAME=MODEL`; an empty name where there is none, or a file is called so."""
    name, separator, model = text.partition("=")
    return (name, model) if separator and not Path(text).exists() and "/" not in name else ("", text)


def _load_images(options: EvaluateOptions, named: Mapping[str, str], data: DataSpec) -> tuple[Examples, str, int]:
    """Return the test images to judge on, where they are from in words, and the number of classes."""
    splits = splits_module.load(data, download=bool(options.data_root) or folders.is_default(data.root))
    if not splits.has_own_test:
        for warning in explain_trained_images(named, splits_module.with_validation(data, splits)):
            _logger.warning("%s", warning)
    examples = at_most(options.examples, len(splits.test), "--examples", "test images")
    return splits.test.subset(examples, seed=0), splits.source, splits.num_classes


def _judge(
    name: str,
    trained: TrainedNetwork,
    test: Examples,
    evaluation: EvaluationConfig,
    options: EvaluateOptions,
    say: Callable[[str], None],
) -> JudgedNetwork:
    """Judge one network, from the attack on at which an earlier command left it."""
    key = outcome_key(trained.network, test, norm=evaluation.norm, epsilon=evaluation.epsilon)
    started = time.perf_counter()
    outcomes = evaluate_robustness(
        trained.network.to(test.images.device),
        test,
        evaluation,
        autoattack=not options.no_autoattack,
        folder=make_folder(options.output / SAVED / key),
        on_progress=lambda attack, accuracy: say(f"{name}: {ATTACK_LABELS[attack]} {format_percent(accuracy)}"),
    )
    trained.network.cpu()
    return JudgedNetwork(name, trained.origin, trained.num_parameters, outcomes, time.perf_counter() - started)
