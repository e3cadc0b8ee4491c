"""The files that a search leaves beside its journal: tables, the best configuration, the best model, a summary.

Each is replaced in one step: a reader never sees half of it. What they hold is described in docs/columns.md.
"""

import io
import json
from typing import Any

import pandas as pd
import torch
import yaml

from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import Best, SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import judged_examples
from tune_cure.utils.files import read_tensors, replace_bytes, replace_tensors, replace_text
from tune_cure.utils.formatting import format_percent, format_value

TOP = 10  # configurations in the tables for papers
LATEX = str.maketrans({"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--"} | {c: f"\\{c}" for c in "_%&#${}"})


def write_tables(result: SearchResult) -> None:
    """Writes trials, epochs (both as CSV and as Parquet), summary.json, and once there is a best trial best_config."""
    for table, parquet, frame in (
        (run_files.TRIALS_TABLE, run_files.TRIALS_PARQUET, result.trials),
        (run_files.EPOCHS_TABLE, run_files.EPOCHS_PARQUET, result.epochs),
    ):
        replace_text(result.directory / table, frame.to_csv(index=False))
        content = io.BytesIO()
        _of_one_type(frame).to_parquet(content, index=False)
        replace_bytes(result.directory / parquet, content.getvalue())
    replace_text(result.directory / run_files.SUMMARY, json.dumps(result.summary, indent=2, allow_nan=False) + "\n")
    if result.best is None:
        return
    spec, leader = result.spec, result.best
    replace_text(result.directory / run_files.BEST_CONFIG_TABLE, _best_config(spec, leader).to_csv(index=False))
    settings = {**spec.training, **leader.hyperparameters}
    header = f"# Trial {leader.trial} of {spec.name}, its best. `start_from: [THIS FILE]` begins a search with it.\n"
    replace_text(result.directory / run_files.BEST_CONFIG_SPEC, header + yaml.safe_dump(settings, sort_keys=False))


def _of_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns of mixed values, such as a choice between 8 and auto, as text: Parquet has no others."""
    mixed = [name for name, column in frame.items() if len({type(value) for value in column.dropna()}) > 1]
    return frame.assign(**{str(name): frame[name].map(str, na_action="ignore") for name in mixed})


def _best_config(spec: SearchSpec, leader: Best) -> pd.DataFrame:
    row = leader.row
    return pd.DataFrame(
        [
            {
                "trial": leader.trial,
                "status": row["status"],
                **leader.hyperparameters,
                "epoch": int(row["best_epoch"]),
                "pgd_accuracy": row["pgd_accuracy_best"],
                "pgd_accuracy_se": row["pgd_accuracy_best_se"],
                "clean_accuracy": row["clean_accuracy_best"],
                "fgsm_accuracy": row["fgsm_accuracy_best"],
                "fresh_pgd_accuracy": row["fresh_pgd_accuracy"],
                "fresh_pgd_accuracy_se": row["fresh_pgd_accuracy_se"],
                "fresh_clean_accuracy": row["fresh_clean_accuracy"],
                "fresh_examples": row["fresh_examples"],
                "evaluation_norm": spec.evaluation.norm,
                "evaluation_epsilon": spec.evaluation.epsilon,
                "evaluation_steps": spec.evaluation.steps,
                "evaluation_restarts": spec.evaluation.restarts,
                "evaluation_loss": spec.evaluation.loss,
                "evaluation_examples": judged_examples(spec),
            }
        ]
    )


def write_top_configurations(result: SearchResult) -> None:
    """Writes the first `TOP` configurations as tables for papers: top_configurations.md and .tex (for booktabs)."""
    rows = result.leaders.head(TOP)
    has_fresh = bool(rows["fresh_pgd_accuracy"].notna().any())
    titles = ["trial", *result.spec.space, "epochs", "clean (%)", "PGD (%)", *["PGD, judged again (%)"] * has_fresh]
    cells = [
        [
            str(row["trial"]),
            *(format_value(row[key]) for key in result.spec.space),
            str(row["epochs_trained"]),
            format_percent(row["clean_accuracy_best"], unit=""),
            format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"], unit=""),
            *[format_percent(row["fresh_pgd_accuracy"], row["fresh_pgd_accuracy_se"], unit="")] * has_fresh,
        ]
        for _, row in rows.iterrows()
    ]
    lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *cells]
    replace_text(result.directory / run_files.TOP_MARKDOWN, "".join(f"| {' | '.join(line)} |\n" for line in lines))
    head, *body = ([cell.translate(LATEX) for cell in line] for line in [titles, *cells])
    table = [rf"\begin{{tabular}}{{{'r' * len(titles)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    table += [" & ".join(line) + r" \\" for line in body] + [r"\bottomrule", r"\end{tabular}", ""]
    replace_text(result.directory / run_files.TOP_LATEX, "\n".join(table))


def write_best_model(result: SearchResult) -> None:
    """Writes best_model.pt, the best trial's weights, if there are some yet."""
    leader = result.best
    if leader is None:
        return
    path = Journal(result.directory).checkpoint_file(result.checkpoint) if result.checkpoint else None
    if (
        path is None or not path.exists()
    ):  # the search is just replacing it, or leads by a trial that did not lead before
        _forget_other(result, leader)
        return
    saved = read_tensors(path, torch.device("cpu"))["best_model"]
    metrics = {name: float(leader.row[f"{name}_best"]) for name in ("clean_accuracy", "pgd_accuracy")}
    found: dict[str, Any] = {"trial": leader.trial, "hyperparameters": leader.hyperparameters, "metrics": metrics}
    replace_tensors(result.directory / run_files.BEST_MODEL, {**saved, **found})


def _forget_other(result: SearchResult, leader: Best) -> None:
    """Removes the weights of a trial that leads no more."""
    file = result.directory / run_files.BEST_MODEL
    if file.exists() and read_tensors(file, torch.device("cpu")).get("trial") != leader.trial:
        file.unlink()
