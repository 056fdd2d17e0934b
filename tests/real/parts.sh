#!/bin/sh
# Obtains the real programs that tests use, and prints what to export, for:
#   eval "$(tests/real/parts.sh)"
#
# Each is taken from the machine where it is there, else built or installed once and kept in
# ${XDG_CACHE_HOME:-~/.cache}/muster. What cannot be had is said on stderr, and its variable is not
# set; with CI=true that is an error, because CI must not skip.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/muster
mkdir -p "$cache"
missing=""

say() { echo "parts: $*" >&2; }
lack() { say "$1 is missing: $2"; missing="$missing $1"; }

# go_program NAME VERSION PACKAGE LDFLAGS: built in tests/real/NAME, printed as a path.
go_program() {
    program=$cache/$1-$2
    if [ ! -x "$program" ]; then
        command -v go >/dev/null || return 1
        say "building $1 $2 (once; a few minutes)"
        # Spelled out, because -e does not hold where a function's failure is asked about.
        (cd "$here/$1" && GOFLAGS=-mod=readonly go build -trimpath -ldflags "$4" -o "$program.new" "$3" >&2) &&
            mv "$program.new" "$program" || return 1
    fi
    echo "$program"
}

kubernetes_version() {
    base=k8s.io/component-base/version
    echo "-s -w -X $base.gitVersion=v1.$1 -X $base.gitMajor=1 -X $base.gitMinor=${1%%.*}"
}

# What follows is named the_… because `command -v` would find a function before a program.

# kubectl of the minor that the embedded API serves.
the_kubectl() {
    for candidate in "${MUSTER_KUBECTL:-}" $(command -v kubectl.1.32 kubectl 2>/dev/null) \
        "$(dirname "$(readlink -f "$(command -v kubectl || echo /)")")/kubectl.1.32"; do
        [ -x "$candidate" ] || continue
        # A dispatcher would pick another kubectl by the server's version.
        version=$("$candidate" version --client 2>/dev/null | head -1)
        case "$(basename "$candidate") $version" in
            "kubectl.1.32 "*) echo "$candidate"; return ;;
            *dispatcher*) ;;
            *v1.32.*) echo "$candidate"; return ;;
        esac
    done
    go_program kubectl 1.32.13 k8s.io/kubernetes/cmd/kubectl "$(kubernetes_version 32.13)"
}

# The newest kubectl that can be had: what people with a fresh laptop bring.
the_kubectl_newest() {
    [ -z "${MUSTER_KUBECTL_NEWEST:-}" ] || { echo "$MUSTER_KUBECTL_NEWEST"; return; }
    go_program kubectl-newest 1.37.2 k8s.io/kubernetes/cmd/kubectl "$(kubernetes_version 37.2)"
}

the_helm() {
    [ -z "${MUSTER_HELM:-}" ] || { echo "$MUSTER_HELM"; return; }
    go_program helm 3.22.0 helm.sh/helm/v3/cmd/helm \
        "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0"
}

the_kube_apiserver() {
    [ -z "${MUSTER_KUBE_APISERVER:-}" ] || { echo "$MUSTER_KUBE_APISERVER"; return; }
    go_program kube-apiserver 1.36.3 k8s.io/kubernetes/cmd/kube-apiserver "$(kubernetes_version 36.3)"
}

the_etcd() {
    [ -z "${MUSTER_ETCD:-}" ] || { echo "$MUSTER_ETCD"; return; }
    go_program etcd 3.6.8 . "-s -w"
}

# git's own http-backend behind a small web server of ours. Its number changes with its source.
the_git_server() {
    [ -z "${MUSTER_GIT_SERVER:-}" ] || { echo "$MUSTER_GIT_SERVER"; return; }
    install git git || return 1
    go_program git-server 3 . "-s -w"
}

# A real S3 server over a directory, curl, by which tests change what it holds, and ip, by which they make
# it a host of another name.
the_s3_server() {
    install curl curl && install ip iproute2 || return 1
    [ -z "${MUSTER_S3_SERVER:-}" ] || { echo "$MUSTER_S3_SERVER"; return; }
    go_program versitygw 1.8.0 github.com/versity/versitygw/cmd/versitygw "-s -w"
}

the_sshd() {
    [ -z "${MUSTER_SSHD:-}" ] || { echo "$MUSTER_SSHD"; return; }
    PATH=$PATH:/usr/sbin
    install sshd openssh-server || return 1
    command -v sshd
}

# install PROGRAM PACKAGE…: with apt, where we may.
install() {
    program=$1
    shift
    command -v "$program" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $*"
        # Another installation may be under way.
        apt-get -o DPkg::Lock::Timeout=300 update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq "$@" >&2
    else
        return 1
    fi
}

# digest FILE…: names what is installed after what it was installed from.
digest() { cat "$@" | sha256sum | cut -c 1-16; }

# The official Python client, in an environment of its own; printed is its interpreter.
the_python_client() {
    [ -z "${MUSTER_PYTHON:-}" ] || { echo "$MUSTER_PYTHON"; return; }
    home=$cache/python-client-$(digest "$here/python-client/requirements.txt")
    if [ ! -e "$home/complete" ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || install python3-venv python3 python3-venv || return 1
        say "installing the Python client (once)"
        python3 -m venv --clear "$home" >&2 &&
            "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
                -r "$here/python-client/requirements.txt" >&2 &&
            touch "$home/complete" || return 1
    fi
    echo "$home/bin/python"
}

# The official JavaScript client; printed is the directory from which node finds it.
the_node_client() {
    [ -z "${MUSTER_NODE_CLIENT:-}" ] || { echo "$MUSTER_NODE_CLIENT"; return; }
    source=$here/node-client
    home=$cache/node-client-$(digest "$source/package.json" "$source/package-lock.json")
    if [ ! -e "$home/complete" ]; then
        install node nodejs npm && install npm npm || return 1
        say "installing the JavaScript client (once)"
        mkdir -p "$home" &&
            cp "$source/package.json" "$source/package-lock.json" "$home" &&
            (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund >&2) &&
            touch "$home/complete" || return 1
    fi
    echo "$home"
}

# An image for pipelines, made here because tests reach no registry.
the_image() {
    name=docker.io/library/busybox:1.36
    install podman podman runc busybox-static || return 1
    [ -x /bin/busybox ] || install busybox busybox-static || return 1
    podman image exists "$name" 2>/dev/null || {
        root=$(mktemp -d)
        mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$root/usr/bin"
        chmod 1777 "$root/tmp"
        cp /bin/busybox "$root/bin/busybox"
        for applet in $("$root/bin/busybox" --list); do
            [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
        done
        ln -s ../../bin/env "$root/usr/bin/env"
        printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
        tar -C "$root" -c . | podman import - "$name" >&2
        rm -rf "$root"
    }
    echo "$name"
}

export_or_lack() { # VARIABLE VALUE PROGRAM CURE
    if [ -n "$2" ]; then echo "export $1='$2'"; else lack "$3" "$4"; fi
}

export_or_lack MUSTER_KUBECTL "$(the_kubectl || true)" kubectl "install kubectl 1.32, or Go to build it"
export_or_lack MUSTER_KUBECTL_NEWEST "$(the_kubectl_newest || true)" kubectl-newest \
    "install Go to build it, or set MUSTER_KUBECTL_NEWEST"
export_or_lack MUSTER_HELM "$(the_helm || true)" helm "install Go to build it, or set MUSTER_HELM"
export_or_lack MUSTER_ETCD "$(the_etcd || true)" etcd "install Go to build it, or set MUSTER_ETCD"
export_or_lack MUSTER_KUBE_APISERVER "$(the_kube_apiserver || true)" kube-apiserver \
    "install Go to build it, or set MUSTER_KUBE_APISERVER"
export_or_lack MUSTER_PYTHON "$(the_python_client || true)" python-client \
    "apt-get install python3-venv, and let pip reach PyPI"
export_or_lack MUSTER_NODE_CLIENT "$(the_node_client || true)" node-client \
    "install node 20 and npm, and let npm reach its registry"
export_or_lack MUSTER_GIT_SERVER "$(the_git_server || true)" git-server \
    "apt-get install git, and install Go to build it"
export_or_lack MUSTER_S3_SERVER "$(the_s3_server || true)" versitygw \
    "install Go to build it, or set MUSTER_S3_SERVER"
export_or_lack MUSTER_SSHD "$(the_sshd || true)" sshd "apt-get install openssh-server"
export_or_lack MUSTER_TERRAFORM "$(command -v terraform || command -v tofu || true)" terraform \
    "install terraform or tofu"
export_or_lack MUSTER_TEST_IMAGE "$(the_image || true)" podman \
    "apt-get install podman runc busybox-static"

if [ -n "$missing" ] && [ "${CI:-}" = true ]; then
    say "CI must not skip:$missing"
    exit 1
fi
