"""Data of a search on a cluster: read on each machine, or sent to it once through Ray's object store."""

import logging

import numpy as np
import ray

from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.data.prepared import prepare_and_map, prepared, received, summarize
from tune_cure.data.source import DataError
from tune_cure.data.splits import Splits

_logger = logging.getLogger(__name__)


class DataBroadcast:
    """Prepared data of the machine that drives a search, for machines that lack it."""

    def __init__(self, spec: DataSpec) -> None:
        file, content = prepare_and_map(spec.dataset, spec.folder, spec.image_size, True)
        self.name, self.summary = file.name, summarize(content)
        self.content = ray.put(np.asarray(np.memmap(file, dtype=np.uint8, mode="r")))

    def load(self, spec: DataSpec) -> Splits:
        """Return the data without a download: from this machine's files if it has the same, else from what was sent."""
        try:
            own = prepared(spec.dataset, spec.folder, spec.image_size, download=False)
        except DataError as error:
            _logger.info("%s; taking what the search's driver sends", error)
        else:
            if summarize(own) == self.summary:
                return splits.split(spec, own)
            _logger.warning("%s: is not what the search's driver has; taking what it sends", own["source"])
        return splits.split(spec, received(self.name, lambda: memoryview(ray.get(self.content))))


def load(spec: DataSpec, broadcast: DataBroadcast | None) -> Splits:
    """Return the data of a search on this machine; `broadcast` is None unless the search runs on a cluster."""
    return broadcast.load(spec) if broadcast else splits.load(spec)
