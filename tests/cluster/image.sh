#!/usr/bin/env bash
# image.sh: build the product's image with the Containerfile, and import it into every running node.
# The archive stays in .cluster/images, where nodes that start later find it. Prints the image's digest.
#   BASE=<image reference>   build on this image instead of the one made here with mmdebstrap
# The machine's CA bundle (SSL_CERT_FILE, PIP_CERT, REQUESTS_CA_BUNDLE) and pip's index settings reach the build as build
# secrets: they exist only while pip runs, and in no layer.
#
# image.sh scratch PROGRAM NAME ARCHIVE: an image of one static program (for the pause image of tools.sh).
# image.sh vm ARCHIVE: localhost/vm:1, this machine's qemu and what it loads, for pods that run virtual machines.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=lib.sh
. "$here/lib.sh"
NAME=localhost/direct-download-operator:dev
BASE_NAME=localhost/debian:trixie-slim
ARCHIVE=$CHECKOUT/.cluster/images/direct-download-operator.tar

need_root
# buildah leaves mounts behind, on purpose or when interrupted; its own mount namespace removes them at its end.
if [ "${IN_MOUNT_NAMESPACE:-}" != "$ROOT" ]; then
  # tools.sh calls this for the images of its own, after it installed the packages
  case ${1:-} in scratch | vm) ;; *) "$here/tools.sh" packages >&2 ;; esac
  IN_MOUNT_NAMESPACE=$ROOT exec unshare --mount "$here/image.sh" "$@"
fi
mkdir -p "$ROOT/cache/images" "$(dirname "$ARCHIVE")"
bld() { buildah --root "$ROOT/cache/buildah" --runroot "$ROOT/cache/buildah-run" --storage-driver overlay "$@"; }

archive() { # NAME FILE [DIGEST_FILE]
  rm -f "$2.new"
  bld push -q ${3:+--digestfile "$3"} "$1" "oci-archive:$2.new:$1" >&2
  mv "$2.new" "$2"
}

scratch() { # PROGRAM NAME ARCHIVE
  local container
  container=$(bld from scratch)
  bld add -q "$container" "$1" "/$(basename "$1")" >/dev/null
  bld config --entrypoint "[\"/$(basename "$1")\"]" "$container"
  bld commit -q --rm "$container" "$2" >/dev/null
  archive "$2" "$3"
}

vm() { # ARCHIVE
  local work program container
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  for program in qemu-system-x86_64 qemu-img; do
    program=$(command -v "$program")
    { echo "$program"; ldd "$program" | grep -o '/[^ ]*'; } | xargs cp -L --parents -t "$work"
  done
  # In Debian emulation is a module.
  find /usr/lib -path '*/qemu/accel-*' -exec cp -L --parents -t "$work" '{}' +
  cp -L --parents -t "$work" /usr/share/seabios/bios-256k.bin /usr/share/qemu/kvmvapic.bin
  container=$(bld from scratch)
  bld add -q "$container" "$work" / >/dev/null
  bld config --env PATH=/usr/bin --user 107:107 "$container"
  bld commit -q --rm "$container" localhost/vm:1 >/dev/null
  archive localhost/vm:1 "$1"
}

# Old layers are kept, as the next build may need them; when there are many, all are removed.
limit_cache() {
  local megabytes
  megabytes=$(du -xsm "$ROOT/cache/buildah" 2>/dev/null | cut -f1)
  [ "${megabytes:-0}" -le 8000 ] || { say "image layers take $megabytes MB: emptying their cache"; rm -rf --one-file-system "$ROOT"/cache/buildah{,-run}; }
}

make_base() {
  local tar=$ROOT/cache/debian-trixie.tar container started=$SECONDS
  if [ ! -e "$tar" ]; then
    say "making a Debian base image with mmdebstrap, once"
    mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' trixie "$tar.new.tar" >&2
    mv "$tar.new.tar" "$tar"
    say "made in $((SECONDS - started)) s: $tar"
  fi
  if ! bld inspect --type image "$BASE_NAME" >/dev/null 2>&1; then
    container=$(bld from scratch)
    bld add -q "$container" "$tar" / >/dev/null
    bld commit -q --rm "$container" "$BASE_NAME" >/dev/null
  fi
}

# Prints options for `buildah build`, one per line, and writes the files they name into a directory.
build_secrets() { # DIRECTORY
  local ca key value
  echo "[global]" >"$1/pip.conf"
  for ca in "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "${SSL_CERT_FILE:-}"; do
    if [ -s "$ca" ]; then
      cp -L "$ca" "$1/ca.pem"
      printf '%s\n' --secret "id=ca,src=$1/ca.pem"
      echo "cert = /run/secrets/ca" >>"$1/pip.conf"
      break
    fi
  done
  for key in index-url extra-index-url trusted-host; do
    # The environment first: pip reads it in the same order.
    value=PIP_$(tr a-z- A-Z_ <<<"$key")
    value=${!value:-$(python3 -m pip config get "global.$key" 2>/dev/null || true)}
    [ -z "$value" ] || echo "$key = $value" >>"$1/pip.conf"
  done
  [ "$(wc -l <"$1/pip.conf")" -le 1 ] || printf '%s\n' --secret "id=pip,src=$1/pip.conf"
}

product() {
  local work secrets=() revision started=$SECONDS base=${BASE:-$BASE_NAME} pull=()
  limit_cache
  # Without --pull-never buildah would ask a registry for the local base image.
  [ -n "${BASE:-}" ] || { make_base; pull=(--pull-never); }
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  mapfile -t secrets < <(build_secrets "$work")
  revision=$(git -C "$CHECKOUT" rev-parse --verify -q HEAD 2>/dev/null || echo unknown)
  # A label, not a build argument: buildah 1.28 uses a cached layer although an argument in its LABEL has changed.
  bld build -q --layers --isolation chroot "${pull[@]}" --build-arg "BASE=$base" \
    --label "org.opencontainers.image.revision=$revision" \
    "${secrets[@]}" -f "$CHECKOUT/Containerfile" -t "$NAME" "$CHECKOUT" >"$work/out" 2>"$work/log" ||
    { cat "$work/out" "$work/log" >&2; fail "the image does not build"; }
  bld inspect --type image --format '{{.FromImageID}}' "$NAME" >"$work/id"
  # The id of the image in the archive and its digest, so that an unchanged image is not written again.
  if [ ! -e "$ARCHIVE" ] || [ "$(head -1 "$ARCHIVE.made" 2>/dev/null)" != "$(cat "$work/id")" ]; then
    archive "$NAME" "$ARCHIVE" "$work/digest"
    { cat "$work/id"; echo; cat "$work/digest"; echo; } | sed '/^$/d' >"$ARCHIVE.made"
  fi
  chown --reference="$CHECKOUT" "$CHECKOUT/.cluster" "$(dirname "$ARCHIVE")" "$ARCHIVE" "$ARCHIVE.made"
  say "built in $((SECONDS - started)) s, $(du -m "$ARCHIVE" | cut -f1) MB"
  import_into_nodes
  echo "$NAME@$(tail -1 "$ARCHIVE.made")"
}

import_into_nodes() {
  local live node socket
  live=$(cat "$LIVE_ROOT_FILE" 2>/dev/null || true)
  [ -n "$live" ] || { say "no cluster is up; its nodes will import the image when they start"; return 0; }
  for socket in "$live"/nodes/*/run/containerd.sock; do
    [ -S "$socket" ] || continue
    node=$(basename "$(dirname "$(dirname "$socket")")")
    ctr --address "$socket" --connect-timeout 5s --namespace k8s.io images import "$ARCHIVE" >/dev/null || fail "node $node does not take the image"
  done
}

case ${1:-product} in
  product) product ;;
  scratch) shift; scratch "$@" ;;
  vm) shift; vm "$@" ;;
  *) fail "usage: image.sh, image.sh scratch PROGRAM NAME ARCHIVE, or image.sh vm ARCHIVE" ;;
esac
