"""Tune trainable of a league's trials: each is of one method's search, whose folder its checkpoints go to.

Tune keeps the trials of a run in one folder. So that each method's folder is complete in itself, a trial writes its
checkpoints there, and gives Tune only a file that names the place.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.ray_backend.trainable import CureTrainable
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import Trainer

PLACE = "place.txt"  # in a checkpoint as Tune has it: the folder of the real one


def checkpoint_folder(config: Mapping[str, Any], epoch: int) -> Path:
    """Return the folder of a trial's checkpoint after an epoch.

    Args:
        config: The trial's Tune config.
        epoch: The epoch.
    """
    return Path(config["checkpoints"], f"trial_{config['trial']:05d}", f"checkpoint_{epoch:06d}")


class LeagueTrainable(CureTrainable):
    """Tune trainable of a trial of one of a league's methods.

    Its Tune config has two more keys: `method`, the method's name, and `checkpoints`, the folder below the method's
    folder that the checkpoints of this session's trials go to.
    """

    def setup(  # type: ignore[override]  # Tune passes these arguments by name
        self,
        config: dict[str, Any],
        specs: Mapping[str, SearchSpec],
        plan: ResourcePlan | None = None,
        reused: bool = False,
        broadcast: DataBroadcast | None = None,
    ) -> None:
        """Prepare the process for the trial, as a search's trainable does.

        Args:
            config: The Tune config.
            specs: The search of each method.
            plan: The league's use of the devices; None trains on the CPU.
            reused: Whether other trials will use the process afterwards.
            broadcast: The data for machines that lack it; None if all is on one machine.
        """
        self.specs = specs
        super().setup(config, specs[config["method"]], plan, reused, broadcast)

    @property
    def title(self) -> str:
        """The trial as its log and Ray's dashboard name it."""
        return f"{self.method}, trial {self.trial}"

    def _begin(self, config: dict[str, Any]) -> None:
        self.method, self.place = config["method"], config
        self.spec = self.specs[self.method]
        super()._begin(config)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a checkpoint into the method's folder, and its place into Tune's."""
        folder = checkpoint_folder(self.place, self.trainer.epoch)
        folder.mkdir(parents=True, exist_ok=True)
        super().save_checkpoint(str(folder))
        Path(checkpoint_dir, PLACE).write_text(str(folder), encoding="utf-8")

    def restore_trainer(self, trainer: Trainer, checkpoint: str) -> None:
        """Give a Trainer the state that `save_checkpoint` has written; the folder is Tune's or the real one."""
        place = Path(checkpoint, PLACE)
        super().restore_trainer(trainer, place.read_text(encoding="utf-8") if place.exists() else checkpoint)
