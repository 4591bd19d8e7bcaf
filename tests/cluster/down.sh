#!/usr/bin/env bash
# down.sh: end the cluster of this machine, from any checkout and in any state: processes, namespaces, interfaces,
# routes, mounts and state are removed. The caches (binaries, base image, image layers) stay, the logs until the next up.sh.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
for part in lib nodes teardown; do
  # shellcheck source=/dev/null
  . "$here/$part.sh"
done
need_root
command -v ip >/dev/null || fail "iproute2 is missing, so no cluster of ours can be up"
take_lock
take_down
left=$(cgroup_pids "$(cgroup_path '')")
[ -z "$left" ] || fail "these processes of the cluster are still there: $left"
! ip link show "$BRIDGE" >/dev/null 2>&1 || fail "the bridge $BRIDGE is still there"
say "down"
