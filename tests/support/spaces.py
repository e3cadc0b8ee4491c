"""A search and a training run that take seconds, for all tests that need one."""

from pathlib import Path

from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load

TINY = """
name: tiny
data: {dataset: digits, validation: 100, train_examples: 600}
model: {name: small_cnn, width: 4}
training: {epochs: 4, batch_size: 50, lr_schedule: cosine}
space:
  lambda: {loguniform: [0.001, 1]}
  h: {uniform: [0.5, 2]}
  lr_max: {loguniform: [0.01, 0.5]}
  epsilon: {uniform: [0.05, 0.2]}
start_from: [{lambda: 0.5, h: 1.0, lr_max: 0.02, epsilon: 0.1}]
evaluation: {epsilon: 0.05, steps: 3, examples: 100}
search: {trials: 8, seed: 0}
asha: {grace_period: 1, reduction_factor: 2}
resources: {concurrent: 1}
"""

QUICK_RUN = ["--dataset", "digits", "--model", "small_cnn", "--epsilon", "0.1", "--batch-size", "64"]
for override in ("data.validation=100", "data.train_examples=256", "model.width=4", "evaluation.steps=3"):
    QUICK_RUN += ["--set", override]


def tiny(folder: Path, *overrides: str) -> SearchSpec:
    """TINY with overrides, written into `folder` as a run's spec.yaml."""
    path = folder / "spec.yaml"
    path.write_text(TINY)
    spec = load(path, overrides)
    path.write_text(spec.to_yaml())
    return spec
