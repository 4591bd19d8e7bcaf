#!/usr/bin/env bash
# up.sh: a real Kubernetes on this machine, without Docker; needs root. Prints the path of an administrator's kubeconfig.
#   NODES=3       how many nodes (kvm-1 ...), each with its own directories below $ROOT/nodes/<node>/host
#   RECREATE=1    replace the cluster even if a healthy one of this checkout is up
#   DIRECTDOWNLOAD_CLUSTER_ROOT=/var/tmp/directdownload-cluster    the directory of all files
# Any other cluster of these scripts on the machine is taken down first, also one of another checkout.
# Writes of the product are in $ROOT/logs/audit.log (audit-policy.yaml says which), one JSON object per line.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
for part in lib pki control-plane nodes teardown; do
  # shellcheck source=/dev/null
  . "$here/$part.sh"
done
NODES=${NODES:-3}

fingerprint() { # what a running cluster must have been started from to be left alone
  {
    echo "$CHECKOUT $NODES"
    cat "$CLUSTER_DIR"/{lib,pki,control-plane,nodes,node-main}.sh "$CLUSTER_DIR/audit-policy.yaml"
    readlink -f "$ROOT/bin/kube"
  } | sha256sum | cut -d' ' -f1
}

already_up() {
  local number
  [ "${RECREATE:-0}" != 1 ] || return 1
  [ "$(cat "$LIVE_ROOT_FILE" 2>/dev/null)" = "$ROOT" ] || return 1
  [ "$(cat "$ROOT/fingerprint" 2>/dev/null)" = "$(fingerprint)" ] || return 1
  [ "$(node_names | wc -l)" = "$NODES" ] && [ -e "$KUBECONFIG_OUT" ] || return 1
  control_plane_alive || return 1
  admin get --raw /readyz >/dev/null 2>&1 || return 1
  for number in $(seq "$NODES"); do
    node_alive "kvm-$number" && node_is_ready "$number" 2>/dev/null || return 1
  done
}

make_bridge() {
  # Distributions load these on demand, minimal ones not at all; where they are built in, modprobe fails and need not work.
  modprobe -a overlay br_netfilter 2>/dev/null || true
  ip link add "$BRIDGE" type bridge
  ip addr add "$NET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  sysctl -qw net.ipv4.ip_forward=1
  # Docker and some firewalls drop forwarded packets; pods of different nodes communicate over this bridge.
  if iptables -w -S FORWARD 2>/dev/null | grep -qx -- '-P FORWARD DROP'; then
    iptables -w -I FORWARD -i "$BRIDGE" -m comment --comment directdownload-cluster -j ACCEPT
    iptables -w -I FORWARD -o "$BRIDGE" -m comment --comment directdownload-cluster -j ACCEPT
  fi
}

bring_up() {
  local number
  rm -rf "$ROOT/logs"
  mkdir -p "$ROOT/logs" "$ROOT/nodes" "$CHECKOUT/.cluster/images"
  echo "$ROOT" >"$LIVE_ROOT_FILE"
  echo "$CHECKOUT" >"$ROOT/checkout"
  cp "$CLUSTER_DIR/audit-policy.yaml" "$ROOT/audit-policy.yaml"
  control_plane_identities
  make_bridge
  make_mount_points
  start_control_plane
  for number in $(seq "$NODES"); do node_start "$number"; done
  for number in $(seq "$NODES"); do wait_for 120 "node kvm-$number to be Ready" node_is_ready "$number"; done
  # A pod cannot be created before this exists.
  wait_for 60 "the default service account" admin get serviceaccount default
  kubeconfig admin "https://127.0.0.1:$API_PORT" "$KUBECONFIG_OUT"
  chown --reference="$CHECKOUT" "$CHECKOUT/.cluster" "$KUBECONFIG_OUT"
  fingerprint >"$ROOT/fingerprint"
}

[[ $NODES =~ ^[1-9][0-9]*$ ]] && [ "$NODES" -le "$MAX_NODES" ] || fail "NODES must be a number from 1 to $MAX_NODES, not '$NODES'"
need_root
take_lock
"$here/tools.sh" packages kube pause >&2
if already_up; then
  say "already up with $NODES nodes, left as it is (RECREATE=1 replaces it)"
else
  take_down
  need_free_ports
  started=$SECONDS
  bring_up
  say "$NODES nodes Ready after $((SECONDS - started)) s; state and logs in $ROOT"
fi
echo "$KUBECONFIG_OUT"
