# shellcheck shell=bash
# Certificates and kubeconfigs of the cluster. Sourced after lib.sh.
# Keys are elliptic because making seven RSA keys takes longer than starting the API server. The extensions are those
# that strict verifiers require (Python 3.13 sets VERIFY_X509_STRICT): key usage in the CA, key identifiers everywhere.

make_ca() {
  mkdir -p "$ROOT/pki"
  chmod 700 "$ROOT/pki"
  cat >"$ROOT/pki/openssl.cnf" <<'CNF'
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CNF
  openssl req -x509 -config "$ROOT/pki/openssl.cnf" -extensions ca -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$ROOT/pki/ca.key" -out "$ROOT/pki/ca.crt" -subj /CN=directdownload-test-ca -days 365 2>/dev/null
  openssl genrsa -out "$ROOT/pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$ROOT/pki/sa.key" -pubout -out "$ROOT/pki/sa.pub" 2>/dev/null
}

sign() { # NAME SUBJECT [SUBJECT_ALT_NAMES]
  local san=()
  [ -z "${3:-}" ] || san=(-addext "subjectAltName=$3")
  openssl req -x509 -config "$ROOT/pki/openssl.cnf" -extensions leaf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -CA "$ROOT/pki/ca.crt" -CAkey "$ROOT/pki/ca.key" -keyout "$ROOT/pki/$1.key" -out "$ROOT/pki/$1.crt" \
    -subj "$2" "${san[@]}" -days 365 2>"$ROOT/pki/$1.err" || fail "cannot sign $1: $(cat "$ROOT/pki/$1.err")"
}

kubeconfig() { # NAME SERVER FILE: self-contained, so that it may be copied anywhere
  local ca crt key
  ca=$(base64 -w0 <"$ROOT/pki/ca.crt")
  crt=$(base64 -w0 <"$ROOT/pki/$1.crt")
  key=$(base64 -w0 <"$ROOT/pki/$1.key")
  (
    umask 077
    cat >"$3" <<YAML
apiVersion: v1
kind: Config
clusters:
- {name: directdownload, cluster: {server: "$2", certificate-authority-data: "$ca"}}
users:
- {name: "$1", user: {client-certificate-data: "$crt", client-key-data: "$key"}}
contexts:
- {name: directdownload, context: {cluster: directdownload, user: "$1"}}
current-context: directdownload
YAML
  )
}
