"""Outcome of a trial in the Optuna study: its state, values, constraint violations and user attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from tune_cure.search.journal import OBJECTIVE
from tune_cure.search.ranking import UNSOUND_STATUSES
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import WORST

STATUS = "status"  # user attribute of an ended trial in the study: how it ended (`event_schemas.Status`)
EPOCHS = "epochs"  # user attribute of an ended trial: how many it trained; a study of several objectives has no curves
REACHED = "objective"  # user attribute of a trial whose value in the study is the worst: what it had reached
UNTRAINED_CONSTRAINT = "untrained"  # in a study of several objectives, violated by trials that ended early
_STATES = {"completed": TrialState.COMPLETE, "failed": TrialState.FAIL}  # every other end counts as pruned


@dataclass(frozen=True)
class StudyOutcome:
    """Outcome of an ended trial in the study.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        values: One for each objective of the study; None where the trial was never judged.
        violations: By how much each constraint is violated, at most 0 where it is kept; empty for a failed trial.
        attributes: The trial's user attributes: `STATUS`; unless it failed, `EPOCHS`; where `values` is the worst,
            `REACHED`.
    """

    state: TrialState
    values: list[Any]
    violations: dict[str, float]
    attributes: dict[str, Any]


def study_outcome(spec: SearchSpec, status: str, epoch: int, metrics: Mapping[str, Any]) -> StudyOutcome:
    """Return how an ended trial counts in the study.

    A trial that was stopped early, diverged or overfitted counts as pruned, so that a lucky start does not outrank a
    trial that ran to its end. One that diverged or overfitted has the worst value: samplers compare pruned trials by
    their last values, and a peak before a collapse would make such trials look good.

    A study of several objectives has no pruned trials: there such a trial is complete, with what it had reached, and
    violates a constraint by the share of epochs that it lacks, which ranks it behind all trials that ran to their end.
    At least one epoch counts as lacking, because a trial of an earlier, longer search may have trained more of them.

    Args:
        spec: The search.
        status: How the trial ended (`event_schemas.Status`).
        epoch: Its last epoch.
        metrics: What it had reached then, with `OBJECTIVE`.
    """
    has_several = len(spec.search.metrics) > 1
    state = _STATES.get(status, TrialState.PRUNED)
    values = [metrics.get(name) for name in (spec.search.metrics if has_several else [OBJECTIVE])]
    if has_several and state == TrialState.PRUNED:
        state = TrialState.COMPLETE
    if state == TrialState.COMPLETE and None in values:
        state = TrialState.FAIL
    if state == TrialState.FAIL:
        return StudyOutcome(state, values, {}, {STATUS: status})
    attributes = {STATUS: status, EPOCHS: epoch}
    if not has_several and status in UNSOUND_STATUSES and None not in values:
        attributes[REACHED], values = values[0], [WORST[spec.search.mode]]
    violations = {str(constraint): constraint.violation(metrics) for constraint in spec.search.parsed_constraints}
    if has_several:
        num_lacking = 0 if status == "completed" else max(spec.max_epochs + 1 - epoch, 1)
        violations[UNTRAINED_CONSTRAINT] = num_lacking / spec.max_epochs
    return StudyOutcome(state, values, violations, attributes)
