"""Configuration of the penalty."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tune_cure.gradients.registry import STATISTICS_NAMES
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.schedules import LAMBDA_SCHEDULES
from tune_cure.utils.schema import Number, Schema, one_of, with_hyperparameters


class SharedRegularizerConfig(Schema):
    """The hyperparameters that all penalties share."""

    regularizer: Annotated[str, one_of(REGULARIZERS)] = Field(
        default="cure", description="The penalty on the loss surface around the images."
    )
    lambda_: Number = Field(default=0.1, ge=0, alias="lambda", description="Weight of the mean penalty; 0: none.")
    lambda_schedule: Annotated[str, one_of(LAMBDA_SCHEDULES)] = Field(
        default="constant", description="Course of lambda over the epochs, up to its full value in 10 epochs or more."
    )
    penalty_two_sided: bool = Field(default=True, description="Differentiate the gradient at the image too; exact.")
    penalty_statistics: Annotated[str, one_of(STATISTICS_NAMES)] = Field(
        default="batch", description="What batch norm normalizes by in the penalty: the batch's, or the running ones."
    )
    penalty_fraction: Number = Field(
        default=1.0, gt=0, le=1, description="Share of each batch that is penalized; 8 images at least."
    )
    penalty_every: int = Field(
        default=1, ge=1, description="Steps from one penalty to the next, with its weight multiplied by that number."
    )


if TYPE_CHECKING:

    class RegularizerConfig(SharedRegularizerConfig):
        """Those, and the hyperparameters that the project's penalties declare."""

        def __getattr__(self, name: str) -> Any: ...
else:
    RegularizerConfig = with_hyperparameters("RegularizerConfig", SharedRegularizerConfig, REGULARIZERS.declarations)
