#!/bin/sh
# Starts a real control plane of the minor that the embedded API serves, with nothing in it, for
# recording what it answers:
#
#   tests/real/control-plane.sh DIR
#
# It writes DIR/kubeconfig, prints "ready", and ends when its standard input does. There are no
# nodes, and of the controllers only those whose work the embedded API does, too. Its programs are
# built once from tests/real/control-plane and kept in ${XDG_CACHE_HOME:-~/.cache}/muster; etcd is
# MUSTER_ETCD (see parts.sh).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
version=1.32.13
cache=${XDG_CACHE_HOME:-$HOME/.cache}/muster
etcd=${MUSTER_ETCD:?eval "\$(tests/real/parts.sh)" first}

build() {
    program=$cache/$1-$version
    [ -x "$program" ] && return
    base=k8s.io/component-base/version
    flags="-s -w -X $base.gitVersion=v$version -X $base.gitMajor=1 -X $base.gitMinor=32"
    (cd "$here/control-plane" && go build -mod=readonly -trimpath -ldflags "$flags" \
        -o "$program.$$" "k8s.io/kubernetes/cmd/$1" >&2)
    mv "$program.$$" "$program"
}
build kube-apiserver
build kube-controller-manager

mkdir -p "$dir/pki"
cd "$dir/pki"
{
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
    printf 'subjectAltName=IP:127.0.0.1' >server.ext
    for subject in server:/CN=server admin:/O=system:masters/CN=muster-admin; do
        name=${subject%%:*}
        openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out "$name.csr" -subj "${subject#*:}"
        openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$name.crt" \
            -days 2 -extfile server.ext
    done
    openssl genrsa -out accounts.key 2048
    openssl rsa -in accounts.key -pubout -out accounts.pub
} 2>openssl.log

# Ports that nobody is likely to have; who has bad luck starts it again.
port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
secure=$((port + 12000))
data() { base64 -w0 <"$1"; }
(
    umask 077
    cat >"$dir/kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters: [{name: muster, cluster: {server: "https://127.0.0.1:$secure", certificate-authority-data: $(data ca.crt)}}]
users: [{name: muster-admin, user: {client-certificate-data: $(data admin.crt), client-key-data: $(data admin.key)}}]
contexts: [{name: muster, context: {cluster: muster, user: muster-admin}}]
current-context: muster
EOF
)

"$etcd" --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$port" \
    --advertise-client-urls "http://127.0.0.1:$port" --listen-peer-urls "http://127.0.0.1:0" \
    >"$dir/etcd.log" 2>&1 &
pids=$!
trap 'kill $pids 2>/dev/null; wait' EXIT
trap 'exit 1' INT TERM
"$cache/kube-apiserver-$version" --etcd-servers "http://127.0.0.1:$port" \
    --bind-address 127.0.0.1 --secure-port "$secure" --authorization-mode RBAC \
    --anonymous-auth=false --client-ca-file ca.crt --tls-cert-file server.crt \
    --tls-private-key-file server.key --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file accounts.pub --service-account-signing-key-file accounts.key \
    --service-cluster-ip-range 10.96.0.0/16 >"$dir/apiserver.log" 2>&1 &
pids="$pids $!"
curl="curl -s --cacert ca.crt --cert admin.crt --key admin.key"
tries=0
until [ "$($curl "https://127.0.0.1:$secure/readyz")" = ok ]; do
    tries=$((tries + 1))
    if [ "$tries" -ge 600 ] || ! kill -0 "${pids##* }"; then
        echo "control-plane: never ready:" >&2
        tail -n 5 "$dir/apiserver.log" >&2
        exit 1
    fi
    sleep 0.2
done
"$cache/kube-controller-manager-$version" --kubeconfig "$dir/kubeconfig" --leader-elect=false \
    --bind-address 127.0.0.1 --secure-port 0 --use-service-account-credentials=false \
    --service-account-private-key-file accounts.key --root-ca-file ca.crt \
    --controllers serviceaccount-controller,serviceaccount-token-controller,namespace-controller,garbage-collector-controller,ttl-after-finished-controller,clusterrole-aggregation-controller,root-ca-certificate-publisher-controller \
    >"$dir/controllers.log" 2>&1 &
pids="$pids $!"
until $curl -f -o /dev/null "https://127.0.0.1:$secure/api/v1/namespaces/default/serviceaccounts/default"; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { echo "control-plane: no account: $dir/controllers.log" >&2; exit 1; }
    sleep 0.2
done
echo ready
cat >/dev/null
