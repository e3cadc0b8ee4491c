"""Images per second of a training step and of PGD evaluation, against the loop that the original project is written in.

    .venv/bin/python benchmarks/step.py --data-root FOLDER --output benchmarks/results

The reference, below, does what `CURE_fast_adversarial` does, with its errors mended (the penalty reaches the weights,
batch norm goes back to training mode, one radius in pixels), pass by pass as there, in the default memory format: it
judges the attack with a forward pass that nobody needs and the clean accuracy with another, finds z with two forward
passes and a backward pass of its own, takes both gradients of the penalty anew, and lets every backward pass reach the
parameters. `lean` is the same without the forward passes that are there for nothing. Reference and Trainer take turns
on the same images, two steps at a time, each in a process of its own: Python's as it is, and one as trials have;
a ratio is the median over the turns, beside its quartiles. On a GPU both compute in fp16 under autocast with a
GradScaler. Before that, both are run in float64 from the same random starts, and their weights compared.

`forwards` counts floating-point operations of a step, by torch's formulas, in those of one forward pass. `of_the_peak`
relates operations per second to those of the fastest convolution or product that the steps consist of, in the same
shapes, memory formats and threads, measured by itself in each turn; the best turn counts, so it is a bound (peak.py).
On a GPU, `of_the_bandwidth` relates the bytes of all arguments and results to those that a copy moves in the same time.
"""

import argparse
import itertools
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
import torch.nn.functional as F
from peak import Counter, Peak
from torch import Tensor, nn

from tune_cure.attacks.norms import random_start
from tune_cure.attacks.pgd import pgd
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.metrics import exact_evaluation
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.models import checkpoints
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu

EPSILON, H, LAMBDA, ALPHA = 8 / 255, 1.739, 0.1, 1.25
RUNNING = {"init": "uniform", "attack_statistics": "running", "penalty_statistics": "running", "direction": "classic"}
BATCH = {**RUNNING, "penalty_statistics": "batch"}  # the default
FROM_IMAGE = {**BATCH, "init": "zero", "attack_statistics": "batch"}
ALONG_FGSM = {**FROM_IMAGE, "direction": "fgsm"}
ONE_SIDED = {"penalty_two_sided": False}
ORIGINAL, FGSM = "the original loop", "FGSM"
TOGETHER = 2  # steps in a turn: of two, one has the penalty that is in every second
OF_THE_ORIGINAL = ("times_the_original", "times_the_original_25", "times_the_original_75")
OF_ITS_REFERENCE = ("times_its_reference", "times_its_reference_25", "times_its_reference_75")
EXACT: dict[str, dict[str, Any]] = {
    ORIGINAL: RUNNING,
    "batch statistics": BATCH,
    "batch statistics, from the image": FROM_IMAGE,
    "along FGSM, from the image": ALONG_FGSM,
}
"""What both loops can compute, two-sided."""
PARTIAL: dict[str, dict[str, Any]] = {
    "batch statistics, every 2nd step": {**BATCH, "penalty_every": 2},
    "batch statistics, on half of the batch": {**BATCH, "penalty_fraction": 0.5},
}
"""What the reference has no counterpart of."""
BESIDE: dict[str, dict[str, dict[str, Any]]] = {
    name: {
        **({FGSM: {**RUNNING, "lambda": 0.0}} if name == ORIGINAL else {}),
        name: options,
        f"{name}, one-sided": {**options, **ONE_SIDED},
        **(PARTIAL if name == "batch statistics" else {}),
    }
    for name, options in EXACT.items()
}
"""What is measured beside each exact variant, itself among them."""
VARIANTS = {name: options for group in BESIDE.values() for name, options in group.items()}
Key = tuple[str, str]
OURS, REFERENCE, LEAN, PEAK = "ours", "reference", "lean reference", "peak"
YARDSTICK: Key = (REFERENCE, ORIGINAL)


def trainer(splits: Splits, model: ModelConfig, device: torch.device, batch: int, **changes: Any) -> Trainer:
    """A Trainer of the benchmark's step."""
    values = {"lambda": LAMBDA, "h": H, "epsilon": EPSILON, "alpha": ALPHA, "lr_max": 0.05, "batch_size": batch}
    values |= {"lr_schedule": "fixed", "amp": "auto" if device.type == "cuda" else "off", **changes}
    return Trainer(TrainingConfig.model_validate(values), splits, model=model, device=device, seed=0)


class Reference:
    """The original's training step, written as there; `lean`, without the forward passes that nobody needs."""

    def __init__(self, like: Trainer, *, lean: bool = False) -> None:
        like.model.to(memory_format=torch.contiguous_format)
        self.model = like.terms.network  # under autocast on a GPU
        self.scaler = like.step.scaler
        self.config = like.config
        self.lean = lean
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.generator = torch.Generator(like.device).manual_seed(0)

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step on images `x` with labels `y`."""
        delta = torch.zeros_like(x)
        if self.config.init == "uniform":
            delta = random_start(x, EPSILON, self.generator, "linf") - x
        delta.requires_grad_()
        with STATISTICS[self.config.attack_statistics](self.model):
            F.cross_entropy(self.model(x + delta), y, reduction="sum").backward()
            assert delta.grad is not None
            delta = (delta + ALPHA * EPSILON * delta.grad.sign()).clamp(-EPSILON, EPSILON).detach()
            delta = ((x + delta).clamp(0, 1) - x).detach()
            if not self.lean:
                with torch.no_grad():
                    F.cross_entropy(self.model(x + delta), y, reduction="none")
                self.model(x)
        loss = F.cross_entropy(self.model.train()(x + delta), y)
        if self.config.lambda_:
            with STATISTICS[self.config.penalty_statistics](self.model):
                loss = loss + LAMBDA * self._penalty(x, y, delta)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _penalty(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        z = delta
        if self.config.direction == "classic":
            point = x.detach().clone().requires_grad_()
            if not self.lean:
                self.model(point)
            F.cross_entropy(self.model(point), y, reduction="sum").backward()
            assert point.grad is not None
            sign = point.grad.sign()
            z = H * sign / sign.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        self.optimizer.zero_grad()
        point = x.detach().clone().requires_grad_()
        displaced = F.cross_entropy(self.model(point + z), y, reduction="sum")
        original = F.cross_entropy(self.model(point), y, reduction="sum")
        (difference,) = torch.autograd.grad(displaced - original, point, create_graph=True)
        return difference.flatten(1).norm(dim=1).mean()


def reference_pgd(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, restarts: int, generator: torch.Generator
) -> Tensor:
    """PGD as in Wong et al.'s evaluation: all images in every step, the largest loss of all restarts kept."""
    worst, best = torch.zeros(len(y), device=y.device), torch.zeros_like(x)
    for _ in range(restarts):
        delta = (random_start(x, EPSILON, generator, "linf") - x).requires_grad_()
        for _ in range(steps):
            loss = F.cross_entropy(model(x + delta), y)
            loss.backward()
            assert delta.grad is not None
            moved = (delta.detach() + EPSILON / 4 * delta.grad.sign()).clamp(-EPSILON, EPSILON)
            delta = ((x + moved).clamp(0, 1) - x).requires_grad_()
        losses = F.cross_entropy(model(x + delta), y, reduction="none").detach()
        best[losses >= worst] = delta.detach()[losses >= worst]
        worst = torch.max(worst, losses)
    with torch.no_grad():
        return model(x + best).argmax(dim=1) == y


def check_equal(splits: Splits, model: ModelConfig, options: dict[str, Any]) -> float:
    """The largest relative difference of weights after three steps in float64 of reference and Trainer."""
    torch.set_default_dtype(torch.float64)
    try:
        ours, theirs = (trainer(splits, model, torch.device("cpu"), 16, **options) for _ in range(2))
        for one in (ours, theirs):
            one.model.double()
        reference = Reference(theirs)
        pixels, labels = splits.train.gather(torch.arange(48))
        for index, (x, y) in enumerate(zip(to_float(pixels).double().split(16), labels.split(16), strict=True)):
            ours.model.train()
            for group in ours.optimizer.param_groups:
                group["lr"] = 0.05
            ours.step(x, y, index, Stopwatch(ours.device))
            reference.step(x, y)
        pairs = zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
        return max(float((a - b).detach().abs().max() / a.detach().abs().max()) for a, b in pairs)
    finally:
        torch.set_default_dtype(torch.float32)


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    with Counter() as counter:
        run()
    return counter.operations


def num_bytes(run: Callable[[], object]) -> int:
    """Bytes of the arguments and results of all operators of a call."""
    with Counter() as counter:
        run()
    return counter.num_bytes


def make(key: Key, options: argparse.Namespace, device: torch.device) -> Callable[[], object]:
    """What a process does in a turn: a few steps of one loop."""
    kind, name = key
    model = ModelConfig(name=options.model, width=options.width)
    splits = data.load(options.data)
    one = trainer(splits, model, device, options.batch, **VARIANTS[name])
    pixels, y = one.splits.train.gather(torch.arange(options.batch, device=device))
    plain = to_float(pixels).contiguous()
    if kind == OURS:
        x, watch, steps = plain.contiguous(memory_format=torch.channels_last), Stopwatch(device), itertools.count()
        one.model.train()
        return lambda: [one.step(x, y, next(steps), watch) for _ in range(TOGETHER)]
    loop = Reference(one, lean=kind == LEAN or name == FGSM)
    return lambda: [loop.step(plain, y) for _ in range(TOGETHER)]


def work(key: Key, options: argparse.Namespace, asked: Connection) -> None:
    """A process of one loop or operation."""
    if key[0] == OURS:
        cpu.configure_cpu(options.threads)  # as a trial's process does; a script of the original's kind does not
    else:
        torch.set_num_threads(options.threads)
    answer(key, options, asked)


def answer(key: Key, options: argparse.Namespace, asked: Connection) -> None:
    """Until there are no more requests: a turn's operations, bytes or seconds, or the most memory of the process."""
    device = torch.device(options.device)
    if key[0] == PEAK:
        own = Peak([make((loop, key[1]), options, device) for loop in (OURS, REFERENCE)], device)
        answers: dict[str, Callable[[], float]] = {
            "operations_per_second": own.operations_per_second,
            "bytes_per_second": own.bytes_per_second,
        }
    else:
        answers = answers_of(make(key, options, device), device)
    with suppress(EOFError):
        while True:
            asked.send(answers[asked.recv()]())


def answers_of(run: Callable[[], object], device: torch.device) -> dict[str, Callable[[], float]]:
    """What can be asked of a process that makes steps."""
    return {
        "operations": lambda: operations(run),
        "bytes": lambda: num_bytes(run),
        "seconds": lambda: timed(run, device),
        "peak_mb": lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


Name = TypeVar("Name")


@contextmanager
def processes(
    work: Callable[[Name, argparse.Namespace, Connection], None], names: Sequence[Name], options: argparse.Namespace
) -> Iterator[Callable[[Name, str], Any]]:
    """A process for each name; gives what puts a request of `answer` to one of them."""
    spawn = multiprocessing.get_context("spawn")
    pipes = {name: spawn.Pipe() for name in names}
    started = [spawn.Process(target=work, args=(name, options, pipes[name][1])) for name in names]
    for process, (_, theirs) in zip(started, pipes.values(), strict=True):
        process.start()
        theirs.close()  # so that a process that dies is an EOFError here

    def ask(name: Name, what: str) -> Any:
        pipes[name][0].send(what)
        return pipes[name][0].recv()

    yield ask
    for ours, _ in pipes.values():
        ours.close()
    for process in started:
        process.join()


def in_turns(
    ask: Callable[[Name, str], Any], names: Sequence[Name], turns: int, between: Callable[[], None] = lambda: None
) -> dict[Name, list[float]]:
    """The seconds of each one's turns; `between` is called before each turn."""
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for turn in range(turns + 2):
        between()
        for name in names:
            took = ask(name, "seconds")
            if turn >= 2:  # the first ones find their algorithms
                seconds[name].append(took)
    return seconds


def measure_steps(options: argparse.Namespace, exact: str) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row for an exact variant in each loop, and for what is measured beside it; the bounds a second."""
    device = torch.device(options.device)
    model = ModelConfig(name=options.model, width=options.width)
    splits = data.load(options.data)
    x = to_float(splits.train.gather(torch.arange(options.batch))[0]).to(device)
    with torch.no_grad():
        forward = operations(lambda: trainer(splits, model, device, options.batch).model(x))
    ours: list[Key] = [(OURS, name) for name in BESIDE[exact]]
    plain: list[Key] = [(REFERENCE, FGSM), (LEAN, ORIGINAL)] if exact == ORIGINAL else [(REFERENCE, exact)]
    peak: Key = (PEAK, exact)
    keys = [YARDSTICK, *plain, *ours]
    bounds: dict[str, list[float]] = {"operations_per_second": [], "bytes_per_second": []}
    with processes(work, [peak, *keys], options) as ask:
        counts = {key: ask(key, "operations") for key in keys}
        moved = {key: ask(key, "bytes") for key in keys}

        def measure_bounds() -> None:
            for what, values in bounds.items():
                values.append(ask(peak, what))

        seconds = in_turns(ask, keys, options.turns, measure_bounds)
    tops = {what: max(values) for what, values in bounds.items()}
    rows = []
    for key in [*([YARDSTICK] if exact == ORIGINAL else []), *plain, *ours]:
        loop, name = key
        middle = statistics.median(seconds[key])
        row: dict[str, Any] = {"loop": loop, "step": name, "images_per_second": TOGETHER * options.batch / middle}
        row |= ratios(seconds, key, None if name == FGSM else YARDSTICK, OF_THE_ORIGINAL)
        its_own = (REFERENCE, FGSM if name == FGSM else exact)
        row |= ratios(seconds, key, None if name in PARTIAL else its_own, OF_ITS_REFERENCE)
        row["forwards"] = counts[key] / forward / TOGETHER
        row["of_the_peak"] = counts[key] / middle / tops["operations_per_second"]
        if device.type == "cuda":
            row["of_the_bandwidth"] = moved[key] / middle / tops["bytes_per_second"]
        rows.append(row)
    return pd.DataFrame(rows), tops


def ratios(
    seconds: dict[Name, list[float]], key: Name, other: Name | None, columns: tuple[str, str, str]
) -> dict[str, float]:
    """How many times as fast as another loop, turn by turn: median and quartiles; nothing where there is none."""
    if other is None:
        return dict.fromkeys(columns, math.nan)
    of_turns = [a / b for a, b in zip(seconds[other], seconds[key], strict=True)]
    low, middle, high = statistics.quantiles(of_turns, n=4, method="inclusive")
    return dict(zip(columns, (middle, low, high), strict=True))


def measure_evaluation(network: nn.Module, splits: Splits, device: torch.device, turns: int) -> pd.DataFrame:
    """PGD evaluation of a robust network, as precisely as it is always judged: two numbers of steps and restarts."""
    count = 200 if device.type == "cpu" else 1000
    pixels, y = splits.validation.to(device).gather(torch.arange(min(count, len(splits.validation)), device=device))
    x = to_float(pixels).contiguous(memory_format=torch.channels_last)
    rows = []
    for steps, restarts in ((10, 1), (20, 2)):

        def theirs() -> Tensor:
            generator = torch.Generator(device).manual_seed(0)
            return reference_pgd(network, x, y, steps, restarts, generator)  # noqa: B023 - called within the turn

        def ours() -> Tensor:
            generator = torch.Generator(device).manual_seed(0)
            found = pgd(network, x, y, EPSILON, steps=steps, restarts=restarts, generator=generator)  # noqa: B023
            with torch.no_grad():
                return network(found).argmax(dim=1) == y

        with exact_evaluation(network):
            robust = [float(run().float().mean()) for run in (theirs, ours)]
            pairs = [(timed(theirs, device), timed(ours, device)) for _ in range(turns)]
        rows.append(
            {
                "attack": f"PGD-{steps}-{restarts}",
                "images": len(y),
                "reference_accuracy": robust[0],
                "accuracy": robust[1],
                "images_per_second": len(y) / statistics.median(b for _, b in pairs),
                "times_the_reference": statistics.median(a / b for a, b in pairs),
            }
        )
    return pd.DataFrame(rows)


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which network is trained on which images, in batches of which size."""
    parser.add_argument("--data-root", default="~/.cache/tune_cure", help="where CIFAR-10 is")
    parser.add_argument("--model", default="preact_resnet18", help="the network (default: preact_resnet18)")
    parser.add_argument("--width", type=int, help="its first stage's channels")
    parser.add_argument("--batch", type=int, help="images a step (default: 32 on the CPU, 128 on a GPU)")


def main() -> None:
    """Measures all, and prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser)
    parser.add_argument("--turns", type=int, default=15, help="0: no steps are measured (default: 15)")
    parser.add_argument("--robust", type=Path, help="the best_model.pt of a search on CIFAR-10, to be attacked")
    parser.add_argument("--output", type=Path, help="a folder for step.csv and step_evaluation.csv")
    options = parser.parse_args()
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)  # now, not when all has been measured
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.batch = options.batch or (32 if options.device == "cpu" else 128)
    options.threads = torch.get_num_threads()
    options.data = DataSpec(dataset="cifar10", root=options.data_root, train_examples=1000)
    if options.turns:
        splits = data.load(options.data)
        for name, how in EXACT.items():
            difference = check_equal(splits, ModelConfig(name="preact_resnet10", width=4), how)
            print(
                f"{name}: weights differ from the reference's by {difference:.1e} at most (float64, relative)",
                flush=True,
            )
        found = []
        for exact in EXACT:
            rows, bounds = measure_steps(options, exact)
            for what, per_second in bounds.items():
                print(f"{options.device}: at most {per_second / 1e9:,.0f} G{what.replace('_', ' ')}", flush=True)
            print(rows.to_string(index=False, float_format="{:.2f}".format), flush=True)
            found.append(rows)
            if options.output:
                pd.concat(found).round(3).to_csv(options.output / "step.csv", index=False)
    if options.robust:
        device = torch.device(options.device)
        cpu.configure_cpu(None)  # both evaluations get what the process of a trial has
        network = checkpoints.load(options.robust).to(device).to(memory_format=torch.channels_last)
        evaluation = measure_evaluation(network, data.load(options.data), device, 3)
        print(evaluation.to_string(index=False, float_format="{:.3f}".format))
        if options.output:
            evaluation.to_csv(options.output / "step_evaluation.csv", index=False)


if __name__ == "__main__":
    main()
