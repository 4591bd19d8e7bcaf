#!/usr/bin/env bash
# make demo: a real cluster, the operator, and one template on every host, shown live. See demo.py for what it does.
#   KEEP=1                            leave everything up, and print how to look around and how to take it down
#   KUBECONFIG=... IMAGE=...          use this cluster and image instead of making them
#   ORIGIN_ADDRESS=...                then: the address under which that cluster's nodes reach this machine
#   NODES=3 SIZE_MIB=256 RATE_MIB=24  nodes of the local cluster, size of the template, speed of each download
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:${DIRECTDOWNLOAD_CLUSTER_ROOT:-/var/tmp/directdownload-cluster}/bin:$PATH:/usr/sbin:/sbin"
exec python -m tests.demo.demo
