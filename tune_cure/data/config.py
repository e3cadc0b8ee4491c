"""Configuration of the data: which data set, from where, how it is split."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tune_cure.data.datasets import DATASETS
from tune_cure.data.folders import DEFAULT_ROOT, folder_of
from tune_cure.utils.formatting import shorten_repr
from tune_cure.utils.schema import MAX_SEED, Schema, one_of

MAX_PATH = 4000  # characters; systems take a little more


def _absolute(root: str) -> str:
    """Return `root` as an absolute path unless it begins with ~: processes of trials work in folders of their own."""
    is_invalid = any("\ud800" <= character <= "\udfff" for character in root)  # half a pair: in no file's name
    if is_invalid or "\0" in root or len(root) > MAX_PATH:
        raise ValueError(f"a folder is needed, but found {shorten_repr(root)}")
    try:
        Path(root).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{shorten_repr(root)} begins with the home of somebody who is not known here") from error
    return root if root.startswith("~") else os.path.abspath(root)


class DataSpec(Schema):
    """Which data, from where, and how it is split."""

    dataset: Annotated[str, one_of(DATASETS)] = Field(description="The data set.")
    root: Annotated[str, AfterValidator(_absolute)] = Field(
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
