"""The plan of a search as `search --check` prints it."""

from rich.console import Console
from rich.table import Table

from tune_cure.cli.views.training import is_alike
from tune_cure.data.splits import Splits
from tune_cure.ray_backend.resources import (
    ResourcePlan,
    plan_resources,
    this_machine,
)
from tune_cure.search import trial_table
from tune_cure.search.budget import describe_budget
from tune_cure.search.duration import play
from tune_cure.search.proposals.auto_sampler import resolve_sampler
from tune_cure.search.space.checks import explain_short_trainings
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.training.presets import describe_method
from tune_cure.utils.formatting import format_count, format_hyperparameters, format_radius

MEASURED_LATER = (
    "\nor more on each GPU: gpus_per_trial is auto, so a trial's memory is measured before the search starts"
)


def plan_on_this_machine(spec: SearchSpec) -> ResourcePlan:
    """Return what the search takes of this machine.

    Raises:
        DeviceError: Not even one trial fits.
    """
    return plan_resources(spec, [this_machine()])


def describe_images(splits: Splits) -> str:
    """Return the number, the shape and the source of the images, in words."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    height, width = splits.image_size
    shape = f"{splits.in_channels}×{height}×{width}, {splits.num_classes} classes"
    return f"{counts} images of {shape}\n{splits.source}"


def print_plan(spec: SearchSpec, plan: ResourcePlan, images: str, output: str, console: Console) -> None:
    """Print what the search would do, a row for each part.

    Args:
        spec: The search.
        plan: Its use of this machine.
        images: The data in words.
        output: Where its results go, in words.
        console: Where to print.
    """
    budget = describe_budget(spec)
    method, short = describe_method(spec.training, spec.space), explain_short_trainings(spec)
    rows = {
        "search": f"{spec.name}: {spec.search.trials} trials by {_describe_sampler(spec)}, seed {spec.search.seed}, "
        f"for {spec.search.mode} {' and '.join(spec.search.metrics)}"
        + "".join(f", {text}" for text in spec.search.constraints),
        "data": images,
        "network": spec.model.name + (f", width {spec.model.width}" if spec.model.width else ""),
        **({"method": method} if method else {}),
        "space": "\n".join(f"{key}: {_describe_values(spec, key)}{_describe_use(spec, key)}" for key in spec.space),
        "start_from": "\n".join(format_hyperparameters(start) for start in spec.start_from) or "none",
        "scheduler": f"{spec.search.scheduler} {_describe_stops(spec)}; runs to {spec.max_epochs}"
        + _describe_control_group(spec),
        **({"budget": budget} if budget else {}),
        "epochs": "\n".join([_describe_epochs(spec, plan), *short]),
        "judged by": "\n".join(
            [f"{spec.evaluation} on {_describe_judged_images(spec)} validation images", *explain_other_radius(spec)]
        ),
        **({"then judged": again} if (again := _describe_second_judgement(spec)) else {}),
        "devices": f"{plan}{MEASURED_LATER if plan.gpus_per_trial and spec.resources.gpus_per_trial == 'auto' else ''}",
        "results": output,
    }
    table = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)


def _describe_sampler(spec: SearchSpec) -> str:
    sampler, reason = resolve_sampler(spec)
    return f"{sampler} (auto: {reason})" if reason else sampler


def _describe_values(spec: SearchSpec, key: str) -> str:
    """Return a hyperparameter's distribution; that of an L∞ radius also in 1/255, as papers write it."""
    distribution = spec.space[key]
    if key != "epsilon" or spec.training.get("norm", "linf") != "linf" or "norm" in spec.space:
        return str(distribution)
    return f"{distribution} ({', '.join(f'{255 * radius:.3g}/255' for radius in distribution.values)})"


def _describe_use(spec: SearchSpec, key: str) -> str:
    """Return a remark on a hyperparameter that makes no difference, or in some configurations alone; else empty."""
    never = spec.inactive_keys().get(key)
    return "" if never is None else " (left out: makes no difference)" if never else " (where it makes a difference)"


def _describe_stops(spec: SearchSpec) -> str:
    if spec.search.scheduler == "median":
        return f"may stop a trial after any epoch from {spec.asha.grace_period} on"
    if not spec.rungs:
        return "stops nothing"
    judged = f", judged there by {spec.rung_judgement}" if spec.rung_judgement else ""
    return f"may stop a trial after epoch {', '.join(map(str, spec.rungs))}{judged}"


def _describe_control_group(spec: SearchSpec) -> str:
    """Return what the control group of early stopping is, as a line of its own; empty without one."""
    if not spec.asha.control or spec.search.scheduler == "none":
        return ""
    judge = " and judge the rungs" if spec.rungs else ""
    return f"\nabout {100 * spec.asha.control:.3g}% of the trials, drawn by the seed, run to the end{judge}"


def explain_other_radius(spec: SearchSpec) -> list[str]:
    """Return a warning where all trials train at larger, or all at smaller radii than they are judged at; else none.

    A fixed radius may differ a little, as in `tune-cure train`: a larger one in training is common.
    """
    config, judged = spec.training_config({}), spec.evaluation
    if "norm" in spec.space or config.norm != judged.norm or "epsilon" in inactive_hyperparameters(config):
        return []
    searched = spec.space.get("epsilon")
    radii = sorted({min(searched.values), max(searched.values)}) if searched else [config.epsilon]
    is_around = radii[0] <= judged.epsilon <= radii[-1]
    if is_around or (searched is None and is_alike(config.epsilon, judged.epsilon)):
        return []
    trained = " to ".join(format_radius(radius, config.norm) for radius in radii)
    return [
        f"trains at {trained}, but is judged at {format_radius(judged.epsilon, judged.norm)}: set evaluation.epsilon?"
    ]


def explain_judgements(spec: SearchSpec) -> list[str]:
    """Return what the plan says of the judgements that may need a change, a line each, for a search that starts."""
    reason = explain_no_fresh_images(spec)
    return explain_other_radius(spec) + [f"no leader will be judged again: {reason}"] * bool(reason)


def _describe_judged_images(spec: SearchSpec) -> str:
    """Return how many images judge each epoch; their number is not known before data of unknown size is here."""
    if spec.data.validation is None:
        return f"at most {spec.evaluation.examples:,}"
    return f"{trial_table.judged_examples(spec):,}"


def _describe_second_judgement(spec: SearchSpec) -> str:
    """Return by what the leaders are judged again, or why they cannot be; empty if they are not to be."""
    if not spec.rescore.top:
        return ""
    if reason := explain_no_fresh_images(spec):
        return f"no leader: {reason}"
    leaders = format_count(min(spec.rescore.top, spec.search.trials), "leader")
    fresh = f"at most {spec.rescore.examples:,}"
    if spec.data.validation is not None:
        fresh = f"{min(spec.rescore.examples, _count_unjudged(spec)):,}"
    return f"{leaders} by {spec.rescoring.described_attack} on {fresh} fresh validation images"


def explain_no_fresh_images(spec: SearchSpec) -> str:
    """Return why the leaders cannot be judged again on fresh images; empty if they can, or are not to be."""
    if not spec.rescore.top or spec.data.validation is None or _count_unjudged(spec):
        return ""
    return (
        f"all {spec.data.num_validation:,} validation images judge the trials; to keep some for the leaders, set "
        "data.validation above evaluation.examples"
    )


def _count_unjudged(spec: SearchSpec) -> int:
    """Return the number of validation images that no trial is judged on."""
    return spec.data.num_validation - trial_table.judged_examples(spec)


def _describe_epochs(spec: SearchSpec, plan: ResourcePlan) -> str:
    search, most = spec.search, spec.search.trials * spec.max_epochs
    text = f"at most {most if search.budget_epochs is None else min(most, search.budget_epochs)}"
    if search.scheduler != "none":
        text += f"; about {play(spec, plan.concurrent).epochs:.0f} with early stopping"
    return text + "; fewer if the budget ends before" * (search.budget_seconds is not None)


def describe_prior_trials(spec: SearchSpec, *, is_resumed: bool) -> str:
    """Return how many trials of earlier searches the sampler knows; empty without `search.warm_start`."""
    if not spec.search.warm_start or is_resumed:
        return ""
    from tune_cure.search.proposals import warm_start  # imports Optuna

    used, left_out = warm_start.read_prior_trials(spec)
    line = f"{len(used)} trials of {spec.search.warm_start} are known to the sampler"
    return line + f"; {left_out} did not end, or lie outside of the space" * bool(left_out)
