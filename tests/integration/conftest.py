"""What integration tests share: one Ray, and a finished search."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.spaces import tiny


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray that all searches of the tests share: starting one takes seconds."""
    import ray

    from tune_cure.ray_backend.session import start_ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def finished_search(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search of eight trials, with its tables and best model; for reading only."""
    from tune_cure.ray_backend import tuner
    from tune_cure.reports import tables
    from tune_cure.search.results import SearchResult

    folder = tmp_path_factory.mktemp("finished")
    assert tuner.run(tiny(folder), folder).finished
    tables.write_tables(SearchResult(folder))
    tables.write_best_model(SearchResult(folder))
    return folder
