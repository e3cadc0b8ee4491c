"""All measurements that a GPU is needed for, in parts of known length; each writes its table at once.

    python benchmarks/gpu.py first --data-root FOLDER --output FOLDER      # at most 7 minutes
    python benchmarks/gpu.py second --data-root FOLDER --output FOLDER     # at most 8 minutes
    python benchmarks/gpu.py steps pgd --data-root FOLDER --output FOLDER  # parts by name
    python benchmarks/gpu.py all --small --output FOLDER                   # a small network, to see that it works

A part runs in a process of its own, which is ended at the part's limit; the others run if one fails, and the exit code
is then 1. The part NAME writes gpu_NAME.csv; gpu.csv has the seconds of all. The parts:

versions   the machine, its GPU and the packages
tests      the tests that are marked gpu
syncs      steps of each kind, in which waiting for the GPU is an error
gradients  CURE's penalty and its parameter gradient in float32, TF32, fp16 and bf16, against float64 on the CPU
batch_norm the second derivatives of batch norm as Triton kernels and by PyTorch's operations
steps      images a second, the host's and the GPU's milliseconds and the peak memory of four steps and the original's
pgd        a forward and a backward pass of a judging attack: sizes of batches, memory formats, precisions
memory     what the largest trial of search_spaces/cure.yaml takes of the GPU
accuracy   seconds from a cold process to 45% PGD-50-10: FGSM alone, and with a penalty in every fourth step
scaling    trials an hour with 1, 2, 3 and 8 at a time
search     a short search with gpus_per_trial auto: what it chose, and its trials

tune_cure need not be installed: the checkout that holds this file is used, with the Python that runs it.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SMALL = {"model": "preact_resnet10", "width": 4, "batch": 16}
LARGE = {"model": "preact_resnet18", "width": None, "batch": 128}
FIRST = {
    "versions": 20,
    "tests": 100,
    "syncs": 40,
    "gradients": 30,
    "batch_norm": 20,
    "steps": 90,
    "pgd": 60,
    "memory": 40,
}
SECOND = {"accuracy": 200, "scaling": 90, "search": 140}
PARTS = {**FIRST, **SECOND}
"""The parts, functions of gpu_parts.py, and the seconds after which each is ended."""
RUNS = {"first": list(FIRST), "second": list(SECOND), "all": list(PARTS)}


def write_rows(name: str, options: argparse.Namespace) -> None:
    """Make a part's rows; the table is written anew with each of them."""
    import gpu_parts  # imports torch, which this process needs, but not the one that started it
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for row in getattr(gpu_parts, name)(options):
        rows.append(row)
        print("  ".join(f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()), flush=True)  # fmt: skip
        pd.DataFrame(rows).to_csv(options.output / f"gpu_{name}.csv", index=False)


def run_part(name: str, arguments: list[str], limit: float) -> tuple[float, str]:
    """Run a part in a process of its own; return its seconds and how it ended."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(Path(__file__)), name, *arguments, "--alone"]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(limit)
        outcome = "done" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # with the processes that it has started
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        outcome = f"ended at its limit of {limit:.0f} s"
    return time.perf_counter() - started, outcome


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, with the sizes that go with --small."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="+", choices=[*RUNS, *PARTS], metavar="PART", help="first, second, all, or names"
    )
    parser.add_argument("--data-root", help="where CIFAR-10 is")
    parser.add_argument("--output", type=Path, required=True, help="a folder for the tables")
    parser.add_argument("--small", action="store_true", help="a small network on few images")
    parser.add_argument("--slack", type=float, default=1.0, help="multiplies the limits, on a slow machine")
    parser.add_argument("--no-profiler", action="store_true", help="leave the kernels' milliseconds out")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # this process is that of a part
    options = parser.parse_args(arguments)
    for name, value in (SMALL if options.small else LARGE).items():
        setattr(options, name, value)
    options.output = options.output.absolute()
    return options


def main() -> int:
    """Run the parts one after another, and say how each ended; 1 if one failed."""
    options = parse(sys.argv[1:])
    options.output.mkdir(parents=True, exist_ok=True)
    if options.alone:
        write_rows(options.parts[0], options)
        return 0
    names = [name for part in options.parts for name in RUNS.get(part, [part])]
    arguments = ["--output", str(options.output), *(["--data-root", options.data_root] if options.data_root else [])]
    arguments += ["--small"] * options.small + ["--no-profiler"] * options.no_profiler
    lines = ["part,seconds,outcome"]
    for name in names:
        limit = options.slack * PARTS[name]
        print(f"== {name}, at most {limit:.0f} s", flush=True)
        seconds, outcome = run_part(name, arguments, limit)
        print(f"== {name}: {seconds:.1f} s, {outcome}", flush=True)
        lines.append(f"{name},{seconds:.1f},{outcome}")
        (options.output / "gpu.csv").write_text("\n".join(lines) + "\n")
    return int(any(not line.endswith(",done") for line in lines[1:]))


if __name__ == "__main__":
    sys.exit(main())
