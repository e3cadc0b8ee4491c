"""Which steps of a run are replayed from recordings, and the check that a recording does what the step does."""

import logging
from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor, nn

from tune_cure.attacks.registry import ATTACKS, NORMS
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.directions import DIRECTIONS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.training.config import TrainingConfig
from tune_cure.training.cuda_graphs.recording import CudaRecorder, StepInputs
from tune_cure.training.cuda_graphs.state import Snapshot, TrainingState, difference
from tune_cure.training.optimizers import OPTIMIZERS, keep_rate_on_device
from tune_cure.training.step import TrainingStep
from tune_cure.training.timing import Stopwatch, Watch
from tune_cure.utils.errors import first_line

_logger = logging.getLogger(__name__)

WITHOUT_GRAPHS = "training goes without CUDA graphs, and is slower: %s"
MOST_RECORDINGS = 4  # kinds of steps whose recordings are kept at a time

Replay = Callable[[StepInputs, Watch], Tensor]


class Recorder(Protocol):
    """Records steps, such as `recording.CudaRecorder`.

    Attributes:
        peak_memory: The most bytes that tensors took while a step was recorded.
    """

    peak_memory: int

    def __call__(self, inputs: StepInputs, number: int) -> Replay:
        """Record the step of this number in the run; raise RuntimeError where that is impossible."""


def find_obstacle(config: TrainingConfig, network: str, step: TrainingStep) -> str:
    """Return why the steps of a run cannot be replayed from recordings, in words; empty if nothing is known against it.

    A recording repeats one step's operations. A part of the user's own may do something else in the next step.
    Networks of timm and torchvision do the same in each step: they draw random numbers on the GPU.

    Args:
        config: The hyperparameters.
        network: Name of the network.
        step: The steps.
    """
    parts = (
        (MODELS, network),
        (ATTACKS, config.attack),
        (REGULARIZERS, config.regularizer),
        (DIRECTIONS, config.direction),
        (NORMS, config.norm),
        (OPTIMIZERS, config.optimizer),
    )
    for registry, name in parts:
        if not registry.is_builtin(name) and not registry.is_of_family(name):
            return f"the {registry.kind} {name} is your own, and may do something else in each step"
    if not step.terms.attack.can_be_recorded:
        return f"attack {config.attack} makes the host wait for the GPU"
    if config.lambda_ and not step.terms.regularizer.can_be_recorded:
        return f"regularizer {config.regularizer} makes the host wait for the GPU"
    return ""


def graphed_step(
    config: TrainingConfig, network: str, model: nn.Module, step: TrainingStep, generator: torch.Generator
) -> "GraphedStep | None":
    """Return the steps of a training run as CUDA graphs; None on the CPU, or where a part stands against it.

    A warning names such a part.

    Args:
        config: The hyperparameters.
        network: Name of the network.
        model: The network.
        step: The steps.
        generator: Source of the randomness of attacks and penalties, on the network's device.
    """
    if generator.device.type != "cuda":
        return None
    if obstacle := find_obstacle(config, network, step):
        _logger.warning(WITHOUT_GRAPHS, obstacle)
        return None
    keep_rate_on_device(step.optimizer, generator.device)
    recorder = CudaRecorder(step, generator)
    return GraphedStep(step, TrainingState(model, step, generator), recorder=recorder, batch_size=config.batch_size)


class GraphedStep:
    """The steps of a training run, replayed from recordings where these do the same: call it with each batch.

    The first step of a kind is made as it is, so that all state exists. The second one is made as it is, undone,
    recorded and replayed. If the two results agree, later steps of the kind are replays. Otherwise no step is recorded
    any more, and a warning gives the reason.

    Args:
        step: The steps.
        state: All that they change.
        recorder: Records a step.
        batch_size: Images in a step that is recorded. The last one of an epoch can be smaller.

    Attributes:
        obstacle: Why steps are not recorded any more; empty while they are.
        num_replays: Steps that were replays.
    """

    def __init__(self, step: TrainingStep, state: TrainingState, *, recorder: Recorder, batch_size: int) -> None:
        self.step, self.state, self.recorder, self.batch_size = step, state, recorder, batch_size
        self.obstacle, self.num_replays = "", 0
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, Replay] = {}
        self._checked: set[Hashable] = set()

    def __call__(
        self, images: Tensor, labels: Tensor, number: int, watch: Stopwatch, positions: Tensor | None = None
    ) -> Tensor:
        """Make one optimizer step, as `TrainingStep` does.

        Returns:
            (6,) on the device, as `TrainingStep` does. The next step may overwrite it.
        """
        inputs = StepInputs(images, labels, positions)
        if self.obstacle or len(images) != self.batch_size:
            return self._make(inputs, number, watch)
        carried = self.state.carried()
        kind = self.step.host_values(len(images), number), carried
        if kind in self._checked:
            self.num_replays += 1
            return self._recordings[kind](inputs, watch)
        before = self.state.copy() if kind in self._seen else None
        row = self._make(inputs, number, watch)
        self._seen.add(kind)
        if any(old not in (None, new) for old, new in zip(carried, self.state.carried(), strict=False)):
            return self._give_up("attack or penalty carry something from step to step that a recording cannot", row)
        return row if before is None else self._check(kind, before, row, inputs, number)

    def forget(self) -> None:
        """Forget all recordings, because tensors of the run were replaced."""
        self._seen.clear()
        self._checked.clear()
        self._recordings.clear()

    def _make(self, inputs: StepInputs, number: int, watch: Watch) -> Tensor:
        return self.step(inputs.images, inputs.labels, number, watch, inputs.positions)

    def _check(self, kind: Hashable, before: Snapshot, row: Tensor, inputs: StepInputs, number: int) -> Tensor:
        """Make the step that was just made from `before` once more, by a recording; return `row`, what it returned."""
        made = self.state.copy()
        self.state.restore(before)
        try:
            replay = self._recordings.get(kind) or self._recorded(kind, inputs, number)
            replayed = replay(inputs, NoWatch())
        except RuntimeError as error:
            self.state.restore(made)
            return self._give_up(first_line(error), row)
        verdict = compare(row, replayed, lambda: difference(before, made, self.state.copy()))
        if verdict is None:
            self._checked.add(kind)
        else:
            self.state.restore(made)
            if verdict:
                return self._give_up(f"a replayed step differs from the step itself in {verdict}", row)
        return row

    def _recorded(self, kind: Hashable, inputs: StepInputs, number: int) -> Replay:
        while len(self._recordings) >= MOST_RECORDINGS:
            oldest = next(iter(self._recordings))
            del self._recordings[oldest]
            self._checked.discard(oldest)
        self._recordings[kind] = self.recorder(inputs, number)
        return self._recordings[kind]

    def _give_up(self, reason: str, row: Tensor) -> Tensor:
        self.obstacle = reason
        self.forget()
        _logger.warning(WITHOUT_GRAPHS, reason)
        return row


def compare(row: Tensor, replayed: Tensor, find_difference: Callable[[], str]) -> str | None:
    """Return what differs between a step and its replay; None if nothing, and empty if it cannot be told.

    A step that the scaler skipped, or whose loss is not finite, changes nothing. It shows no difference.

    Args:
        row: (6,) what the step returned.
        replayed: (6,) what the replay returned.
        find_difference: Compares the two states; see `state.difference`.
    """
    (finite, loss, _, penalized, _, skipped), (_, other_loss, _, other_penalized, _, other_skipped) = (
        row.tolist(),
        replayed.tolist(),
    )
    if finite == 0 or skipped:
        return ""
    if penalized != other_penalized or skipped != other_skipped or not abs(loss - other_loss) <= 0.05 * abs(loss):
        return "its loss"
    return find_difference() or None


class NoWatch:
    """Stopwatch that measures nothing."""

    def start(self) -> None:
        """Ignore the beginning of a part."""

    def split(self, part: str) -> None:
        """Ignore the end of a part."""
