"""The Optuna study of a search, and where it is kept."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.event import listen

from tune_cure.search import run_files
from tune_cure.search.proposals import samplers, warm_start
from tune_cure.search.proposals.auto_sampler import resolve_sampler
from tune_cure.search.proposals.distinct_sampler import DistinctSampler
from tune_cure.search.space.config import SearchSpec


def create_study(spec: SearchSpec, storage: BaseStorage, num_drawn: int) -> optuna.Study:
    """Return an empty study.

    Args:
        spec: The search: its sampler, its seed, and the direction of each metric.
        storage: Where the study is kept.
        num_drawn: How many trials were drawn with the same seed before, which the sampler must not draw again.
    """
    sampler = samplers.make_sampler(resolve_sampler(spec)[0], spec.search.seed, num_drawn)
    return optuna.create_study(
        storage=storage,
        sampler=DistinctSampler(sampler, spec, num_drawn),
        pruner=optuna.pruners.NopPruner(),
        study_name=spec.name,
        directions=[warm_start.STUDY_DIRECTIONS[spec.search.mode]] * len(spec.search.metrics),
    )


def create_storage(folder: Path) -> BaseStorage:
    """Return an empty database in `folder`, in place of one that an interruption left behind.

    The database of an interrupted search may be ahead of the journal, or damaged. The study is rebuilt from the
    journal, so the new database does not wait for the disk.
    """
    for leftover in folder.glob(f"{run_files.STUDY}*"):  # SQLite's own journal, too
        leftover.unlink()
    storage = RDBStorage(warm_start.sqlite_url(folder / run_files.STUDY))

    def do_not_wait(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    listen(storage.engine, "connect", do_not_wait)
    storage.engine.dispose()  # the connections that were opened before
    return storage
