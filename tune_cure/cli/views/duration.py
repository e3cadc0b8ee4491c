"""Lines on the time that a search or a training run takes on this machine, said before it starts."""

from collections.abc import Callable

from tune_cure.data.batches import num_trained
from tune_cure.data.splits import Splits
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.search.duration import Duration, estimate_duration, measure_trial_speed, typical_hyperparameters
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.run import Run
from tune_cure.training.speed import Speed, measure_speed
from tune_cure.utils.formatting import format_count, format_duration, format_seconds

LONG = 3600.0  # seconds from which on a shorter way is named
SHORTER = 1800.0  # seconds that this way takes
MIN_PER_CLASS = 20  # training images
MIN_JUDGED = 200  # images
CPU_SPACE = {"cifar10": "cifar10_cpu"}
"""The bundled search made for CPUs, by its data set."""


def say_search_duration(spec: SearchSpec, splits: Splits, plan: ResourcePlan, say: Callable[[str], None]) -> None:
    """Say how long a search takes on this machine's CPUs: a few steps are timed.

    Nothing is said of a search on GPUs, whose speed is known once they train.

    Args:
        spec: The search.
        splits: Its data.
        plan: Its use of this machine.
        say: Prints a line.
    """
    if plan.gpus_per_trial:
        return
    speed = measure_trial_speed(spec, splits)
    batch_size = spec.training_config(typical_hyperparameters(spec)).batch_size
    train, judged = num_trained(len(splits.train), batch_size), min(spec.evaluation.examples, len(splits.validation))
    duration = _estimate(spec, splits, plan, speed, train, judged)
    missing = "no GPU found: " if spec.resources.gpus_per_trial else ""
    say(
        f"{missing}an epoch of {spec.model.name} takes about "
        f"{format_seconds(speed.of_epoch(train, judged, spec.evaluation))} on "
        f"{format_count(plan.cpus_per_trial, 'CPU')} here (measured); "
        f"the search, about {duration.epochs:.0f} epochs, {plan.concurrent} at a time, takes about "
        f"{format_duration(duration.seconds)}"
    )
    if duration.seconds > LONG:
        share = SHORTER / duration.seconds
        few = min(train, max(round(share * train), MIN_PER_CLASS * splits.num_classes))
        some = min(judged, max(round(share * judged), MIN_JUDGED))
        less = _estimate(spec, splits, plan, speed, few, some)
        if less.seconds < duration.seconds:  # a budget of seconds pays for more epochs of fewer images
            say(_shorter(spec, few, some, less))


def _estimate(
    spec: SearchSpec, splits: Splits, plan: ResourcePlan, speed: Speed, num_train: int, num_judged: int
) -> Duration:
    fresh = min(spec.rescore.examples, len(splits.validation) - num_judged)
    return estimate_duration(
        spec, speed, num_train=num_train, num_judged=num_judged, num_fresh=fresh, concurrent=plan.concurrent
    )


def _shorter(spec: SearchSpec, num_train: int, num_judged: int, duration: Duration) -> str:
    """Return what makes the search shorter, with this data: fewer images, a limit, a smaller network."""
    text = (
        f"shorter: --set data.train_examples={num_train} --set evaluation.examples={num_judged} takes about "
        f"{format_duration(duration.seconds)}"
    )
    if duration.seconds > LONG:
        text += ", and less with a narrower network (model.width)"
    text += "; --time-budget 1h ends the search after an hour, and --resume continues it"
    space = CPU_SPACE.get(spec.data.dataset)
    is_made_for_gpus = bool(spec.resources.gpus_per_trial)
    return text + f"\nA search made for CPUs: --space {space}" * (space is not None and is_made_for_gpus)


def say_run_duration(run: Run, say: Callable[[str], None]) -> None:
    """Say how long the epochs take that a training run has left: a few steps are timed.

    Args:
        run: The run.
        say: Prints a line.
    """
    if run.finished:
        return
    spec, trainer = run.spec, run.trainer
    speed = measure_speed(
        spec.training, trainer.splits, model=spec.model, evaluation=spec.evaluation, device=trainer.device
    )
    epoch = speed.of_epoch(trainer.images_per_epoch, len(trainer.judged_on), spec.evaluation)
    left = spec.training.epochs - trainer.epoch
    say(
        f"an epoch takes about {format_seconds(epoch)} here (measured), "
        f"{format_count(left, 'epoch')} about {format_duration(left * epoch)}"
    )
