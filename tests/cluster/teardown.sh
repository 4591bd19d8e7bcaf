# shellcheck shell=bash
# Ends any cluster of these scripts, in any state. Sourced after lib.sh and nodes.sh; it needs no notes of the old run:
# it looks at namespaces, control groups, interfaces and mounts.

old_node_numbers() {
  {
    node_names
    ip netns list 2>/dev/null | cut -d' ' -f1
    find "$(cgroup_path '')" -maxdepth 1 -name 'kvm-*' -printf '%f\n' 2>/dev/null
  } | sed -n 's/^kvm-\([0-9]\{1,3\}\)$/\1/p' | sort -un
}

unmount_below() { # PATH: tests mount small file systems into a node's directories
  local target
  while read -r target; do
    umount -l "$target" 2>/dev/null || say "warning: cannot unmount $target"
  done < <(awk -v p="$1/" 'index($5, p) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
}

remove_firewall_rules() {
  local direction
  command -v iptables >/dev/null || return 0
  for direction in -i -o; do
    while iptables -w -D FORWARD "$direction" "$BRIDGE" -m comment --comment directdownload-cluster -j ACCEPT 2>/dev/null; do :; done
  done
}

take_down_in() { # STATE_ROOT
  local ROOT=$1 number path
  for number in $(old_node_numbers); do node_kill "$number"; done
  # Also the groups without a node: those of the control plane, and of a half-made node.
  cgroup_kill "$(cgroup_path '')"
  # The shared parents of containers; containers of others keep them.
  rmdir /sys/fs/cgroup/k8s.io /sys/fs/cgroup/*/k8s.io 2>/dev/null
  unmount_below "$ROOT/nodes"
  rm -rf --one-file-system "$ROOT"/{nodes,etcd,pki,audit-policy.yaml,checkout,fingerprint} "$ROOT"/*.kubeconfig
  if [ -e "$ROOT/made-dirs" ]; then
    while read -r path; do rmdir --ignore-fail-on-non-empty "$path" 2>/dev/null; done < <(tac "$ROOT/made-dirs")
    rm -f "$ROOT/made-dirs"
  fi
}

take_down() ( # a subshell that goes on after errors: a half-made cluster lacks things at every step
  set +e
  live=$(cat "$LIVE_ROOT_FILE" 2>/dev/null)
  if [ -n "$live" ] && [ "$live" != "$ROOT" ] && [ -d "$live" ]; then
    say "ending the cluster of another state root, $live"
    take_down_in "$live"
  fi
  checkout=$(cat "$ROOT/checkout" 2>/dev/null)
  take_down_in "$ROOT"
  remove_firewall_rules
  ip link del "$BRIDGE" 2>/dev/null
  # The kubeconfig of a removed cluster would cause confusing errors.
  [ -z "$checkout" ] || rm -f "$checkout/.cluster/kubeconfig"
  rm -f "$LIVE_ROOT_FILE" "$KUBECONFIG_OUT"
  true
)
