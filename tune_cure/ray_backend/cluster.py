"""Checks of a Ray cluster before a search joins it, and the devices of its machines."""

import socket
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_cure.ray_backend.resources import DeviceError, Machine

CLIENT = "ray://"  # Ray Client, which would run the search's own process on the cluster
CONNECT_SECONDS = 10.0
CHECK_SECONDS = 120.0  # for a machine, perhaps a busy one, to start a process


class ClusterError(DeviceError):
    """A cluster that cannot be joined, or that cannot run a search."""


def check_address(address: str) -> None:
    """Check that `address` is one that a search can join, and that something answers there.

    Raises:
        ClusterError: It is not, or nothing does.
    """
    if address == "auto":
        return  # Ray looks for a node on this machine, at once
    if address.startswith(CLIENT):
        raise ClusterError(
            f"--address {address}: Ray Client is not supported; use --address HOST:PORT on a machine of the cluster, "
            "or `ray job submit` from elsewhere (docs/cluster.md)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"--address {address}: auto or HOST:PORT is needed, for example 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--address {address}: no Ray cluster answers there ({error})") from error


def machines() -> list[Machine]:
    """Return the devices of each living machine of the cluster."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(amounts.get("CPU", 0)), amounts.get("GPU", 0.0)) for amounts in resources]


def check_folder(folder: Path) -> None:
    """Check that each machine of the cluster sees the run's folder.

    Raises:
        ClusterError: A machine does not see it, or cannot run tune_cure.
    """
    marker = folder / ".seen-by-all"
    marker.touch()
    try:
        pending = {
            ray.remote(_exists)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(str(marker)): node["NodeManagerHostname"]
            for node in ray.nodes()
            if node["Alive"]
        }
        for reference, host in pending.items():
            try:
                is_seen = ray.get(reference, timeout=CHECK_SECONDS)
            except ray.exceptions.RayError as error:
                raise ClusterError(f"{host}: cannot run tune_cure: {_last_line(error)}") from error
            if not is_seen:
                raise ClusterError(
                    f"{host}: does not see {folder}; --output must be a folder that all machines of the cluster share"
                )
    finally:
        marker.unlink()


def _exists(path: str) -> bool:
    return Path(path).exists()


def _last_line(error: Any) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
