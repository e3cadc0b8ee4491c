"""Tune trainable of a trial: a Trainer whose step is one epoch of training and one evaluation."""

import functools
from pathlib import Path
from typing import Any

import torch
from ray import tune

from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.ray_backend import ray_internals
from tune_cure.ray_backend.data_broadcast import DataBroadcast, load
from tune_cure.ray_backend.gpus.memory import wait_for_memory
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.search import run_files
from tune_cure.search.journal import OBJECTIVE, RUNG
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import WORST, reached
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu, formatting
from tune_cure.utils.files import read_tensors

LOGGED = ("train_loss", "curvature", "clean_accuracy", "fgsm_accuracy", "pgd_accuracy", "train_seconds", "eval_seconds")
WAITED = "waited_for_gpu"  # key of a result: what `wait_for_memory` has said before the epoch
OWN_KEYS = ("trial", "checkpoint", "method", "checkpoints")  # of a Tune config, beside the hyperparameters


class CureTrainable(tune.Trainable):  # type: ignore[misc]
    """Tune trainable of a trial, in a worker process.

    Its Tune config holds the hyperparameters and two keys of the search's own. `trial` is the trial's number.
    `checkpoint`, which may be missing, is the path or URI of a folder written by `save_checkpoint` to go on from.

    Each result has `epoch` and the metrics of docs/columns.md, `OBJECTIVE`, `RUNG` at a rung with a
    stronger attack, and `ended`: empty while the trial can go on, else the status that it ended with.
    """

    def setup(
        self,
        config: dict[str, Any],
        spec: SearchSpec,
        plan: ResourcePlan | None = None,
        reused: bool = False,
        broadcast: DataBroadcast | None = None,
    ) -> None:
        """Prepare the process for the trial, once its part of the GPU is free.

        Args:
            config: The Tune config.
            spec: The search.
            plan: The search's use of the devices; None trains on the CPU.
            reused: Whether other trials will use the process afterwards.
            broadcast: The data for machines that lack it; None if all is on one machine.
        """
        self.spec, self.reused, self.broadcast = spec, reused, broadcast
        self.device = plan.device if plan else "cpu"
        cpu.configure_cpu(spec.resources.cpus_per_trial)
        import_sent_parts(spec.parts)
        self.waited = wait_for_memory(plan)
        if self.waited:
            print(f"trial {config['trial']}: {self.waited}", flush=True)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process, which has loaded Python, torch and the data already; return True."""
        self._begin(new_config)
        return True

    def __repr__(self) -> str:
        """Return the actor's name in Ray's dashboard, which asks once, after `setup`: a reused actor keeps it."""
        return f"{self.title} and later ones, see its log" if self.reused else self.title

    @property
    def title(self) -> str:
        """The trial as its log and Ray's dashboard name it."""
        return f"trial {self.trial}"

    def _begin(self, config: dict[str, Any]) -> None:
        self.trial, self.continued_from = config["trial"], config.get("checkpoint")
        self.hyperparameters = {key: value for key, value in config.items() if key not in OWN_KEYS}
        self.__dict__.pop("trainer", None)  # frees the memory of the trial before
        print(f"{self.title}: {formatting.format_hyperparameters(self.hyperparameters)}", flush=True)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The trial's Trainer, built when it is first needed.

        Tune tries a trial again that fails in a step, but not one that fails while a process is handed over to it.
        """
        trainer = Trainer(
            self.spec.training_config(self.hyperparameters),
            shared_data(self.spec.data, self.device, self.broadcast),
            model=self.spec.model,
            evaluation=self.spec.evaluation,
            device=self.device,
            seed=self.spec.search.seed,
        )
        if self.continued_from is not None:
            with tune.Checkpoint(self.continued_from).as_directory() as folder:  # copied from an object store
                self.restore_trainer(trainer, folder)
        return trainer

    def step(self) -> dict[str, Any]:
        """Train and evaluate one epoch. A diverged network is not evaluated: its objective is the best one before."""
        ray_internals.rename_process(f"ray::{self.title}")  # Ray gives the process its own title after each step
        metrics = self.trainer.train_epoch()
        if not metrics["diverged"]:
            metrics |= self.trainer.evaluate()
        diverged = metrics.pop("diverged")
        metrics |= reached(metrics, self.trainer.accuracies.get(self.trainer.best_epoch, {}))
        objective = metrics[self.spec.search.metrics[0]]
        is_last = self.trainer.epoch >= self.trainer.config.epochs
        if diverged:
            ended = "diverged"
        elif metrics["catastrophic_overfitting"] and (is_last or self.spec.search.on_collapse == "end"):
            ended = "catastrophic_overfitting"
        else:
            ended = "completed" if is_last else ""
        stricter = self.spec.rung_judgement
        if stricter and self.trainer.epoch in self.spec.rungs and ended in ("", "completed"):
            metrics[RUNG] = self.trainer.judge_best(stricter)["pgd_accuracy"]
        self._log(metrics, ended)
        waited, self.waited = self.waited, ""
        return {
            **metrics,
            WAITED: waited,
            OBJECTIVE: WORST[self.spec.search.mode] if objective is None else objective,
            "ended": ended,
            "done": bool(ended),
            "training_iteration": self.trainer.epoch,
        }

    def _log(self, metrics: dict[str, Any], ended: str) -> None:
        """Write a line for the epoch into the actor's log, which the dashboard shows."""
        words = [f"epoch {self.trainer.epoch} of {self.trainer.config.epochs}"]
        words += [f"{name} {metrics[name]:.4g}" for name in LOGGED if metrics.get(name) is not None]
        words += [formatting.STATUS_WORDS[ended]] if ended else []
        print(f"{self.title}: {', '.join(words)}", flush=True)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write all that `load_checkpoint` needs to continue as if the trial had not been interrupted."""
        # An open file, because torch hides the reason of a failed write (a full disk) where it is given a path.
        with (Path(checkpoint_dir) / run_files.CHECKPOINT).open("wb") as file:
            torch.save(self.trainer.state_dict(), file)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continue from a folder written by `save_checkpoint`."""
        self.restore_trainer(self.trainer, checkpoint)

    def restore_trainer(self, trainer: Trainer, checkpoint: str) -> None:
        """Give a Trainer the state that `save_checkpoint` has written into a folder."""
        trainer.load_state_dict(read_tensors(Path(checkpoint) / run_files.CHECKPOINT, trainer.device))


@functools.lru_cache(maxsize=1)
def shared_data(spec: DataSpec, device: str, broadcast: DataBroadcast | None) -> Splits:
    """Return the data of this process, read and moved to the device once for all trials that it runs."""
    return load(spec, broadcast).to(device)
