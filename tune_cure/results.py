"""A search's journal as pandas frames, its best configuration, and the files that a run leaves.

Everything here is rebuilt from the run's folder, so it works on a search that runs, was interrupted, or is long over.
The columns are described in docs/columns.md.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from tune_cure import objectives, spec as specs
from tune_cure.evaluation import standard_error
from tune_cure.files import read_tensors, replace_tensors, replace_text
from tune_cure.journal import FILE as JOURNAL, OBJECTIVE, RUNG, Event, Journal
from tune_cure.spec import SearchSpec
from tune_cure.training import EPOCH_METRICS

SPEC = "spec.yaml"
UNSOUND = ("catastrophic_overfitting", "diverged", "failed")
"""Ends after which a trial is ranked behind all others: what it scored before is not what its configuration gives."""


class ResultsError(ValueError):
    """A folder that holds no search. Its text is one line."""


@dataclass(frozen=True)
class Best:
    """The leading trial of a search: its row of `trials`, and its hyperparameters by their YAML names."""

    row: "pd.Series[Any]"
    hyperparameters: dict[str, Any]

    @property
    def trial(self) -> int:
        """Its number."""
        return int(self.row["trial"])


def read_spec(directory: Path) -> SearchSpec:
    """The search that the run in `directory` was made from, as resolved then.

    Raises:
        ResultsError: The folder holds no search.
    """
    for file in (SPEC, JOURNAL):
        if not (directory / file).is_file():
            raise ResultsError(f"{directory}: holds no search: there is no {file} in it")
    for path in directory.iterdir():  # a run that somebody sent must not have files elsewhere read or written over
        if path.is_symlink() and not path.resolve().is_relative_to(directory.resolve()):
            raise ResultsError(f"{path}: is a link that leads out of the run's folder")
    return specs.load(directory / SPEC)


def epochs(directory: str | Path) -> pd.DataFrame:
    """One row per trial and epoch, in that order; an epoch that was run twice (after a crash) counts once, the last."""
    events = [event for event in Journal(Path(directory)).read() if event["event"] == "epoch"]
    columns = ["trial", *EPOCH_METRICS, OBJECTIVE, RUNG, "time", "host", "pid"]
    frame = pd.DataFrame(events, columns=columns)
    return frame.drop_duplicates(["trial", "epoch"], keep="last").sort_values(["trial", "epoch"], ignore_index=True)


def trials(directory: str | Path) -> pd.DataFrame:
    """One row per trial: its hyperparameters, what it reached, how and why it ended."""
    directory = Path(directory)
    return trials_of(read_spec(directory), Journal(directory).read())


def trials_of(spec: SearchSpec, events: list[Event]) -> pd.DataFrame:
    """As `trials`, from the journal's events."""
    by_trial: dict[int, list[Event]] = {}
    for event in events:
        by_trial.setdefault(event["trial"], []).append(event)
    rows = [_row(spec, by_trial[number]) for number in sorted(by_trial)]
    frame = pd.DataFrame(rows, columns=_columns(spec))
    for key in spec.space:
        if frame[key].isna().any():  # it makes no difference in some trials; keep whole numbers whole in the others
            frame[key] = pd.Series([row.get(key) for row in rows], dtype=object)
    if len(spec.search.metrics) > 1:
        frame["pareto_front"] = _on_pareto_front(frame, spec)
    return frame


def _on_pareto_front(frame: pd.DataFrame, spec: SearchSpec) -> pd.Series:
    """Of each trial whether no other is better in one metric and as good in all; unsound ends do not count."""
    counted = frame[~frame["status"].isin(UNSOUND) & frame["feasible"].ne(False)].dropna(subset=spec.search.metrics)
    on_front = objectives.pareto_front(counted[spec.search.metrics].to_numpy(dtype=float).tolist(), spec.search.mode)
    return pd.Series(on_front, index=counted.index, dtype=bool).reindex(frame.index, fill_value=False)


def pareto_front(directory: str | Path) -> pd.DataFrame:
    """The trials of a search of several metrics that no other beats in all, best first by the first metric.

    Of a search of one metric: the best trial.
    """
    directory = Path(directory)
    return _front(trials(directory), read_spec(directory))


def _front(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    order = ranked(frame, spec)
    return order[order["pareto_front"]] if "pareto_front" in order else order.head(1)


def _columns(spec: SearchSpec) -> list[str]:
    return ["trial", "status", "origin", *spec.space, "epochs_trained", "objective", "best_epoch", "pgd_accuracy_best",
            "pgd_accuracy_best_se", "clean_accuracy_best", "fgsm_accuracy_best", "pgd_accuracy", "clean_accuracy",
            "fgsm_accuracy", "curvature", "catastrophic_overfitting_epoch", "train_seconds", "eval_seconds",
            "skipped_steps", "started", "ended", "retries", "reason", "fresh_pgd_accuracy", "fresh_pgd_accuracy_se",
            "fresh_clean_accuracy", "fresh_examples", "feasible"]  # fmt: skip


def _row(spec: SearchSpec, events: list[Event]) -> dict[str, Any]:
    start = next(event for event in events if event["event"] == "trial")
    by_epoch = {event["epoch"]: event for event in events if event["event"] == "epoch"}
    end = next((event for event in reversed(events) if event["event"] == "end"), None)
    row: dict[str, Any] = {
        "trial": start["trial"],
        "status": end["status"] if end else "unfinished",
        "origin": start["origin"],
        **start["hyperparameters"],
        "epochs_trained": len(by_epoch),
        "train_seconds": sum(event["train_seconds"] or 0.0 for event in by_epoch.values()),
        "eval_seconds": sum(event["eval_seconds"] or 0.0 for event in by_epoch.values()),
        "skipped_steps": sum(event["skipped_steps"] for event in by_epoch.values()),
        "started": start["time"],
        "ended": end["time"] if end else None,
        "retries": sum(event["event"] == "retry" for event in events),
        "reason": next((event["reason"] for event in reversed(events) if event.get("reason")), ""),
    }
    for epoch, event in by_epoch.items():
        if event["catastrophic_overfitting"]:
            row["catastrophic_overfitting_epoch"] = epoch
    judged = [event for _, event in sorted(by_epoch.items()) if event["pgd_accuracy"] is not None]
    if not judged:
        return row
    last, best = judged[-1], max(judged, key=lambda event: event["pgd_accuracy"])  # the first of equals, as the Trainer
    row |= objectives.reached(last, best)
    row |= {
        "curvature": last["curvature"],
        "objective": last[OBJECTIVE],
        "best_epoch": best["epoch"],
        "pgd_accuracy_best_se": standard_error(best["pgd_accuracy"], judged_examples(spec)),
        "feasible": all(constraint.violation(row) <= 0 for constraint in spec.search.parsed_constraints),
    }
    again = next((event for event in reversed(events) if event["event"] == "leader"), None)
    if again and again["epoch"] == best["epoch"]:
        row |= {
            f"fresh_{name}": again[name] for name in ("pgd_accuracy", "pgd_accuracy_se", "clean_accuracy", "examples")
        }
    return row


def judged_examples(spec: SearchSpec) -> int:
    """The number of validation images that each accuracy of the search was measured on."""
    return min(spec.evaluation.examples, spec.data.validation)


def ranked(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """The rows of `trials`, best first.

    Sound ends come before unsound ones, of these the trials that keep the constraints before the others, then the
    objective counts (the first metric, if there are several), then who was first.
    """
    frame = frame.dropna(subset=["objective"])
    behind = [frame["status"].isin(UNSOUND), frame["feasible"].eq(False)]
    return (
        frame.assign(_unsound=behind[0], _infeasible=behind[1])
        .sort_values(
            ["_unsound", "_infeasible", "objective", "trial"], ascending=[True, True, spec.search.mode == "min", True]
        )
        .drop(columns=["_unsound", "_infeasible"])
    )


def leaders(frame: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """As `ranked`, but its first `rescore.top` rows, where they were judged again, in the order that this gave."""
    order = ranked(frame, spec)
    if not spec.search.metrics[0].startswith("pgd_accuracy") or spec.search.mode == "min":
        return order
    again = order.head(spec.rescore.top).dropna(subset=["fresh_pgd_accuracy"])
    by_fresh = again.sort_values("fresh_pgd_accuracy", ascending=False, kind="stable")
    return pd.concat([by_fresh, order.drop(index=again.index)])


def best(directory: str | Path) -> Best | None:
    """The leading trial of the search in `directory`; None if no trial has been judged yet."""
    directory = Path(directory)
    spec = read_spec(directory)
    order = leaders(trials(directory), spec)
    if order.empty:
        return None
    row = order.iloc[0]
    number = int(row["trial"])
    proposed = {event["trial"]: event for event in Journal(directory).read() if event["event"] == "trial"}
    return Best(row, proposed[number]["hyperparameters"])


def write(directory: Path) -> None:
    """Writes trials.csv, epochs.csv, and of the best trial best_config.csv, best_config.yaml and best_model.pt.

    Each file is replaced in one step: a reader never sees half of it.
    """
    spec = read_spec(directory)
    replace_text(directory / "trials.csv", trials(directory).to_csv(index=False))
    replace_text(directory / "epochs.csv", epochs(directory).to_csv(index=False))
    leader = best(directory)
    if leader is None:
        return
    replace_text(directory / "best_config.csv", _best_config(spec, leader).to_csv(index=False))
    content = {**spec.training, **leader.hyperparameters}
    header = f"# Trial {leader.trial} of {spec.name}, its best. `start_from: [THIS FILE]` begins a search with it.\n"
    replace_text(directory / "best_config.yaml", header + yaml.safe_dump(content, sort_keys=False))
    _write_best_model(directory, leader)


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


def checkpoint(directory: Path, leader: Best) -> str | None:
    """The path, relative to the run's folder, of a checkpoint of the leading trial's that holds its best weights."""
    events = Journal(directory).read()
    saved = [event for event in events if event["event"] == "checkpoint" and event["trial"] == leader.trial]
    saved = [event for event in saved if event["epoch"] >= leader.row["best_epoch"]]
    return str(saved[-1]["path"]) if saved else None


def _write_best_model(directory: Path, leader: Best) -> None:
    inside = checkpoint(directory, leader)
    path = Journal(directory).checkpoint_file(inside) if inside else None
    if path is None or not path.exists():  # the search still runs, and is just replacing the checkpoint
        return
    saved = read_tensors(path, torch.device("cpu"))["best_model"]
    metrics = {name: float(leader.row[f"{name}_best"]) for name in ("clean_accuracy", "pgd_accuracy")}
    found = {"trial": leader.trial, "hyperparameters": leader.hyperparameters, "metrics": metrics}
    replace_tensors(directory / "best_model.pt", {**saved, **found})


def summary(directory: Path) -> dict[str, Any]:
    """The search in a few numbers: how many trials ended how, what was trained, what won, by how much, at what cost."""
    spec = read_spec(directory)
    frame, curve = trials(directory), epochs(directory)
    leader = best(directory)
    baseline = frame[frame["origin"] == "start_from"].head(1)
    times = [event["time"] for event in Journal(directory).read()]
    return {
        "name": spec.name,
        "metric": spec.search.metric,
        "constraints": spec.search.constraints,
        "trials_feasible": int(frame["feasible"].eq(True).sum()),
        "trials": len(frame),
        "trials_planned": spec.search.trials,
        "trials_by_status": {str(status): int(count) for status, count in frame["status"].value_counts().items()},
        "epochs": len(curve),
        "epochs_without_early_stopping": spec.search.trials * spec.max_epochs,
        "wall_seconds": max(times) - min(times) if times else 0.0,
        "trial_seconds": float(curve["train_seconds"].sum() + curve["eval_seconds"].sum()),
        "changes": [event["settings"] for event in Journal(directory).changes()],
        "best": None if leader is None else _reached(leader.row, leader.hyperparameters),
        "pareto_front": [int(number) for number in _front(frame, spec)["trial"]],
        "baseline": None if baseline.empty else _reached(baseline.iloc[0], dict(spec.start_from[0])),
    }


def _reached(row: "pd.Series[Any]", hyperparameters: dict[str, Any]) -> dict[str, Any]:
    metrics = ("objective", "pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best", "best_epoch",
               "fresh_pgd_accuracy", "fresh_pgd_accuracy_se", "fresh_clean_accuracy", "fresh_examples")  # fmt: skip
    values = {name: None if pd.isna(row[name]) else float(row[name]) for name in metrics}
    return {"trial": int(row["trial"]), "status": row["status"], "hyperparameters": hyperparameters, **values}


def write_summary(directory: Path) -> dict[str, Any]:
    """Writes summary.json and returns its content."""
    content = summary(directory)
    replace_text(directory / "summary.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    return content
