"""Checks of the CUDA code on a simulated GPU, which counts kernels and computes nothing: see `make test-cuda-sim`.

    bash SIMULATOR/run.sh benchmarks/simulated_cuda.py options syncs capture launches [--output FOLDER]

options   two epochs of every option that takes a way of its own through the code; warnings are errors
syncs     the host waits for the GPU as often in an epoch of few steps as in one of many
capture   a step of each kind is recorded as CUDA graphs
launches  kernels and host milliseconds of a step, ours and the original's loop; writes simulated_launches.csv

Values on the device are garbage, so nothing is compared. Host times are this processor's, without the driver's share.
"""

import argparse
import itertools
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import simcuda  # of the simulator
import step
import torch

from tune_cure.attacks.registry import ATTACKS, NORMS
from tune_cure.data.batches import to_float
from tune_cure.data.source import Augmentation
from tune_cure.data.splits import Examples, Splits
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.regularizers.directions import DIRECTIONS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.cuda_graphs import graphed_step
from tune_cure.training.interactions import find_conflict
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.sections import AMP_MODES
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer
from tune_cure.utils.schema import choices

graphed_step.compare = lambda *_: None  # numbers are garbage, and no check of a recorded step would ever end
BATCH = 16
SMALL = ModelConfig(name="preact_resnet10", width=8)
LARGE = ModelConfig(name="preact_resnet18")
TERMS: dict[str, dict[str, Any]] = {
    "trades": {"clean_weight": 1.0, "trades_weight": 6.0, "adversarial_weight": 0.0},
    "mart": {"boosted_weight": 1.0, "mart_weight": 5.0},
    "hat, label smoothing": {"hat_weight": 0.5, "label_smoothing": 0.1},
    "penalty of half of the batch": {"penalty_fraction": 0.5},
    "penalty in every 2nd step": {"penalty_every": 2},
    "penalty squared, divided by h": {"penalty_squared": True, "penalty_divide_by_h": True},
    "no momentum": {"momentum": 0.0},
    "nesterov": {"nesterov": True},
    "cutout": {"cutout": 8},
    "decay of matrices alone": {"decay_vectors": False},
    "the margin, by PGD": {"attack": "pgd", "attack_statistics": "batch"},
}
"""What no registry lists."""


def random_images(count: int) -> Splits:
    """So many random training images of ten classes, 3×32×32."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count + 40, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count + 40,), generator=generator)
    train, validation, test = (
        Examples(pixels, labels, rows) for rows in torch.arange(count + 40).split([count, 20, 20])
    )
    return Splits(
        train=train, validation=validation, test=test, has_own_test=True, classes=tuple("0123456789"),
        mean=(0.5,) * 3, std=(0.25,) * 3,
        augmentation=Augmentation(padding=4, flip=True), source="random images",
    )  # fmt: skip


def combinations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and hyperparameters of all that is tried."""
    penalties = [{"regularizer": name} for name in REGULARIZERS if name != "cure"]
    penalties += [{"regularizer": "cure", "direction": name} for name in DIRECTIONS]
    for amp, penalty, mode, two_sided in itertools.product(AMP_MODES[1:], penalties, STATISTICS, (True, False)):
        yield name_of({"amp": amp, **penalty, "penalty_statistics": mode, "penalty_two_sided": two_sided})
    inits = choices(TrainingConfig.model_fields["init"])
    for norm, attack, init in itertools.product(NORMS, ATTACKS, inits):
        yield name_of({"norm": norm, "epsilon": 0.03 if norm == "linf" else 0.5, "attack": attack, "init": init})
    for optimizer, clip, amp in itertools.product(OPTIMIZERS, (0.0, 1.0), ("fp16", "off")):
        yield name_of({"optimizer": optimizer, "gradient_clip": clip, "amp": amp})
    for key, field in TrainingConfig.model_fields.items():
        yield from (name_of({field.alias or key: value}) for value in choices(field))
    yield from TERMS.items()
    yield from ((f"{name}, {amp}", {**how, "amp": amp}) for name, how in step.EXACT.items() for amp in ("fp16", "bf16"))


def name_of(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Hyperparameters with a name that lists them."""
    return ", ".join(f"{key} {value}" for key, value in values.items()), values


def make_trainer(images: int, model: ModelConfig, batch: int, values: dict[str, Any]) -> Trainer | None:
    """A Trainer on the GPU; None if the hyperparameters conflict."""
    config = TrainingConfig.model_validate({"batch_size": batch, "lr_schedule": "fixed", "epochs": 3, **values})
    if find_conflict(config):
        return None
    return Trainer(config, random_images(images), model=model, device="cuda", seed=0)


def options(arguments: argparse.Namespace) -> int:
    """The number of combinations of which two epochs fail."""
    failed = ran = left_out = 0
    for name, values in combinations():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                trainer = make_trainer(2 * BATCH + 5, SMALL, BATCH, values)
                for _ in range(2 if trainer else 0):
                    trainer.train_epoch()
            ran += trainer is not None
        except Exception as error:  # of any kind: the others are tried, too
            if "cusolver" in str(error):  # singular values, which the simulator does not know
                left_out += 1
                continue
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
            traceback.print_exc(limit=-4)
    print(f"options: {ran} ran, {failed} failed, {left_out} cannot be simulated")
    return failed


def count_waits(steps: int, values: dict[str, Any], *, graphed: bool) -> Counter[tuple[str, str]]:
    """What made the host wait in the second epoch of so many steps, and where; copies to the GPU are queued."""
    trainer = make_trainer(steps * BATCH, SMALL, BATCH, values)
    assert trainer is not None
    if not graphed:
        trainer.graphed_step = None
    trainer.train_epoch()
    simcuda.reset()
    trainer.train_epoch()
    return Counter({place: count for place, count in simcuda.waits.items() if "H2D" not in place[0]})


def syncs(arguments: argparse.Namespace) -> int:
    """The number of kinds of steps that wait for the GPU."""
    failed = 0
    for (name, values), graphed in itertools.product(step.VARIANTS.items(), (False, True)):
        more = count_waits(8, values, graphed=graphed) - count_waits(4, values, graphed=graphed)
        failed += bool(more)
        print(f"syncs: {name}, {'graphs' if graphed else 'eager'}: {'waits' if more else 'no step waits'}")
        for (call, place), count in more.items():
            print(f"    {count} × {call} at {place}")
    return failed


def capture(arguments: argparse.Namespace) -> int:
    """The number of kinds of steps that cannot be recorded as CUDA graphs."""
    failed = 0
    kinds = {**step.VARIANTS, **{f"optimizer {name}": {"optimizer": name} for name in OPTIMIZERS}, **TERMS}
    kinds |= {f"amp {amp}": {"amp": amp} for amp in AMP_MODES[1:]}
    kinds |= {f"attack {attack}": {"attack": attack} for attack in ATTACKS}
    for name, values in kinds.items():
        trainer = make_trainer(8 * BATCH, SMALL, BATCH, values)  # of each kind of step there are three at least
        if trainer is None or trainer.graphed_step is None:
            print(f"capture: {name}: {'conflicts' if trainer is None else 'has no graphs'}")
            continue
        trainer.train_epoch()
        is_recorded = trainer.graphed_step.num_replays > 0
        failed += not is_recorded
        print(f"capture: {name}: {'recorded' if is_recorded else trainer.graphed_step.obstacle or 'not recorded'}")
    return failed


def prepared_step(
    values: dict[str, Any], model: ModelConfig, batch: int, *, graphed: bool = False
) -> tuple[Trainer, Callable[[], object]]:
    """A step of a Trainer, always on the same images, as CUDA graphs if asked for."""
    trainer = make_trainer(batch, model, batch, values)
    assert trainer is not None
    trainer.model.train()
    pixels, labels = trainer.splits.train.gather(torch.arange(batch, device="cuda"))
    images = to_float(pixels).contiguous(memory_format=torch.channels_last)
    watch, numbers = Stopwatch(trainer.device), itertools.count()
    make = trainer.graphed_step if graphed else trainer.step
    assert make is not None
    return trainer, lambda: make(images, labels, next(numbers), watch)


def launches(arguments: argparse.Namespace) -> int:
    """0; prints and writes the table of launches."""
    rows = []
    loops: dict[str, Callable[[], object]] = {}
    for name, values in step.VARIANTS.items():
        loops[f"ours, {name}"] = prepared_step(values, arguments.model, arguments.batch)[1]
    loops["ours, batch statistics, graphs"] = prepared_step(step.BATCH, arguments.model, arguments.batch, graphed=True)[
        1
    ]
    for name, values in step.EXACT.items():
        trainer, _ = prepared_step(values, arguments.model, arguments.batch)
        pixels, labels = trainer.splits.train.gather(torch.arange(arguments.batch, device="cuda"))
        images = to_float(pixels).contiguous()
        reference = step.Reference(trainer)
        loops[f"the original's way, {name}"] = lambda loop=reference, x=images, y=labels: loop.step(x, y)
    for name, make in loops.items():
        for _ in range(3):
            make()
        simcuda.reset()
        torch.cuda.reset_peak_memory_stats()
        milliseconds = []
        for _ in range(arguments.steps):
            started = time.process_time()
            make()
            milliseconds.append(1000 * (time.process_time() - started))
        rows.append(
            {
                "step": name,
                "launches": round(simcuda.launches() / arguments.steps),
                "library_calls": round(simcuda.stubbed.total() / arguments.steps),
                "host_ms": round(statistics.median(milliseconds), 2),
                "copies_of_format": round(simcuda.copies.total() / arguments.steps),
                "peak_mb": round(torch.cuda.max_memory_allocated() / 2**20),
            }
        )
        print("launches:", "  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        if arguments.output:
            pd.DataFrame(rows).to_csv(arguments.output / "simulated_launches.csv", index=False)
    return 0


PARTS = {"options": options, "syncs": syncs, "capture": capture, "launches": launches}


def main() -> int:
    """Run the parts; 1 if one found a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--small", action="store_true", help="launches of a small network")
    parser.add_argument("--batch", type=int, default=128, help="images in a step whose launches are counted")
    parser.add_argument("--steps", type=int, default=5, help="steps whose launches are counted")
    parser.add_argument("--output", type=Path, help="a folder for the table")
    arguments = parser.parse_args()
    arguments.model = SMALL if arguments.small else LARGE
    faults = {part: PARTS[part](arguments) for part in arguments.parts}
    print("faults:", ", ".join(f"{part} {count}" for part, count in faults.items()))
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
