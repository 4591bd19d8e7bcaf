#!/usr/bin/env bash
# The life of one node, run by nodes.sh inside the node's namespaces:
#   node-main.sh ROOT NAME ADDRESS CLUSTER_CIDR ZONE IMAGES
# Ends as the kubelet. IMAGES: a folder of image archives of the checkout, imported beside the state root's own.
set -euo pipefail
root=$1 id=$2 ip=$3 pods=$4 zone=$5 images=$6
dir=$root/nodes/$id

hostname "$id"
# Shared below this namespace: pods with HostToContainer must see later mounts of the host. unshare has separated the
# machine's own mounts, so that they do not include mounts made here.
mount --make-rshared /
for path in etc/cloudstack var/lib/libvirt/images var/lib/directdownload; do mount --bind "$dir/host/$path" "/$path"; done
mount --bind "$dir/kubelet" /var/lib/kubelet
mount --bind "$dir/log" /var/log
mount --bind "$dir/run" /run

containerd --config "$dir/containerd.toml" >"$root/logs/$id-containerd.log" 2>&1 &
ctr_=(ctr --address "$dir/run/containerd.sock" --namespace k8s.io)
for _ in $(seq 300); do
  ! "${ctr_[@]}" version >/dev/null 2>&1 || break
  sleep 0.1
done
for archive in "$root"/cache/images/*.tar "$images"/*.tar; do
  [ ! -e "$archive" ] || "${ctr_[@]}" images import "$archive"
done
kube-proxy --kubeconfig "$root/proxy.kubeconfig" --hostname-override "$id" --proxy-mode iptables --cluster-cidr "$pods" \
  --conntrack-max-per-core 0 >"$root/logs/$id-proxy.log" 2>&1 &
exec kubelet --kubeconfig "$dir/kubeconfig" --config "$dir/kubelet.yaml" --root-dir /var/lib/kubelet \
  --hostname-override "$id" --node-ip "$ip" --node-labels "topology.kubernetes.io/zone=$zone" >"$root/logs/$id-kubelet.log" 2>&1
