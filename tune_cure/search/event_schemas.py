"""Schemas of the events in a search's journal. A journal may be damaged, or come from somebody else.

Keys that a schema does not list are accepted. In an epoch they are metrics, and must be numbers or null.
"""

from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tune_cure.evaluation.autoattack_version import is_version
from tune_cure.training.config import HYPERPARAMETERS, parse_hyperparameter
from tune_cure.training.delta import DELTA
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.yaml_config import ProblemError, first_problem

Count = Annotated[int, Field(ge=0, lt=2**31)]
Real = Annotated[float, Field(ge=-1e100, le=1e100)]  # so that sums are finite
Fraction = Annotated[float, Field(ge=0, le=1)]
Status = Literal["completed", "stopped", "diverged", "catastrophic_overfitting", "failed"]
STATUSES = get_args(Status)


def _version(text: str) -> str:
    if not is_version(text):
        raise ValueError(f"is no version: {shorten_repr(text)}")
    return text


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    trial: Count
    time: Annotated[float, Field(ge=0, lt=2**33)]  # until the year 2242, so that it can be shown as a date


class _Trial(_Event):
    origin: Literal["start_from", "sampler"]
    hyperparameters: dict[str, Any]


class _Epoch(_Event):
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


class _Checkpoint(_Event):
    epoch: Count
    path: str


class _Retry(_Event):
    attempt: Count
    reason: str


class _End(_Event):
    status: Status
    reason: str


class _Leader(_Event):
    epoch: Count
    attack: dict[str, Any] | None = None  # earlier versions did not record it
    autoattack_version: Annotated[str, AfterValidator(_version)] = ""  # nor this; a judgement by PGD has none
    examples: Count
    clean_accuracy: Fraction
    pgd_accuracy: Fraction
    pgd_accuracy_se: Fraction


class _Change(_Event):
    trial: None  # type: ignore[assignment]
    settings: str
    restart: bool


class _Pause(_Event):
    trial: None  # type: ignore[assignment]
    reason: str


class _Resume(_Event):
    trial: None  # type: ignore[assignment]


EVENT_SCHEMAS: dict[str, type[_Event]] = {
    "trial": _Trial,
    "epoch": _Epoch,
    "checkpoint": _Checkpoint,
    "retry": _Retry,
    "end": _End,
    "leader": _Leader,
    "change": _Change,
    "pause": _Pause,
    "resume": _Resume,
}


def validate_event(event: dict[str, Any], searched: Callable[[], Collection[str]] = frozenset) -> None:
    """Check an event against the schema of its kind, and convert a trial's hyperparameters to their types in place.

    Args:
        event: The event; hyperparameters are typed in place.
        searched: Returns the keys of the search's space; called only for a hyperparameter that is unknown here.

    Raises:
        ProblemError: The kind is unknown, or a key is missing or has a value of another kind.
    """
    kind = event.get("event")
    schema = EVENT_SCHEMAS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise ProblemError("event", f"{shorten_repr(kind)} is not one of {', '.join(EVENT_SCHEMAS)}")
    try:
        schema.model_validate(event)
    except ValidationError as error:
        raise first_problem(error, schema) from error
    if kind == "trial":
        event["hyperparameters"] = {
            key: _parse_value(key, value, searched) for key, value in event["hyperparameters"].items()
        }


def _parse_value(key: str, value: Any, searched: Callable[[], Collection[str]]) -> Any:
    """Return a hyperparameter's value as TrainingConfig types it.

    A key that the search has in its space, but that this process does not know, belongs to a part that is not imported.
    Its value is taken as it is.
    """
    if (
        key not in HYPERPARAMETERS
        and key != DELTA
        and isinstance(value, bool | int | float | str)
        and key in searched()
    ):
        return value
    return parse_hyperparameter(key, value, f"hyperparameters.{key}")
