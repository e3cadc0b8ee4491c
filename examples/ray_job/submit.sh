#!/usr/bin/env bash
# Starts a search on a Ray cluster from any machine that reaches its dashboard, and follows what it prints.
#
#     RAY_API_SERVER_ADDRESS=http://HEAD:8265 examples/ray_job/submit.sh SPACE.yaml FOLDER [more options of run_search.py]
#
# FOLDER is shared by all machines of the cluster. The working tree (without what git ignores) goes along; what it
# depends on must be installed there. Ctrl-C ends the following, not the search: that is `ray job stop ID`, after
# which the same command with --resume continues it.
set -euo pipefail
space=${1:?SPACE.yaml is missing}
folder=${2:?FOLDER is missing}
shift 2
cd "$(dirname "$0")/../.."
exec ray job submit --working-dir . -- \
  python run_search.py --space "$space" --address auto --output "$folder" "$@"
