"""A Ray cluster of two nodes on this machine, in a process of its own, commanded by lines on its standard input.

It prints the cluster's address and the pids of the nodes' raylets as JSON; `kill` kills the second node: its raylet and
the processes that this has started, which would notice only seconds later.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from ray.cluster_utils import Cluster


def children(parent: int) -> list[int]:
    """The processes that a process has started and that still live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it is gone
            start, _, rest = stat.read_text().rpartition(")")
            if int(rest.split()[1]) == parent:
                found.append(int(start.split()[0]))
    return found


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        nodes = [cluster.head_node, cluster.add_node(**options)]
        pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
        print(json.dumps({"address": cluster.address, "raylets": pids}), flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                for pid in [pids[1], *children(pids[1])]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
