"""The data of a search on a cluster: each machine's own, or sent to it once, through Ray's object store."""

import logging

import numpy as np
import ray

from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.data.prepared import prepared_file, received
from tune_cure.data.source import DataError
from tune_cure.data.splits import Splits

_logger = logging.getLogger(__name__)


class DataBroadcast:
    """The prepared data of the machine that drives a search, for those that do not have it."""

    def __init__(self, spec: DataSpec) -> None:
        file = prepared_file(spec.dataset, spec.folder, spec.image_size)
        self.name = file.name
        self.content = ray.put(np.asarray(np.memmap(file, dtype=np.uint8, mode="r")))

    def load(self, spec: DataSpec) -> Splits:
        """`data.load` without a download: from this machine's files if it has them, else from what was sent."""
        try:
            return splits.load(spec, download=False)
        except DataError as error:
            _logger.info("%s; taking what the search's driver sends", error)
            return splits.split(spec, received(self.name, lambda: memoryview(ray.get(self.content))))


def load(spec: DataSpec, broadcast: DataBroadcast | None) -> Splits:
    """The data of a search on the machine at hand; `broadcast` is there on a cluster."""
    return broadcast.load(spec) if broadcast else splits.load(spec)
