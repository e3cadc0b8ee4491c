"""What the tests share: networks, a cache folder of their own, one Ray."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.support.networks import smooth_network


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of parallel processes of tests (`make test`), one runs all that starts a Ray or uses that of `ray_session`."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if item.get_closest_marker("slow") or "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture
def network() -> nn.Module:
    return smooth_network()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Six float64 images (2×5×5, in [0, 1]) and their labels."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 2, 5, 5, dtype=torch.float64, generator=generator)
    return images, torch.randint(0, 3, (6,), generator=generator)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """torch on one thread, as in a trial with cpus_per_trial 1; small operations are faster so, too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared data goes to a temporary folder; Ray's workers inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_CURE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray that all searches of the tests share: starting one takes seconds."""
    import ray

    from tune_cure.ray_backend.session import start_ray

    start_ray()
    yield
    ray.shutdown()
