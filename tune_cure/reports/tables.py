"""Files that a search leaves beside its journal: tables, summary, the best configuration and the best model.

Each file is replaced in one step, so that a reader never sees half of it. docs/columns.md describes the columns.
"""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tune_cure.reports.made_files import MadeFiles, digest
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.ranking import comparable_to_first, ranks_by_another_metric
from tune_cure.search.results import Best, SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.radii import format_setting
from tune_cure.search.trial_table import judged_examples
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.files import (
    FolderError,
    read_tensors,
    replace_bytes,
    replace_tensors,
    replace_text,
    replace_weights,
)
from tune_cure.utils.formatting import format_percent

_logger = logging.getLogger(__name__)

NUM_TOP = 10  # configurations in the tables for papers
MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*[]<>|"})
LATEX_WORDS = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
LATEX = str.maketrans(LATEX_WORDS | {"±": r"$\pm$", "–": "--"} | {c: f"\\{c}" for c in "_%&#${}"})


def write_tables(result: SearchResult) -> None:
    """Write the tables of trials and epochs, as CSV and Parquet, and summary.json.

    Once there is a best trial, its configuration is written, too: best_config.csv and best_config.yaml.
    """
    for table, parquet, frame in (
        (run_files.TRIALS_TABLE, run_files.TRIALS_PARQUET, result.trials),
        (run_files.EPOCHS_TABLE, run_files.EPOCHS_PARQUET, result.epochs),
    ):
        replace_text(result.directory / table, format_csv(frame))
        content = io.BytesIO()
        _with_uniform_types(frame).to_parquet(content, index=False)
        replace_bytes(result.directory / parquet, content.getvalue())
    replace_text(result.directory / run_files.SUMMARY, json.dumps(result.summary, indent=2, allow_nan=False) + "\n")
    if result.best is None:
        return
    spec, best = result.spec, result.best
    replace_text(result.directory / run_files.BEST_CONFIG_TABLE, format_csv(_best_config(spec, best)))
    settings = {**spec.training, **best.hyperparameters}
    header = f"# Trial {best.trial} of {spec.name}, its best. `start_from: [THIS FILE]` begins a search with it.\n"
    replace_text(result.directory / run_files.BEST_CONFIG_SPEC, header + yaml.safe_dump(settings, sort_keys=False))


def _with_uniform_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with columns of mixed types as text, since a Parquet column has one type.

    Example: the values of a choice between 8 and auto.
    """
    mixed = [name for name, column in frame.items() if len({type(value) for value in column.dropna()}) > 1]
    return frame.assign(**{str(name): frame[name].map(str, na_action="ignore") for name in mixed})


def _best_config(spec: SearchSpec, best: Best) -> pd.DataFrame:
    row = best.row
    return pd.DataFrame(
        [
            {
                "trial": best.trial,
                "status": row["status"],
                **best.hyperparameters,
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
    """Write the first `NUM_TOP` trials as tables for papers: top_configurations.md, and .tex for booktabs.

    Trials that overfitted catastrophically, diverged, failed or violate a constraint are left out, unless all do.
    """
    leaders = result.leaders
    leaders = leaders if leaders.empty else comparable_to_first(leaders).head(NUM_TOP)
    has_fresh = bool(leaders["fresh_pgd_accuracy"].notna().any())
    has_objective = ranks_by_another_metric(result.spec)
    objective = f"objective: {result.spec.search.metrics[0]} (%)"
    again = f"{result.spec.rescoring.label}, judged again (%)"
    titles = ["trial", *result.spec.space, "epochs", *[objective] * has_objective, "clean (%)", "PGD (%)"]
    titles += [again] * has_fresh
    rows = [
        [
            str(row["trial"]),
            *(format_setting(result.spec, key, row[key]) for key in result.spec.space),
            str(row["epochs_trained"]),
            *[format_percent(row["objective"], unit="")] * has_objective,
            format_percent(row["clean_accuracy_best"], unit=""),
            format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"], unit=""),
            *[format_percent(row["fresh_pgd_accuracy"], row["fresh_pgd_accuracy_se"], unit="")] * has_fresh,
        ]
        for _, row in leaders.iterrows()
    ]
    replace_text(result.directory / run_files.TOP_MARKDOWN, _markdown_table(titles, rows))
    replace_text(result.directory / run_files.TOP_LATEX, _latex_table(titles, rows))


def _markdown_table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *rows]
    return "".join(f"| {' | '.join(cell.translate(MARKDOWN) for cell in line)} |\n" for line in lines)


def _latex_table(titles: list[str], rows: list[list[str]]) -> str:
    head, *body = (" & ".join(cell.translate(LATEX) for cell in line) + r" \\" for line in [titles, *rows])
    lines = [rf"\begin{{tabular}}{{{'r' * len(titles)}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}", ""])


def write_best_model(result: SearchResult) -> None:
    """Write the best trial's network as best_model.pt, and its weights alone as best_model.safetensors.

    If these weights are not on the disk, or cannot be read, the files stay as they are, unless they hold the weights of
    another trial: then they are removed. The weights are missing while a running search replaces their checkpoint, and
    if the best trial became the best only after another one had failed. A warning is logged of a file that cannot be
    read.
    """
    best = result.best
    if best is None:
        return
    file, plain = result.directory / run_files.BEST_MODEL, result.directory / run_files.BEST_WEIGHTS
    checkpoint = Journal(result.directory).checkpoint_file(result.checkpoint) if result.checkpoint else None
    metrics = {name: float(best.row[f"{name}_best"]) for name in ("clean_accuracy", "pgd_accuracy")}
    about = {"trial": best.trial, "hyperparameters": best.hyperparameters, "metrics": metrics}
    made = MadeFiles(result.directory / run_files.MADE)
    source = _digest(checkpoint, about) if checkpoint else None
    if source and made.is_current(file, source) and made.is_current(plain, source):
        return
    saved = _read_or_warn(checkpoint) if checkpoint else {}
    network: Any = saved.get("best_model")
    has_weights = isinstance(network, dict) and isinstance(network.get("weights"), dict)
    if saved and not has_weights:
        _logger.warning("%s: cannot be read as a checkpoint: it holds no best model", checkpoint)
    if not has_weights:
        if _read_or_warn(file).get("trial", best.trial) != best.trial:
            file.unlink()
            plain.unlink(missing_ok=True)
        return
    replace_tensors(file, {**network, **about})
    replace_weights(plain, network["weights"])
    if source:
        made.add(file, source)
        if plain.exists():
            made.add(plain, source)
        made.write()


def _digest(checkpoint: Path, about: dict[str, Any]) -> str | None:
    """Return the digest of what the best model is made from; None while a running search replaces the checkpoint."""
    try:
        return digest(checkpoint, about)
    except FileNotFoundError:
        return None


def _read_or_warn(file: Path) -> dict[str, Any]:
    """Return the content of a file of tensors; empty if it is missing, or damaged, of which a warning is logged."""
    if not file.exists():
        return {}
    try:
        return read_tensors(file, "cpu")
    except FolderError as error:
        _logger.warning("%s", error)
        return {}
