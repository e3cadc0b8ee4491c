"""Speed of training and evaluation on this machine, measured on a few images after a warm-up.

The first steps of a process are many times slower than all others: kernels are chosen, memory is taken from the system.
Timing them alone would be wrong by a factor of 5 and more.
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.data.batches import num_trained, to_float
from tune_cure.data.splits import Examples, Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate, exact_evaluation
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer
from tune_cure.utils.cpu import configure_cpu

WARM_UP_IMAGES = 16
LONG_STEP = 1.0  # seconds; of a step that would take longer, a part of the batch is timed
VERY_LONG_STEP = 10.0  # seconds; beside these, what the first step of a process takes longer is little
RECORDING_EPOCHS = 2  # of few steps: on a GPU a step of each kind is first made, then recorded as CUDA graphs
ENOUGH = 0.3  # seconds of training, or of evaluation, that are timed at least
PGD_STEPS = 3  # of the timed evaluation at most
ATTACKED = 0.5  # share of the images that PGD still attacks, on average over its steps and the epochs of a training
FASTER = 1.2  # how many times as fast more threads must be
NO_RADIUS = 1e-6  # within which no image is broken, so that PGD attacks all images in all steps
WITH_ALL_TERMS: dict[str, Any] = {"lambda_schedule": "constant", "awp_start": 0.0}
"""Settings with which the first epoch has all terms of the loss; some schedules add them later."""


@dataclass(frozen=True)
class Speed:
    """Seconds that the parts of an epoch take.

    Attributes:
        trained_image: Of training, for each image.
        judged_image: Of an evaluation without PGD, for each image.
        attacked_image: Of each step of PGD, for each image that it attacks.
    """

    trained_image: float
    judged_image: float
    attacked_image: float

    def of_epoch(self, num_train: int, num_judged: int, evaluation: EvaluationConfig) -> float:
        """Return the seconds of an epoch of `num_train` images with its evaluation on `num_judged` images."""
        return num_train * self.trained_image + self.of_evaluation(num_judged, evaluation)

    def of_evaluation(self, num_judged: int, evaluation: EvaluationConfig) -> float:
        """Return the seconds of an evaluation; PGD is taken to attack the share `ATTACKED` of the images."""
        steps = evaluation.steps * evaluation.restarts
        return num_judged * (self.judged_image + ATTACKED * steps * self.attacked_image)


def measure_speed(
    config: TrainingConfig,
    splits: Splits,
    *,
    model: ModelConfig,
    evaluation: EvaluationConfig,
    device: torch.device | str = "cpu",
) -> Speed:
    """Return the speed of a training run, which takes about a second to measure.

    Torch's global random state is left as it was.

    Args:
        config: The hyperparameters.
        splits: The data, of which a few images are used.
        model: The network.
        evaluation: The evaluation after each epoch.
        device: The device of all computations.
    """
    trained_image, network = _time_training(config, splits, model, evaluation, device)
    examples = splits.validation.to(device)
    return Speed(trained_image, *_time_evaluation(network, examples, evaluation, splits.num_classes))


def choose_threads(config: TrainingConfig, splits: Splits, *, model: ModelConfig, evaluation: EvaluationConfig) -> int:
    """Return the number of CPU threads on which training is fast: 1, or 2, 4, … up to torch's own choice.

    A number counts as faster from `FASTER` on, so that a small advantage, which may be chance, decides nothing. The
    last digits of a run's results depend on the number.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    best, fastest = 1, float("inf")
    count = 1
    while count <= most:
        with cpu_threads(count):
            seconds, _ = _time_training(config, splits, model, evaluation, "cpu")
        if seconds * FASTER > fastest:
            break
        best, fastest = count, seconds
        count = most if count < most < 2 * count else 2 * count
    return best


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run on `count` CPU threads, with memory kept as in processes that train; restore torch's number afterwards.

    Args:
        count: How many threads; None leaves the number to torch.
    """
    before = torch.get_num_threads()
    configure_cpu(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time_training(
    config: TrainingConfig,
    splits: Splits,
    model: ModelConfig,
    evaluation: EvaluationConfig,
    device: torch.device | str,
) -> tuple[float, nn.Module]:
    """Return the seconds per image, and the network."""

    def train(batch_size: int, num_steps: int) -> tuple[float, nn.Module]:
        few = splits.train.subset(min(batch_size * num_steps, len(splits.train)), seed=0)
        update = WITH_ALL_TERMS | {"batch_size": batch_size, "epochs": max(config.epochs, RECORDING_EPOCHS + 1)}
        trainer = Trainer(
            config.model_copy(update=update),
            dataclasses.replace(splits, train=few),
            model=model,
            evaluation=evaluation,
            device=device,
        )
        for _ in range(RECORDING_EPOCHS if trainer.graphed_step else 0):
            trainer.train_epoch()
        return float(trainer.train_epoch()["train_seconds"]), trainer.model

    batch = min(config.batch_size, len(splits.train))
    few = min(WARM_UP_IMAGES, batch)
    seconds, network = train(few, 1)  # the first step of the process
    if seconds < VERY_LONG_STEP:
        seconds, network = train(few, 1)
    if seconds > LONG_STEP:
        return seconds / few, network
    batch = max(few, min(batch, int(LONG_STEP * few / seconds)))
    train(batch, 1)  # kernels are chosen by the size of the batch
    steps = config.penalty_every
    while True:
        seconds, network = train(batch, steps)
        images = min(batch * steps, len(splits.train))
        if seconds >= ENOUGH or images == len(splits.train):
            return seconds / num_trained(images, batch), network
        steps *= max(2, min(10, int(1.5 * ENOUGH / seconds)))


def _time_evaluation(
    network: nn.Module, examples: Examples, config: EvaluationConfig, num_classes: int
) -> tuple[float, float]:
    """Return the seconds per image without PGD, and those of a step of PGD on an image.

    All images are given the class that the network sees, and a radius within which it goes on seeing it; so PGD attacks
    all of them in all steps. Then they are given another class, so that PGD attacks none.
    """
    steps = min(config.steps, PGD_STEPS)
    attack = config.model_copy(update={"steps": steps, "restarts": 1, "epsilon": NO_RADIUS})

    def judge(pixels: Tensor, labels: Tensor) -> float:
        evaluated = Examples(pixels, labels, torch.arange(len(labels), device=labels.device))
        for _ in range(2):  # kernels are chosen by the number of images: the second time counts
            started = time.perf_counter()
            evaluate(network, evaluated, attack)  # its last line waits for the device
            seconds = time.perf_counter() - started
            if seconds > LONG_STEP:
                break
        return seconds

    count = min(WARM_UP_IMAGES, len(examples))
    while True:
        pixels, _ = examples.gather(torch.arange(count, device=examples.images.device))
        with exact_evaluation(network), torch.no_grad():
            seen = network(to_float(pixels).contiguous(memory_format=torch.channels_last)).argmax(dim=1)
        with_pgd, without = judge(pixels, seen), judge(pixels, (seen + 1) % num_classes)
        if with_pgd >= ENOUGH or count == len(examples):
            return without / count, max(0.0, with_pgd - without) / (count * steps)
        count = min(len(examples), count * max(2, min(8, int(1.5 * ENOUGH / with_pgd))))
