# shellcheck shell=bash
# Nodes kvm-1, kvm-2, ...: each is a network, mount and UTS namespace with its own containerd, kubelet and kube-proxy.
# Sourced after lib.sh and pki.sh.

node_dirs() { # NUMBER
  local dir="$ROOT/nodes/kvm-$1"
  mkdir -p "$dir"/{containerd,run,kubelet,log,opt,cni/conf} "$dir"/host/{etc/cloudstack,var/lib/libvirt/images,var/lib/directdownload}
}

node_network() { # NUMBER: a veth pair into the bridge; the node routes the range of its own pods
  local id=kvm-$1 ip=$NET.$((10 + $1))
  ip netns add "$id"
  ip link add "dd-$1" type veth peer name eth0 netns "$id"
  ip link set "dd-$1" master "$BRIDGE" up
  ip -n "$id" addr add "$ip/24" dev eth0
  ip -n "$id" link set eth0 up
  ip -n "$id" link set lo up
  ip -n "$id" route add default via "$NET.1"
  ip netns exec "$id" sysctl -qw net.ipv4.ip_forward=1
  ip route replace "$PODS.$1.0/24" via "$ip"
}

node_config() { # NUMBER
  local id=kvm-$1 dir="$ROOT/nodes/kvm-$1"
  sign "$id" "/O=system:nodes/CN=system:node:$id" "DNS:$id,IP:$NET.$((10 + $1))"
  kubeconfig "$id" "https://$NET.1:$API_PORT" "$dir/kubeconfig"
  cat >"$dir/cni/conf/10-bridge.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$dir/cni/ipam",
           "ranges": [[{"subnet": "$PODS.$1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower oom_score_adj, and every sandbox fails with
  # "can't get final child's PID".
  cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$dir/run/containerd"
[grpc]
  address = "$dir/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni/conf"
TOML
  # No QoS groups: machines with cgroup v1 and no systemd lack what they need; containers keep their own limits.
  # imageGC at 100 %: images are imported, not pulled, so the kubelet must never collect one on a fullish disk.
  # The cluster has no DNS; an address that refuses at once is better than a resolver that times out.
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$dir/run/containerd.sock
authentication: {x509: {clientCAFile: $ROOT/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: $ROOT/pki/$id.crt
tlsPrivateKeyFile: $ROOT/pki/$id.key
volumePluginDir: /var/lib/kubelet/volumeplugins
clusterDNS: [$NET.1]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeLeaseDurationSeconds: 20
nodeStatusUpdateFrequency: 5s
YAML
  echo "nameserver $NET.1" >"$dir/resolv.conf"
}

# Directories that a node mounts its own over. Missing ones are created, and noted for down.sh.
NODE_MOUNTS=(/etc/cloudstack /var/lib/libvirt/images /var/lib/directdownload /var/lib/kubelet)
make_mount_points() {
  local path parent
  for path in "${NODE_MOUNTS[@]}"; do
    parent=$(dirname "$path")
    [ -d "$parent" ] || { mkdir -p "$parent"; echo "$parent" >>"$ROOT/made-dirs"; }
    [ -d "$path" ] || { mkdir "$path"; echo "$path" >>"$ROOT/made-dirs"; }
  done
}

node_start() { # NUMBER: start it; it registers by itself
  local id=kvm-$1
  node_dirs "$1"
  node_config "$1"
  node_network "$1"
  # nsenter, not `ip netns exec`, which mounts a fresh /sys, in which the kubelet finds no control groups
  daemon "$id" "$ROOT/logs/$id.log" nsenter --net="/run/netns/$id" unshare --mount --uts \
    bash "$CLUSTER_DIR/node-main.sh" "$ROOT" "$id" "$NET.$((10 + $1))" "$PODS.0.0/16" "$ZONE" "$CHECKOUT/.cluster/images"
}

# Ends a node as a power cut does: none of its processes can shut down cleanly. Containers have their own groups
# (/k8s.io/<id>), and survive their containerd and their shim; containerd's state directory lists them.
node_kill() ( # NUMBER; a subshell that goes on after errors: of a crashed node any part may be missing
  set +e
  id=kvm-$1 dir="$ROOT/nodes/kvm-$1" groups=()
  groups+=("$(cgroup_path "$id")")
  for path in "$dir"/run/containerd/io.containerd.runtime.v2.task/k8s.io/*; do
    [ ! -d "$path" ] || groups+=(/sys/fs/cgroup/k8s.io/"${path##*/}" /sys/fs/cgroup/*/k8s.io/"${path##*/}")
  done
  cgroup_kill "${groups[@]}"
  if [ -e "/run/netns/$id" ]; then
    # processes that tests started there with `ip netns exec`
    ip netns pids "$id" | xargs -r kill -9 2>/dev/null
    ip netns del "$id" || say "warning: cannot remove network namespace $id"
  fi
  # The kernel removes the pair with its namespace, but only later, and a restart needs the name.
  ip link del "dd-$1" 2>/dev/null
  ip route del "$PODS.$1.0/24" 2>/dev/null
  # /run is empty after a reboot
  rm -rf --one-file-system "$dir/run"
  true
)

node_is_ready() { # NUMBER
  [ "$(admin get node "kvm-$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

node_alive() { # NAME
  local commands name
  commands=$(cgroup_commands "$1")
  for name in containerd kubelet kube-proxy; do
    grep -qx "$name" <<<"$commands" || return 1
  done
}
