"""What integration tests share: one Ray."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray that all searches of the tests share: starting one takes seconds."""
    import ray

    from tune_cure.ray_backend.session import start_ray

    start_ray()
    yield
    ray.shutdown()
