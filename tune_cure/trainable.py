"""One trial under Ray Tune: a Trainer whose step is one epoch of training and one evaluation."""

import functools
from pathlib import Path
from typing import Any

import torch
from ray import tune

from tune_cure.data import DataSpec, Splits
from tune_cure.journal import CHECKPOINT_FILE, OBJECTIVE
from tune_cure.shipping import Shipment, load
from tune_cure.spec import SearchSpec
from tune_cure.training import Trainer

WORST = {"max": 0.0, "min": 1.0}


class CureTrainable(tune.Trainable):  # type: ignore[misc]
    """A trial. Its Tune config holds the hyperparameters and two keys of the search's own.

    `trial` is the trial's number; `checkpoint`, where present, is the path or URI of a folder written by
    `save_checkpoint`, to go on from. Each result has `epoch` and the metrics of docs/columns.md, `OBJECTIVE`, and
    `ended`: empty while the trial can go on, else the status that it ended with.
    """

    def setup(self, config: dict[str, Any], spec: SearchSpec, shipment: Shipment | None = None) -> None:
        """Builds the trial's Trainer; called in the worker process. `shipment` is there on a cluster."""
        self.spec, self.shipment = spec, shipment
        torch.set_num_threads(spec.resources.cpus_per_trial)
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Starts another trial in the same process, which has Python, torch and the data loaded already."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        own = ("trial", "checkpoint")
        self.trainer = Trainer(
            self.spec.training_config({key: value for key, value in config.items() if key not in own}),
            _data(self.spec.data, "cuda" if torch.cuda.is_available() else "cpu", self.shipment),
            model=self.spec.model,
            evaluation=self.spec.evaluation,
            device="cuda" if torch.cuda.is_available() else "cpu",
            seed=self.spec.search.seed,
        )
        if "checkpoint" in config:
            with tune.Checkpoint(config["checkpoint"]).as_directory() as folder:  # fetched, if it is in an object store
                self.load_checkpoint(folder)

    def step(self) -> dict[str, Any]:
        """One epoch. A diverged network is not evaluated; its objective is the best before, or the worst there is."""
        metrics = self.trainer.train_epoch()
        if not metrics["diverged"]:
            metrics |= self.trainer.evaluate()
        diverged = metrics.pop("diverged")
        before = self.trainer.accuracies.get(self.trainer.best_epoch, {}).get("pgd_accuracy")
        metrics.setdefault("pgd_accuracy_best", before)
        objective = metrics.get(self.spec.search.metric)
        if diverged:
            ended = "diverged"
        elif metrics["catastrophic_overfitting"]:
            ended = "catastrophic_overfitting"
        else:
            ended = "completed" if self.trainer.epoch >= self.trainer.config.epochs else ""
        return {
            **metrics,
            OBJECTIVE: WORST[self.spec.search.mode] if objective is None else objective,
            "ended": ended,
            "done": bool(ended),
            "training_iteration": self.trainer.epoch,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes all that `load_checkpoint` needs to continue as if never interrupted."""
        torch.save(self.trainer.state_dict(), Path(checkpoint_dir) / CHECKPOINT_FILE)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continues from a folder written by `save_checkpoint`."""
        state = torch.load(Path(checkpoint) / CHECKPOINT_FILE, map_location=self.trainer.device, weights_only=True)
        self.trainer.load_state_dict(state)


@functools.lru_cache(maxsize=1)
def _data(spec: DataSpec, device: str, shipment: Shipment | None) -> Splits:
    """The data of this process: read, and moved to the device, once for all the trials that it runs."""
    return load(spec, shipment).to(device)
