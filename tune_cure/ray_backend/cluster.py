"""A Ray cluster that a search joins: whether it can, and what its machines have."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_cure.ray_backend.resources import DeviceError, Machine
from tune_cure.search.journal import Event, Journal, JournalFollower

CLIENT = "ray://"
CONNECT_SECONDS = 10.0
FOLLOW_SECONDS = 2.0
CHECK_SECONDS = 120.0  # a machine that is busy takes its time to start a process


class ClusterError(DeviceError):
    """A cluster that cannot be joined, or that cannot run a search."""


def check_address(address: str) -> None:
    """Whether `address` is one that a search can join, and somebody answers there.

    Raises:
        ClusterError: It is not, or nobody does.
    """
    if address == "auto":
        return  # Ray looks for a node on this machine, at once
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(
            f"--address {address}: auto, HOST:PORT or {CLIENT}HOST:PORT is needed, for example {CLIENT}10.0.0.1:10001"
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--address {address}: no Ray cluster answers there ({error})") from error


def by_client() -> bool:
    """Whether this process talks to the cluster through Ray Client: then the search's controller runs there."""
    return bool(ray.util.client.ray.is_connected())


class Follower:
    """Tells `journal.on_event` and `also` of the lines that another process writes there, from now to the exit."""

    def __init__(self, journal: Journal, also: Callable[[Event], None]) -> None:
        self.journal, self.also, self.tail = journal, also, JournalFollower(journal.path)
        for _ in self.tail.read():
            pass  # what was there before is known
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()
        self._tell()

    def _follow(self) -> None:
        while not self.over.wait(FOLLOW_SECONDS):
            self._tell()

    def _tell(self) -> None:
        for event in self.tail.read():
            self.also(event)
            if self.journal.on_event:
                self.journal.on_event(event)


def machines() -> list[Machine]:
    """What each living machine of the cluster has."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(has.get("CPU", 0)), has.get("GPU", 0.0)) for has in found]


def check_folder(folder: Path) -> None:
    """Whether each machine of the cluster sees the run's folder.

    Raises:
        ClusterError: One does not, or it cannot run tune_cure.
    """
    marker = folder / ".seen-by-all"
    marker.touch()
    try:
        pending = {
            ray.remote(_sees)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(str(marker)): node["NodeManagerHostname"]
            for node in ray.nodes()
            if node["Alive"]
        }
        for reference, host in pending.items():
            try:
                sees = ray.get(reference, timeout=CHECK_SECONDS)
            except ray.exceptions.RayError as error:
                raise ClusterError(f"{host}: cannot run tune_cure: {_first_line(error)}") from error
            if not sees:
                raise ClusterError(
                    f"{host}: does not see {folder}; --output must be a folder that all machines of the cluster share"
                )
    finally:
        marker.unlink()


def _sees(path: str) -> bool:
    return Path(path).exists()


def _first_line(error: Any) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
