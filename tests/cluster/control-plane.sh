# shellcheck shell=bash
# etcd, API server, controller manager and scheduler. Sourced after lib.sh and pki.sh.

control_plane_identities() {
  make_ca
  sign apiserver /CN=kube-apiserver \
    "IP:$SERVICES.1,IP:127.0.0.1,IP:$NET.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost"
  sign kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  sign admin /O=system:masters/CN=admin
  sign controller-manager /CN=system:kube-controller-manager
  sign scheduler /CN=system:kube-scheduler
  sign proxy /CN=system:kube-proxy
  local user
  for user in admin controller-manager scheduler; do
    kubeconfig "$user" "https://127.0.0.1:$API_PORT" "$ROOT/$user.kubeconfig"
  done
  kubeconfig proxy "https://$NET.1:$API_PORT" "$ROOT/proxy.kubeconfig"
}

need_free_ports() {
  local port used
  for port in 2379 2380 "$API_PORT" 10257 10259; do
    used=$(ss -ltnpH "sport = :$port")
    [ -z "$used" ] || fail "port $port is taken, and not by a cluster of ours: $used"
  done
}

start_control_plane() {
  local cp=control-plane
  # etcd never syncs to disk: the cluster need not survive a crash of the machine.
  daemon $cp "$ROOT/logs/etcd.log" etcd --name test --data-dir "$ROOT/etcd" --log-level warn --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster test=http://127.0.0.1:2380
  daemon $cp "$ROOT/logs/kube-apiserver.log" kube-apiserver --etcd-servers http://127.0.0.1:2379 \
    --secure-port "$API_PORT" --advertise-address "$NET.1" --service-cluster-ip-range "$SERVICES.0/16" \
    --tls-cert-file "$ROOT/pki/apiserver.crt" --tls-private-key-file "$ROOT/pki/apiserver.key" --client-ca-file "$ROOT/pki/ca.crt" \
    --kubelet-client-certificate "$ROOT/pki/kubelet-client.crt" --kubelet-client-key "$ROOT/pki/kubelet-client.key" \
    --kubelet-certificate-authority "$ROOT/pki/ca.crt" --kubelet-preferred-address-types InternalIP \
    --service-account-key-file "$ROOT/pki/sa.pub" --service-account-signing-key-file "$ROOT/pki/sa.key" \
    --service-account-issuer https://kubernetes.default.svc --allow-privileged \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --audit-policy-file "$ROOT/audit-policy.yaml" --audit-log-path "$ROOT/logs/audit.log"
  wait_for 90 "the API server" admin get --raw /readyz
  # These two come after /readyz: before it they exit because their roles do not exist yet.
  # 20 s instead of 50 s until a silent node counts as down: tests that stop a node wait for it.
  daemon $cp "$ROOT/logs/kube-controller-manager.log" kube-controller-manager --kubeconfig "$ROOT/controller-manager.kubeconfig" \
    --authentication-kubeconfig "$ROOT/controller-manager.kubeconfig" --authorization-kubeconfig "$ROOT/controller-manager.kubeconfig" \
    --service-account-private-key-file "$ROOT/pki/sa.key" --root-ca-file "$ROOT/pki/ca.crt" --use-service-account-credentials \
    --cluster-signing-cert-file "$ROOT/pki/ca.crt" --cluster-signing-key-file "$ROOT/pki/ca.key" --leader-elect=false \
    --node-monitor-period 2s --node-monitor-grace-period 20s
  daemon $cp "$ROOT/logs/kube-scheduler.log" kube-scheduler --kubeconfig "$ROOT/scheduler.kubeconfig" \
    --authentication-kubeconfig "$ROOT/scheduler.kubeconfig" --authorization-kubeconfig "$ROOT/scheduler.kubeconfig" \
    --leader-elect=false
}

control_plane_alive() {
  local commands name
  commands=$(cgroup_commands control-plane)
  # the kernel keeps 15 characters of a command's name
  for name in etcd kube-apiserver kube-controller kube-scheduler; do
    grep -q "^$name" <<<"$commands" || return 1
  done
}
