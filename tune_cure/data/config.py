"""Configuration of the data: which data set, from where, how it is split."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tune_cure.data.datasets import DATASETS
from tune_cure.data.folders import DEFAULT_ROOT, folder_of
from tune_cure.utils.schema import MAX_SEED, Schema, absolute_path, one_of


class DataSpec(Schema):
    """Which data, from where, and how it is split."""

    dataset: Annotated[str, one_of(DATASETS)] = Field(description="The data set.")
    root: Annotated[str, AfterValidator(absolute_path)] = Field(
        default=DEFAULT_ROOT, description="Folder of its files, or to download it into."
    )
    validation: int | None = Field(
        default=None,
        ge=1,
        validate_default=True,
        description="Training images held out, stratified, to evaluate on; the data set's own number if absent.",
    )
    split_seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed that decides which images these are.")
    train_examples: int | None = Field(
        default=None, ge=2, description="Number of the others to train on; all if absent."
    )
    image_size: int | None = Field(
        default=None, ge=4, le=1024, description="Resize images to this side, in pixels; as they are if absent."
    )
    flip: bool | None = Field(
        default=None, description="Mirror half of the training images; the data set's own choice if absent."
    )

    @field_validator("validation")
    @classmethod
    def _default_of_the_data_set(cls, validation: int | None, info: ValidationInfo) -> int | None:
        dataset = info.data.get("dataset", "")
        return DATASETS[dataset].validation if validation is None and dataset in DATASETS else validation

    @property
    def num_validation(self) -> int:
        """The number of images held out; known once `splits.with_validation` has written it out."""
        assert self.validation is not None
        return self.validation

    @property
    def folder(self) -> Path:
        """The path of `root` on this machine."""
        return folder_of(self.root)
