"""A Ray cluster of two nodes on this machine, in a process of its own, commanded by lines on its standard input.

It prints the cluster's address and the pids of the nodes' raylets as JSON; `kill` kills the second node's raylet.
"""

import json
import os
import signal
import sys

from ray.cluster_utils import Cluster


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
                os.kill(pids[1], signal.SIGKILL)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
