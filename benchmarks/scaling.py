"""Trials per hour against how many run at a time.

    .venv/bin/python benchmarks/scaling.py --concurrent 1 2 --output benchmarks/results

Runs the space once for each number, without a scheduler, so that every trial takes the same epochs; on a GPU, 4 at a
time means a quarter of it each. The clock runs from the first trial's start to the last one's end: Ray's own start is
not in it. `start_seconds` is what passes from a trial's end until another in its place is at work, with what its first
epoch takes longer than those after (a GPU's warm-up); `epoch_seconds`, of training, judging and what is between. From
these the whole search of the space, as its file has it, is extrapolated. `images_held` sums up, over the workers, what
each holds in memory of the file of prepared images, pages that several share counted once (Linux's Pss); `images_file`
is the file's size.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
import torch
from search_overhead import gaps, summary

from tune_cure.data import splits as data
from tune_cure.data.prepared import prepare_and_map
from tune_cure.search.progress import expected_epochs
from tune_cure.search.results import SearchResult
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec

ROOT = Path(__file__).parent.parent


def held(file: Path) -> tuple[float, float]:
    """MiB that all processes hold of a mapped file: shared pages counted once, and as often as they are mapped."""
    proportional = resident = 0
    for maps in Path("/proc").glob("[0-9]*/smaps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:  # it has ended, or is another user's
            continue
        inside = False
        for line in lines:
            if "-" in line.split(" ", 1)[0]:
                inside = line.endswith(str(file))
            elif inside and line.startswith("Pss:"):
                proportional += int(line.split()[1])
            elif inside and line.startswith("Rss:"):
                resident += int(line.split()[1])
    return proportional / 1024, resident / 1024


def costs(epochs: pd.DataFrame) -> dict[str, float]:
    """Seconds of a trial's start after the first in its place, of an epoch, and of each image's training and judging.

    Epochs but the first of each trial count, all of which must have more than one.
    """
    between = gaps(epochs)
    others = epochs[epochs.duplicated("trial")]
    train, judge = others["train_seconds"].median(), others["eval_seconds"].median()
    first = epochs.loc[between.index[between["starts"]]]
    starts = between["gap"].loc[first.index] + first["train_seconds"] + first["eval_seconds"] - train - judge
    return {
        "start_seconds": max(0.0, float(starts.median())),  # less than an epoch's noise can come out below nothing
        "epoch_seconds": float(train + judge + between.loc[~between["starts"], "gap"].median()),
        "train_seconds": float(train),
        "eval_seconds": float(judge),
        "overhead_seconds": float(between.loc[~between["starts"], "gap"].median()),
    }


def extrapolated(space: Path, row: dict[str, float], ran: SearchSpec) -> str:
    """What the whole search of the space's file would take, with as many trials at a time as in the search that ran."""
    whole = specs.load(space)
    images, judged = {}, {}
    for name, one in (("ran", ran), ("whole", whole)):
        splits = data.load(one.data.model_copy(update={"root": ran.data.root}))
        images[name] = len(splits.train)
        judged[name] = min(one.evaluation.examples, len(splits.validation))
    train = row["train_seconds"] * images["whole"] / images["ran"]
    judge = row["eval_seconds"] * judged["whole"] / judged["ran"]
    epoch, epochs = train + judge + row["overhead_seconds"], expected_epochs(whole)
    seconds = (whole.search.trials * row["start_seconds"] + epochs * epoch) / row["concurrent"]
    return (
        f"extrapolated, not measured: {whole.name}, {whole.search.trials} trials, {row['concurrent']} at a time: "
        f"{seconds / 3600:.2f} h ({epochs:.0f} epochs of {images['whole']:,} images, {epoch:.1f} s each, if at each "
        f"rung one trial in {whole.asha.reduction_factor:g} goes on; {row['start_seconds']:.1f} s a start). Networks "
        "that are more robust than these, of few epochs, take longer to judge."
    )


def measure(space: Path, concurrent: int, trials: int, arguments: list[str]) -> dict[str, float]:
    """One search with so many trials at a time."""
    changes = [
        "search.scheduler=none",
        "asha.grace_period=1",
        f"search.trials={trials}",
        f"resources.concurrent={concurrent}",
    ]
    if torch.cuda.is_available():
        changes.append(f"resources.gpus_per_trial={1 / concurrent}")
    given = [word for change in changes for word in ("--set", change)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run_search.py"), "--space", str(space), "--output", f"{folder}/run"]
        process = subprocess.Popen([*command, *given, *arguments], stdout=subprocess.DEVNULL)
        spec_file = Path(folder, "run", "spec.yaml")
        most, ended = (0.0, 0.0), threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(1.0):
                if spec_file.exists():
                    of = specs.load(spec_file).data
                    most = max(most, held(prepare_and_map(of.dataset, of.folder, of.image_size, True)[0]))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        ended.set()
        watcher.join()
        if code:
            raise SystemExit(f"the search ended with exit code {code}")
        result = SearchResult(f"{folder}/run")
        row = summary(result).iloc[0]
        of = result.spec.data
        file = prepare_and_map(of.dataset, of.folder, of.image_size, True)[0]
        made = {
            "concurrent": concurrent,
            "trials": trials,
            "seconds": row["seconds"],
            "trials_per_hour": 3600 * trials / row["seconds"],
            "images_per_second": float(result.epochs["images_per_second"].mean()) * concurrent,
            "share_in_training_and_judging": row["share_in_training_and_judging"],
            "images_file": file.stat().st_size / 2**20,
            "images_held": most[0],
            "images_mapped": most[1],
            **costs(result.epochs),
        }
        print(extrapolated(space, made, result.spec), flush=True)
        return made


def main() -> None:
    """Measures each number and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=ROOT / "search_spaces" / "quickstart.yaml", help="what to search")
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 2], help="trials at a time")
    parser.add_argument("--trials", type=int, help="in each search (default: twice as many as run at a time)")
    parser.add_argument("--output", type=Path, help="a folder for scaling.csv")
    parser.add_argument("arguments", nargs="*", help="for the searches, after --")
    options = parser.parse_args()
    rows = []
    for concurrent in options.concurrent:
        rows.append(measure(options.space, concurrent, options.trials or 2 * concurrent, options.arguments))
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format), flush=True)
        if options.output:
            pd.DataFrame(rows).to_csv(options.output / "scaling.csv", index=False)


if __name__ == "__main__":
    main()
