"""The config.yaml in a job's folder: how the network there is trained.

Its keys call a candidate "contender", as version 0.1.0 did.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.search import run_files
from tune_cure.training.config import AnyTrainingConfig, ModelConfig
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import FolderError
from tune_cure.utils.formatting import one_line
from tune_cure.utils.schema import Schema
from tune_cure.utils.yaml_config import first_problem
from tune_cure.utils.yaml_parser import parse


class JobConfig(Schema):
    """Content of a job's config.yaml: everything that its weights depend on.

    Settings that an earlier version did not have take their defaults, which are what that version did.
    """

    contender: Annotated[str, AfterValidator(one_line)] = Field(description="The candidate's description.")
    seed: int = Field(description="Seed of the training run.")
    train_images: int = Field(description="Training images used.")
    held_out: int = Field(default=0, description="Images that were held out to choose the best epoch.")
    evaluation: EvaluationConfig | None = Field(default=None, description="How they choose it; none if there are none.")
    data: DataSpec = Field(description="The data set, wherever its files are.")
    model: ModelConfig = Field(description="The network.")
    training: AnyTrainingConfig = Field(description="How it is trained.")

    def to_yaml(self) -> str:
        """Return the file's text."""
        return yaml.safe_dump(self.dump(), sort_keys=False)

    def dump(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return self.model_dump(mode="json", by_alias=True, exclude={"data": {"root"}})


def read_job_config(folder: Path) -> JobConfig:
    """Return the config.yaml in a job's folder.

    Raises:
        FolderError: The file cannot be read or is damaged.
    """
    file = folder / run_files.JOB_CONFIG
    try:
        return JobConfig.model_validate(parse(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = first_problem(error, JobConfig).within("does not say how the run was trained")
        raise FolderError(f"{file}: {problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FolderError(f"{file}: does not say how the run was trained: {first_line(error)}") from error
