# shellcheck shell=bash disable=SC2034
# Settings and small helpers that every script of this folder sources. Nothing here changes the machine.
#
# There is one cluster per machine, and one directory for all its files: unix socket paths are limited to 108
# characters, and a run must be able to find and end the leftovers of another checkout or of a crashed run.

ROOT=${DIRECTDOWNLOAD_CLUSTER_ROOT:-/var/tmp/directdownload-cluster}
CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
CHECKOUT=$(cd "$CLUSTER_DIR/../.." && pwd -P)
# Names the state root of the running cluster, even if it was started with another DIRECTDOWNLOAD_CLUSTER_ROOT.
LIVE_ROOT_FILE=/run/directdownload-cluster.root

NET=10.89.0          # hosts: $NET.1 is this machine (origin servers listen there), $NET.(10+N) is kvm-N
PODS=10.244          # pods of kvm-N: $PODS.N.0/24
SERVICES=10.96.0
BRIDGE=ddbr0
API_PORT=6443
ZONE=zone-1
MAX_NODES=200

KUBECONFIG_OUT=$CHECKOUT/.cluster/kubeconfig
export PATH="$ROOT/bin:$PATH:/usr/sbin:/sbin"

say() { echo "cluster: $*" >&2; }
fail() { say "error: $*"; exit 1; }

need_root() {
  [ "$(id -u)" = 0 ] || fail "$(basename "$0") needs root: it makes network namespaces and mounts. Run it with sudo."
  [ "${#ROOT}" -le 50 ] || fail "the state root '$ROOT' is longer than 50 characters: unix sockets below it would not fit. Set a shorter DIRECTDOWNLOAD_CLUSTER_ROOT."
  case $ROOT in /*) ;; *) fail "DIRECTDOWNLOAD_CLUSTER_ROOT must be an absolute path, not '$ROOT'" ;; esac
}

# One script at a time changes the cluster. Children must not keep the lock: daemons are started with 9>&-.
take_lock() {
  mkdir -p "$ROOT"
  exec 9>"$ROOT/lock"
  flock -w 600 9 || fail "another up, down or node command has held $ROOT/lock for 10 minutes"
}

wait_for() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "timed out waiting for $what; logs are in $ROOT/logs"
    sleep 0.2
  done
}

admin() { kubectl --kubeconfig "$ROOT/admin.kubeconfig" --request-timeout 5s "$@"; }

node_names() { # of the cluster in $ROOT, whatever their state
  local dir
  for dir in "$ROOT"/nodes/kvm-*; do [ -d "$dir" ] && basename "$dir"; done | sort -V
}

# --- process groups. Every process of the cluster starts in its own control group, so that ending the cluster means
# ending the members of the groups: unlike a file with a process id, a group cannot name a foreign process.
cgroup_path() { # NAME
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo "/sys/fs/cgroup/directdownload/$1"
  else
    echo "/sys/fs/cgroup/pids/directdownload/$1"
  fi
}

cgroup_pids() { # PATH...: the processes in these groups and the groups below them
  local path
  for path in "$@"; do
    [ ! -d "$path" ] || find "$path" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | sort -un
}

cgroup_commands() { # NAME: the command names in a group
  local pid
  for pid in $(cgroup_pids "$(cgroup_path "$1")"); do cat "/proc/$pid/comm" 2>/dev/null; done
}

cgroup_kill() { # PATH...: end all processes in these groups, then remove the groups
  local pids path tries
  for tries in $(seq 100); do
    pids=$(cgroup_pids "$@")
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null
    sleep 0.1
  done
  [ -z "${pids:-}" ] || say "warning: these processes did not end in $((tries / 10)) s: $pids"
  for path in "$@"; do
    [ ! -d "$path" ] || find "$path" -depth -type d -exec rmdir {} \; 2>/dev/null
  done
  return 0
}

daemon() { # GROUP LOG COMMAND...: start it in a session and a control group of its own
  local group log=$2
  group=$(cgroup_path "$1")
  shift 2
  mkdir -p "$group"
  # A clean environment: the caller's proxy settings would redirect the API server's calls to kubelets.
  # GOGC: their garbage collectors would take a fifth of their time; the memory is there.
  # shellcheck disable=SC2016
  setsid env -i PATH="$PATH" HOME=/root GOGC=400 bash -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' _ "$group" "$@" \
    >"$log" 2>&1 </dev/null 9>&- &
}
