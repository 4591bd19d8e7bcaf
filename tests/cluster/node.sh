#!/usr/bin/env bash
# node.sh COMMAND N: one node of the running cluster.
#   add N      a further node kvm-N joins; returns when it is Ready
#   stop N     power cut: all its processes, pods included, are gone at once; its disks stay
#   start N    power on after stop; returns when it is Ready
#   kubelet N  its kubelet ends and starts again, and nothing else; returns when the node is Ready
#   remove N   stop, delete the Node object and its disks
#   exec N COMMAND...   run a command as root of that machine, in its network and with its files
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
for part in lib pki nodes; do
  # shellcheck source=/dev/null
  . "$here/$part.sh"
done
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }

wait_ready() { wait_for 120 "node kvm-$1 to be Ready" node_is_running_and_ready "$1"; }
# Ready alone may be the kubelet's report from before the power cut.
node_is_running_and_ready() { node_alive "kvm-$1" && node_is_ready "$1" && lease_is_newer_than_start "$1"; }
lease_is_newer_than_start() {
  local renewed
  renewed=$(admin -n kube-node-lease get lease "kvm-$1" -o 'jsonpath={.spec.renewTime}') || return 1
  [ "$(date -d "$renewed" +%s)" -ge "$begun" ]
}

process_of() { # NUMBER NAME: the process of that name on the node
  local pid
  for pid in $(cgroup_pids "$(cgroup_path "kvm-$1")"); do
    [ "$(cat "/proc/$pid/comm")" != "$2" ] || { echo "$pid"; return; }
  done
  fail "kvm-$1 is not running"
}

node_exec() { # NUMBER COMMAND...
  local pid
  pid=$(process_of "$1" containerd)
  shift
  exec nsenter --target "$pid" --net --mount --uts -- "$@"
}

if [ "${1:-}" = exec ] && [ $# -ge 3 ]; then
  need_root
  shift
  node_exec "$@"
fi
[ $# = 2 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] && [ "$2" -le "$MAX_NODES" ] || usage
need_root
take_lock
[ -e "$ROOT/fingerprint" ] || fail "no cluster is up in $ROOT: run up.sh first"
begun=$(date +%s)
dir=$ROOT/nodes/kvm-$2
case $1 in
  add)
    [ ! -d "$dir" ] || fail "kvm-$2 exists already (node.sh start $2 starts a stopped one)"
    node_start "$2"
    wait_ready "$2"
    ;;
  stop)
    [ -d "$dir" ] || fail "there is no node kvm-$2"
    node_kill "$2"
    ;;
  start)
    [ -d "$dir" ] || fail "there is no node kvm-$2 (node.sh add $2 makes one)"
    ! node_alive "kvm-$2" || { say "kvm-$2 is running already"; exit 0; }
    node_kill "$2" # leftovers of a crash
    node_start "$2"
    wait_ready "$2"
    ;;
  kubelet)
    pid=$(process_of "$2" kubelet)
    mapfile -d '' -t command <"/proc/$pid/cmdline"
    kill "$pid"
    tail --pid="$pid" -f /dev/null
    daemon "kvm-$2" "$ROOT/logs/kvm-$2-kubelet-again.log" \
      nsenter --target "$(process_of "$2" containerd)" --net --mount --uts -- "${command[@]}"
    wait_ready "$2"
    ;;
  remove)
    node_kill "$2"
    unmounted=$(awk -v p="$dir/" 'index($5, p) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
    [ -z "$unmounted" ] || xargs -r umount -l <<<"$unmounted"
    rm -rf --one-file-system "$dir"
    admin delete node "kvm-$2" --ignore-not-found >&2
    ;;
  *) usage ;;
esac
