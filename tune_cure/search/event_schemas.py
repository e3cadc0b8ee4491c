"""What each kind of line in a search's journal holds. A journal may be damaged, or sent by somebody else.

Keys that are not listed here are let through; in the line of an epoch they are metrics, and must be numbers.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tune_cure.training.config import parse_hyperparameter
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.yaml_config import ProblemError, first_problem

Count = Annotated[int, Field(ge=0, lt=2**31)]
Real = Annotated[float, Field(ge=-1e100, le=1e100)]  # sums of which are finite
Fraction = Annotated[float, Field(ge=0, le=1)]
Status = Literal["completed", "stopped", "diverged", "catastrophic_overfitting", "failed"]
STATUSES = get_args(Status)


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    trial: Count
    time: Annotated[float, Field(ge=0, lt=2**33)]  # the year 2242: what dates can be made of


class _Trial(_Line):
    origin: Literal["start_from", "sampler"]
    hyperparameters: dict[str, Any]


class _Epoch(_Line):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Real | None]
    event: str
    epoch: Annotated[Count, Field(ge=1)]
    objective: Fraction
    ended: Literal["", Status]
    clean_accuracy: Fraction | None
    pgd_accuracy: Fraction | None
    pgd_accuracy_best: Fraction | None
    fgsm_accuracy: Fraction | None = None
    curvature: Real | None
    catastrophic_overfitting: bool | None
    train_seconds: Real | None
    eval_seconds: Real | None
    skipped_steps: Count
    host: str
    pid: Count


class _Checkpoint(_Line):
    epoch: Count
    path: str


class _Retry(_Line):
    attempt: Count
    reason: str


class _End(_Line):
    status: Status
    reason: str


class _Leader(_Line):
    epoch: Count
    attack: dict[str, Any] | None = None  # runs of earlier versions do not say
    examples: Count
    clean_accuracy: Fraction
    pgd_accuracy: Fraction
    pgd_accuracy_se: Fraction


class _Change(_Line):
    trial: None  # type: ignore[assignment]
    settings: str
    restart: bool


class _Resume(_Line):
    trial: None  # type: ignore[assignment]


EVENT_SCHEMAS: dict[str, type[_Line]] = {
    "trial": _Trial,
    "epoch": _Epoch,
    "checkpoint": _Checkpoint,
    "retry": _Retry,
    "end": _End,
    "leader": _Leader,
    "change": _Change,
    "resume": _Resume,
}


def validate_event(event: dict[str, Any]) -> None:
    """Whether `event` has what a line of its kind has; the hyperparameters of a trial are brought to their types.

    Raises:
        ProblemError: It lacks something, or has it in another shape.
    """
    kind = event.get("event")
    line = EVENT_SCHEMAS.get(kind) if isinstance(kind, str) else None
    if line is None:
        raise ProblemError("event", f"{shorten_repr(kind)} is not one of {', '.join(EVENT_SCHEMAS)}")
    try:
        line.model_validate(event)
    except ValidationError as error:
        raise first_problem(error, line) from error
    if kind == "trial":
        event["hyperparameters"] = {
            key: parse_hyperparameter(key, value, f"hyperparameters.{key}")
            for key, value in event["hyperparameters"].items()
        }
