"""Data frames of trials and epochs, made from the events of a journal. Columns: docs/columns.md."""

from typing import Any

import pandas as pd

from tune_cure.evaluation.metrics import standard_error
from tune_cure.search.journal import OBJECTIVE, RUNG, Event
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.space import objectives
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import EPOCH_METRICS

SECONDS = ("train_seconds", "attack_seconds", "penalty_seconds", "eval_seconds")
NOT_FLOATS = ("trial", "epoch", "skipped_steps", "catastrophic_overfitting", "host", "pid")  # of epochs.csv


def build_epoch_table(events: list[Event]) -> pd.DataFrame:
    """As `SearchResult.epochs`, from the journal's events."""
    columns = ["trial", *EPOCH_METRICS, OBJECTIVE, RUNG, "time", "host", "pid"]
    frame = pd.DataFrame([event for event in events if event["event"] == "epoch"], columns=columns)
    frame = frame.astype({name: float for name in columns if name not in NOT_FLOATS})
    return frame.drop_duplicates(["trial", "epoch"], keep="last").sort_values(["trial", "epoch"], ignore_index=True)


def build_trial_table(spec: SearchSpec, events: list[Event]) -> pd.DataFrame:
    """As `SearchResult.trials`, from the journal's events."""
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
    counted = frame[~frame["status"].isin(UNSOUND_STATUSES) & frame["feasible"].ne(False)].dropna(
        subset=spec.search.metrics
    )
    on_front = objectives.pareto_front(counted[spec.search.metrics].to_numpy(dtype=float).tolist(), spec.search.mode)
    return pd.Series(on_front, index=counted.index, dtype=bool).reindex(frame.index, fill_value=False)


def _columns(spec: SearchSpec) -> list[str]:
    return ["trial", "status", "origin", *spec.space, "epochs_trained", "objective", "best_epoch", "pgd_accuracy_best",
            "pgd_accuracy_best_se", "clean_accuracy_best", "fgsm_accuracy_best", "pgd_accuracy", "clean_accuracy",
            "fgsm_accuracy", "curvature", "catastrophic_overfitting_epoch", *SECONDS, "skipped_steps", "started",
            "ended", "retries", "reason", "fresh_pgd_accuracy", "fresh_pgd_accuracy_se", "fresh_clean_accuracy",
            "fresh_examples", "feasible"]  # fmt: skip


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
        **{name: sum(event.get(name) or 0.0 for event in by_epoch.values()) for name in SECONDS},
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
    # Another attack since then, or other best weights: it counts no more.
    if again and again["epoch"] == best["epoch"] and again.get("attack") in (None, rescoring_attack(spec)):
        row |= {
            f"fresh_{name}": again[name] for name in ("pgd_accuracy", "pgd_accuracy_se", "clean_accuracy", "examples")
        }
    return row


def rescoring_attack(spec: SearchSpec) -> dict[str, Any]:
    """The second judgement of the leaders, as the journal records it."""
    return spec.rescoring.model_dump(mode="json")


def judged_examples(spec: SearchSpec) -> int:
    """The number of validation images that each accuracy of the search was measured on."""
    return min(spec.evaluation.examples, spec.data.num_validation)


def planned_epochs(frame: pd.DataFrame, spec: SearchSpec) -> "pd.Series[int]":
    """How many epochs each of `trials` trains if nothing ends it before: its own number, where that is searched."""
    return frame["epochs"].astype(int) if "epochs" in spec.space else pd.Series(spec.max_epochs, index=frame.index)


def count_untrained_epochs(frame: pd.DataFrame, spec: SearchSpec) -> dict[str, int]:
    """How many epochs `trials` have not trained, by the status of those that did not train all."""
    left = (planned_epochs(frame, spec) - frame["epochs_trained"]).clip(lower=0)
    by_status = left[frame["status"] != "completed"].groupby(frame["status"]).sum()
    return {str(status): int(epochs) for status, epochs in by_status.items() if epochs}
