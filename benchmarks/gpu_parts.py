"""The parts of gpu.py: each yields the rows of a table."""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import pickle
import platform
import shutil
import statistics as stats
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import step
import torch
import torch.nn.functional as F
from torch import Tensor

from tune_cure.attacks.pgd import filled_up
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.metrics import BATCH_SIZE
from tune_cure.gradients import batch_norm as gradients_of_batch_norm
from tune_cure.gradients.backward_scope import input_gradients_only
from tune_cure.gradients.batch_norm import find_kernels
from tune_cure.gradients.double_backward import cheap_second_derivatives
from tune_cure.gradients.input_gradients import Forward
from tune_cure.gradients.mixed_precision import (
    amp_dtype,
    full_float32,
    low_precision,
    tf32_products,
    training_float32,
)
from tune_cure.models.networks import build
from tune_cure.ray_backend.gpus.memory import measure as measure_memory
from tune_cure.ray_backend.gpus.sharing import TimedRun
from tune_cure.regularizers.cure import cure_penalty
from tune_cure.search.space import loading
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.config import ModelConfig
from tune_cure.training.cuda_graphs import graphed_step
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer
from tune_cure.utils import environment

ROOT = Path(__file__).parent.parent
FOUR = ("batch statistics", "batch statistics, one-sided", "along FGSM, from the image, one-sided", "FGSM")
"""The steps that are measured, by their names in step.py; the first is the default."""
Rows = Iterator[dict[str, Any]]
if "simcuda" in sys.modules:  # on a simulated GPU numbers are garbage, and no check of a recorded step would ever end
    graphed_step.compare = lambda *_: None


def versions(options: argparse.Namespace) -> Rows:
    """The machine, its GPU and the packages."""
    properties = torch.cuda.get_device_properties(0)
    yield {"what": "GPU", "is": properties.name}
    yield {"what": "its memory in GiB", "is": round(properties.total_memory / 2**30, 1)}
    yield {"what": "its multiprocessors", "is": properties.multi_processor_count}
    yield {"what": "CUDA", "is": torch.version.cuda}
    yield {"what": "cuDNN", "is": torch.backends.cudnn.version()}
    yield {"what": "MPS", "is": os.path.exists(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))}
    yield {"what": "CPU cores", "is": os.cpu_count()}
    yield {"what": "python", "is": platform.python_version()}
    yield from ({"what": name, "is": environment.version(name)} for name in (*environment.PACKAGES, "triton"))


def tests(options: argparse.Namespace) -> Rows:
    """The tests that are marked gpu, a row for each."""
    chosen = ["-m", "gpu", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", "tests"]
    command = [sys.executable, "-m", "pytest", *chosen]
    process = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(process.stdout, flush=True)
    words = [line.split(" - ")[0].split(maxsplit=1) for line in process.stdout.splitlines()]
    for outcome, name in (found for found in words if len(found) == 2 and "::" in found[1]):
        yield {"test": name, "outcome": outcome}
    if process.returncode:
        raise SystemExit(f"pytest ended with exit code {process.returncode}")


def loops(options: argparse.Namespace, *, original: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """Steps to be made again and again, by their names: the original's loop unless it is left out, and the four."""
    device = torch.device("cuda")
    splits = images_of(options)
    model = ModelConfig(name=options.model, width=options.width)

    def trainer(name: str) -> Trainer:
        return step.trainer(splits, model, device, options.batch, **step.VARIANTS[name])

    def begin(name: str) -> tuple[Trainer, Tensor, Tensor]:
        one = trainer(name)
        pixels, labels = one.splits.train.gather(torch.arange(options.batch, device=device))
        return one, to_float(pixels), labels

    if original:
        one, images, labels = begin(step.ORIGINAL)
        loop = step.Reference(one)
        plain = images.contiguous()
        yield f"original, {step.ORIGINAL}", lambda: loop.step(plain, labels)
    for name, graphed in itertools.product(FOUR, (False, True)):
        one, images, labels = begin(name)
        one.model.train()
        inputs = images.contiguous(memory_format=torch.channels_last)
        yield f"{name}, {'graphs' if graphed else 'eager'}", repeated(one, inputs, labels, graphed=graphed)


def repeated(trainer: Trainer, images: Tensor, labels: Tensor, *, graphed: bool) -> Callable[[], object]:
    """The steps of a Trainer on the same images, as CUDA graphs if asked for."""
    watch, numbers = Stopwatch(trainer.device), itertools.count()
    step = trainer.graphed_step if graphed else trainer.step
    assert step is not None

    def make() -> None:
        step(images, labels, next(numbers), watch)
        if graphed and trainer.graphed_step and trainer.graphed_step.obstacle:
            raise RuntimeError(f"no CUDA graphs: {trainer.graphed_step.obstacle}")

    return make


def images_of(options: argparse.Namespace) -> Splits:
    """CIFAR-10's images; with --small, those of digits."""
    if options.small:
        return data.load(DataSpec(dataset="digits", image_size=32, validation=100, train_examples=256))
    return data.load(DataSpec(dataset="cifar10", root=options.data_root, train_examples=1000))


def syncs(options: argparse.Namespace) -> Rows:
    """Steps in which waiting for the GPU is an error."""
    waits = 0
    for name, make in loops(options, original=False):
        for _ in range(4):  # optimizer states and caches come to be, and a step is recorded
            make()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        outcome = "never waits"
        try:
            for _ in range(3):
                make()
        except RuntimeError as error:
            waits += 1
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "tune_cure" in frame.filename]
            outcome = f"waits at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else str(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield {"step": name, "outcome": outcome}
    if waits:
        raise SystemExit(f"{waits} kinds of steps wait for the GPU")


def gradients(options: argparse.Namespace) -> Rows:
    """The penalty and its parameter gradient against float64 on the CPU, by precision."""
    splits = images_of(options)
    pixels, labels = splits.train.gather(torch.arange(32))
    torch.manual_seed(0)
    network = build(
        "preact_resnet10", num_classes=splits.num_classes, in_channels=splits.in_channels, mean=list(splits.mean),
        std=list(splits.std), width=16,
    )  # fmt: skip

    def penalty(mode: str, statistics: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
        model = network.to(device, dtype)
        low, loss_scale = low_precision(model, device, amp_dtype(mode, device))
        images = to_float(pixels).to(device, dtype).contiguous(memory_format=torch.channels_last)
        with training_float32(mode, device):
            values = cure_penalty(low, images, labels.to(device), 1.739, statistics=statistics, loss_scale=loss_scale)
            slopes = torch.autograd.grad(values.mean() * loss_scale, list(model.parameters()))
        flat = torch.cat([slope.flatten() for slope in slopes]) / loss_scale
        return values.detach().double().cpu(), flat.double().cpu()

    for statistics in ("running", "batch"):
        exact = penalty("off", statistics, torch.device("cpu"), torch.float64)
        for mode in ("off", "tf32", "fp16", "bf16"):
            found = penalty(mode, statistics, torch.device("cuda"), torch.float32)
            yield {
                "statistics": statistics,
                "amp": mode,
                "error_of_the_mean": float((found[0].mean() / exact[0].mean() - 1).abs()),
                "median_error": float(((found[0] - exact[0]).abs() / exact[0]).median()),
                "error_of_the_gradient": float((found[1] - exact[1]).norm() / exact[1].norm()),
                "cosine_of_the_gradient": float(F.cosine_similarity(found[1], exact[1], dim=0)),
            }


def batch_norm(options: argparse.Namespace) -> Rows:
    """Second derivatives of the batch norms of a PreActResNet18 in fp16, with Triton kernels and without."""
    number = 3 if options.small else 50
    width = options.width or 64
    for shape in ((options.batch, width * 2**stage, 32 // 2**stage, 32 // 2**stage) for stage in range(4)):
        images, grad_output, direction = (
            torch.randn(shape, device="cuda").half().contiguous(memory_format=torch.channels_last) for _ in range(3)
        )
        variables = [tensor.requires_grad_() for tensor in (grad_output, images, torch.rand(shape[1], device="cuda"))]

        def milliseconds(
            variables: list[Tensor] = variables, direction: Tensor = direction, *, kernels: bool
        ) -> float | None:
            grad_output, images, weight = variables
            if kernels and find_kernels(images) is None:
                return None
            with contextlib.nullcontext() if kernels else without_kernels(), cheap_second_derivatives():
                result = F.batch_norm(images, None, None, weight, torch.zeros_like(weight), training=True)
                with input_gradients_only():
                    (first,) = torch.autograd.grad(result, images, grad_output, create_graph=True)
            for count in (number, number):  # the first turn is not timed
                torch.cuda.synchronize()
                started = time.perf_counter()
                for _ in range(count):
                    torch.autograd.grad(first, variables, direction, retain_graph=True)
                torch.cuda.synchronize()
            return 1000 * (time.perf_counter() - started) / number

        yield {
            "images": "x".join(str(size) for size in shape),
            "megabytes_of_a_tensor": images.nbytes / 1e6,
            "kernels_ms": milliseconds(kernels=True),
            "operations_ms": milliseconds(kernels=False),
        }


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Batch norm finds no Triton kernels."""
    found = gradients_of_batch_norm.find_kernels
    gradients_of_batch_norm.find_kernels = lambda images: None
    try:
        yield
    finally:
        gradients_of_batch_norm.find_kernels = found


def steps(options: argparse.Namespace) -> Rows:
    """Speed of the original's loop, of the four steps, and of the first of them without Triton."""
    with without_kernels():
        yield from timed(options, itertools.islice(loops(options, original=False), 2), ", without Triton")
    yield from timed(options, loops(options, original=True))


def timed(options: argparse.Namespace, loops: Iterable[tuple[str, Callable[[], object]]], words: str = "") -> Rows:
    """Time loops; `words` follow their names in the table."""
    number, turns = (3, 2) if options.small else (20, 5)
    for name, make in loops:
        for _ in range(number):
            make()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        host, whole = [], []
        for _ in range(turns):
            started = time.perf_counter()
            for _ in range(number):
                make()
            host.append((time.perf_counter() - started) / number)
            torch.cuda.synchronize()
            whole.append((time.perf_counter() - started) / number)
        yield {
            "step": name + words,
            "images_per_second": options.batch / stats.median(whole),
            "step_ms": 1000 * stats.median(whole),
            "host_ms": 1000 * stats.median(host),
            "kernel_ms": None if options.no_profiler else kernel_ms(make, number),
            "peak_mb": torch.cuda.max_memory_allocated() / 2**20,
        }


def kernel_ms(make: Callable[[], object], number: int) -> float:
    """Milliseconds of a step that the GPU spends in kernels."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        for _ in range(number):
            make()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in found.key_averages()) / 1000 / number


def pgd(options: argparse.Namespace) -> Rows:
    """A pass of the judging attack: batches that shrink, memory formats, precisions, cuDNN's own search."""
    most = 40 if options.small else BATCH_SIZE
    shrinking = [most - index * most // 40 for index in range(40)]
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    images = torch.rand(most, 3, 32, 32, device="cuda")
    labels = torch.zeros(most, dtype=torch.long, device="cuda")
    rows = torch.arange(most, device="cuda")

    def measure(layout: str, precision: str, *, fill: bool, search: bool) -> dict[str, Any]:
        torch.backends.cudnn.benchmark = search
        network = build("preact_resnet18", num_classes=10, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3,
                        width=options.width).cuda().eval()  # fmt: skip
        network.to(memory_format=formats[layout])
        inputs = images.contiguous(memory_format=formats[layout])

        def make(count: int) -> None:
            chosen = filled_up(rows[:count], most) if fill else rows[:count]
            with full_float32():
                forward = Forward.of(network, inputs[chosen])
                with tf32_products() if precision == "tf32" else contextlib.nullcontext():
                    forward.gradient(labels[chosen])

        def seconds(counts: list[int]) -> float:
            torch.cuda.synchronize()
            started = time.perf_counter()
            for count in counts:
                make(count)
            torch.cuda.synchronize()
            return time.perf_counter() - started

        cold, warm = seconds(shrinking), seconds(shrinking)
        whole = seconds([most] * 5) / 5
        torch.backends.cudnn.benchmark = False
        return {
            "memory_format": layout,
            "gradients": precision,
            "filled_up": fill,
            "cudnn_benchmark": search,
            "shrinking_first_seconds": cold,
            "shrinking_again_seconds": warm,
            "images_per_second": most / whole,
        }

    yield measure("channels_last", "tf32", fill=True, search=False)
    yield measure("channels_last", "tf32", fill=False, search=False)
    yield measure("channels_last", "ieee", fill=True, search=False)
    yield measure("contiguous", "tf32", fill=True, search=False)
    yield measure("contiguous", "ieee", fill=True, search=False)
    yield measure("channels_last", "tf32", fill=True, search=True)


def memory(options: argparse.Namespace) -> Rows:
    """What the largest trial of the search on CIFAR-10 takes of the GPU."""
    measured, _ = measure_memory(small_or_whole(options))
    yield {
        "gpu_gib": measured.total / 2**30,
        "trial_gib": measured.trial / 2**30,
        "fit": measured.fit,
        **measured.hyperparameters,
    }


def accuracy(options: argparse.Namespace) -> Rows:
    """Seconds to a given accuracy, by time_to_accuracy.py: FGSM alone, and with a penalty in every fourth step."""
    along = ["--set", "init=zero", "--set", "attack_statistics=batch"]
    kinds = {
        "fgsm": [*along, "--set", "lambda=0", "--set", "epochs=15"],
        "every_fourth": [*along, "--set", "penalty_every=4", "--set", "direction=fgsm", "--set", "epochs=15",
                         "--set", "penalty_two_sided=false"],
    }  # fmt: skip
    sizes = ["--examples", "2000"]
    if options.small:
        sizes = [
            "--dataset",
            "digits",
            "--examples",
            "20",
            "--train-images",
            "64",
            "--model",
            "small_cnn",
            "--width",
            "4",
        ]
    for name, how in kinds.items():
        few = ["--set", "epochs=1", "--set", "batch_size=16"] if options.small else []
        run_script("time_to_accuracy.py", options, "--name", f"gpu_{name}", *sizes, *how, *few)
        row = pd.read_csv(options.output / f"time_to_accuracy_gpu_{name}.csv").iloc[0].to_dict()
        yield {"training": name, **row}


def scaling(options: argparse.Namespace) -> Rows:
    """Images a second of the first trial of the search on CIFAR-10, with several of them at a time."""
    numbers = (1, 2) if options.small else (1, 2, 3, 8)
    spec = small_or_whole(options)
    config = pickle.dumps(spec.training_config(spec.start_from[0]))
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(numbers[-1])]
    processes = [spawn.Process(target=time_run, args=(theirs, spec, config), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    starts = [ours.recv() for ours, _ in pipes]
    images = len(data.load(spec.data).train) * spec.max_epochs
    for number in numbers:
        for ours, _ in pipes[:number]:
            ours.send(1.0 if options.small else 6.0)
        rates = [ours.recv() for ours, _ in pipes[:number]]
        yield {
            "at_a_time": number,
            "images_per_second": sum(rates),
            "trials_per_hour": 3600 * sum(rates) / images,  # of training to the last epoch, without the judging
            "seconds_to_start_together": max(starts),
        }
    for ours, _ in pipes:
        ours.close()


def time_run(asked: Connection, spec: SearchSpec, config: bytes) -> None:
    """A process of `scaling`: says how long it took to start, then, as often as asked, its images a second."""
    started = time.perf_counter()
    run = TimedRun(spec, config, None)
    asked.send(time.perf_counter() - started)
    with contextlib.suppress(EOFError):
        while True:
            asked.send(run.images_per_second(asked.recv()))


def search(options: argparse.Namespace) -> Rows:
    """A short search on the GPU as users run one, with gpus_per_trial auto: its lines and its trials."""
    folder = options.output / "gpu_search"
    shutil.rmtree(folder, ignore_errors=True)
    settings = ["training.epochs=2", "search.trials=4", "rescore.top=0", "asha.grace_period=1"]
    settings += small_settings(options) or ["data.train_examples=5000", "evaluation.examples=500"]
    given = [word for setting in settings for word in ("--set", setting)]
    root = [] if options.small else ["--data-root", str(options.data_root)]
    words = ["--space", str(ROOT / "search_spaces" / "cure.yaml"), "--output", str(folder), *root, *given]
    subprocess.run([sys.executable, str(ROOT / "run_search.py"), *words], check=True)
    columns = ["trial", "status", "pgd_accuracy_best", "epochs_trained", "train_seconds", "eval_seconds"]
    table = pd.read_csv(folder / "trials.csv")
    yield from table[[name for name in columns if name in table]].to_dict("records")


def small_settings(options: argparse.Namespace) -> list[str]:
    """Settings of a search that make it small; none without --small."""
    if not options.small:
        return []
    settings = ["data={dataset: digits, image_size: 32, validation: 100, train_examples: 200}"]
    settings += ["model={name: preact_resnet10, width: 4}", "training.batch_size=16", "evaluation.examples=50"]
    return [*settings, "resources.cpus_per_trial=1"]


def small_or_whole(options: argparse.Namespace) -> SearchSpec:
    """The search on CIFAR-10; with --small, a small one of the same kind."""
    root = [f"data.root={options.data_root}"] if options.data_root else []
    return loading.load(ROOT / "search_spaces" / "cure.yaml", small_settings(options) or root)


def run_script(name: str, options: argparse.Namespace, *words: str) -> None:
    """Run another script of this folder on the same data, into the same folder."""
    root = ["--data-root", str(options.data_root)] if options.data_root else []
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--output", str(options.output), *root, *words]
    subprocess.run(command, check=True)
