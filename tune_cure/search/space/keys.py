"""Paths of the keys of a search space, for hints where a key stands in the wrong place."""

from pydantic import BaseModel

from tune_cure.search.space.config import SearchSpec
from tune_cure.training.config import HYPERPARAMETERS
from tune_cure.training.presets import METHOD


def paths_of(key: str) -> list[str]:
    """Return the paths at which a search space has a key of this name, as in `training.epochs`; may be empty."""
    paths = []
    for section, field in SearchSpec.model_fields.items():
        model = field.annotation
        if section == "training":
            keys = {METHOD, *HYPERPARAMETERS}
        elif isinstance(model, type) and issubclass(model, BaseModel):
            keys = {inner.alias or name for name, inner in model.model_fields.items()}
        else:
            keys = set()
        paths += [f"{section}.{key}"] * (key in keys)
    return paths
