"""What all tests share: markers by folder, hidden GPUs, one process for all that start Ray, networks, a cache."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.networks import smooth_network
from tests.support.unit_limits import AIM_SECONDS, CPU_SECONDS

UNIT = Path(__file__).parent / "unit"
VISIBLE = "CUDA_VISIBLE_DEVICES"

HAS_GPU = torch.cuda.is_available()
GPUS = os.environ.get(VISIBLE)
os.environ[VISIBLE] = ""  # before any test or fixture: Ray, and every process that a test starts, inherits it
if not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported, which either compiles kernels or interprets them


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark unit tests and those that use Ray; with parallel processes, one of these runs all that use Ray."""
    for item in items:
        if item.path.is_relative_to(UNIT):
            item.add_marker(pytest.mark.unit)
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
        if item.get_closest_marker("ray") and config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group("ray"))
        if item.get_closest_marker("gpu") and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the unit tests whose CPU time is above the aim."""
    seconds = {
        report.nodeid: value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == CPU_SECONDS and value > AIM_SECONDS
    }
    if seconds:
        terminalreporter.section(f"unit tests of more than {AIM_SECONDS} s of CPU time")
    for test, value in sorted(seconds.items(), key=lambda entry: -entry[1]):
        terminalreporter.line(f"{value:.1f}s {test}")


@pytest.fixture(autouse=True)
def hidden_gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only tests that are marked `gpu` see a GPU: the others compare numbers with those of the CPU."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    elif GPUS is None:
        monkeypatch.delenv(VISIBLE)
    else:
        monkeypatch.setenv(VISIBLE, GPUS)


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
