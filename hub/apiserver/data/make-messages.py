#!/usr/bin/env python3
"""Makes messages.txt: how the built-in kinds look in protobuf.

usage: make-messages.py API APIMACHINERY

API and APIMACHINERY are the folders of these modules in the Go module cache (`go mod download
k8s.io/api@v0.32.13 k8s.io/apimachinery@v0.32.13` fetches them). The Go types are read rather than the .proto files: their tags hold the field numbers, and only they say
what a field is called in JSON, which messages are inlined, and which zeros are values.

Each message is a line with its name and lines `NUMBER NAME TYPE`; NAME is `-` for inlined
messages; TYPE is a scalar or message after `*` (pointer), `[]` (list) or `{}` (map).
Lines `= APIVERSION KIND MESSAGE` name the roots.
"""

import pathlib
import re
import sys

PACKAGES = {
    "core": ("api", "core/v1"),
    "events": ("api", "events/v1"),
    "coordination": ("api", "coordination/v1"),
    "rbac": ("api", "rbac/v1"),
    "batch": ("api", "batch/v1"),
    "apps": ("api", "apps/v1"),
    "certificates": ("api", "certificates/v1"),
    "authentication": ("api", "authentication/v1"),
    "authorization": ("api", "authorization/v1"),
    "autoscaling": ("api", "autoscaling/v1"),
    "meta": ("apimachinery", "pkg/apis/meta/v1"),
}

IMPORTS = {"metav1": "meta", "v1": "core", "corev1": "core", "apiv1": "core"}

ROOTS = {
    "core": ("v1", ["Namespace", "ConfigMap", "Secret", "ServiceAccount", "Event", "Pod", "Service", "Node"]),
    "events": ("events.k8s.io/v1", ["Event"]),
    "coordination": ("coordination.k8s.io/v1", ["Lease"]),
    "rbac": ("rbac.authorization.k8s.io/v1", ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]),
    "batch": ("batch/v1", ["Job", "CronJob"]),
    "apps": ("apps/v1", ["Deployment"]),
    "certificates": ("certificates.k8s.io/v1", ["CertificateSigningRequest"]),
    "authentication": ("authentication.k8s.io/v1", ["TokenReview", "TokenRequest", "SelfSubjectReview"]),
    "authorization": (
        "authorization.k8s.io/v1",
        ["SubjectAccessReview", "SelfSubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectRulesReview"],
    ),
    "autoscaling": ("autoscaling/v1", ["Scale"]),
    "meta": ("*", ["DeleteOptions"]),
}

SCALARS = {
    "string": "string", "bool": "bool", "int": "int", "int32": "int", "int64": "int", "[]byte": "bytes",
    "types.UID": "string", "types.NodeName": "string",
    "meta.Time": "time", "meta.MicroTime": "microtime", "meta.FieldsV1": "raw",
    "resource.Quantity": "quantity", "intstr.IntOrString": "intorstring", "runtime.RawExtension": "raw",
}

FIELD = re.compile(r'^\s+(?:(\w+)\s+)?(\S+)\s+`json:"([^"]*)"[^`]*\bprotobuf:"\w+,(\d+),([^"]*)"')


def read(modules):
    structs, aliases = {}, {}
    for package, (module, path) in PACKAGES.items():
        source = modules[module] / path
        for file in sorted(source.glob("*.go")):
            if file.name.endswith("_test.go") or file.name.startswith("zz_"):
                continue
            name = None
            for line in file.read_text().splitlines():
                if match := re.match(r"^type (\w+) struct \{", line):
                    name = f"{package}.{match[1]}"
                    structs[name] = []
                elif match := re.match(r"^type (\w+) =?\s*([\w.\[\]]+)$", line):
                    aliases[f"{package}.{match[1]}"] = qualified(match[2], package)
                elif line.startswith("}"):
                    name = None
                elif name and (match := FIELD.match(line)):
                    json, number, options = match[3], int(match[4]), match[5]
                    json = json.split(",")[0] or "-"
                    structs[name].append((number, json, qualified(match[2], package)))
    return structs, aliases


def qualified(kind, package):
    """The type with its package: `*Foo` in core becomes `*core.Foo`."""
    if kind == "[]byte":
        return kind
    if match := re.match(r"^(\*|\[\]|map\[[\w.]+\])(.*)$", kind):
        return match[1] + qualified(match[2], package)
    if "." in kind:
        prefix, name = kind.split(".")
        return f"{IMPORTS.get(prefix, prefix)}.{name}"
    return kind if kind in SCALARS or kind[0].islower() else f"{package}.{kind}"


def resolve(kind, structs, aliases):
    """The type in the notation of the table."""
    if kind in SCALARS:
        return SCALARS[kind]
    if kind.startswith("*"):
        return "*" + resolve(kind[1:], structs, aliases)
    if kind.startswith("[]"):
        return "[]" + resolve(kind[2:], structs, aliases)
    if match := re.match(r"^map\[[\w.]+\](.*)$", kind):
        return "{}" + resolve(match[1], structs, aliases)
    if kind in aliases:
        target = aliases[kind]
        # A named list is a message of its own that holds the items.
        return "items" if target == "[]string" else resolve(target, structs, aliases)
    if kind in structs:
        return kind
    sys.exit(f"unknown type {kind}")


def main():
    structs, aliases = read({"api": pathlib.Path(sys.argv[1]), "apimachinery": pathlib.Path(sys.argv[2])})
    lines, wanted, done = [], [], set()
    for package, (version, kinds) in ROOTS.items():
        for kind in kinds:
            lines.append(f"= {version} {kind} {package}.{kind}")
            wanted.append(f"{package}.{kind}")
    while wanted:
        name = wanted.pop(0)
        if name in done:
            continue
        done.add(name)
        lines.append(name)
        for number, json, kind in sorted(structs[name]):
            kind = resolve(kind, structs, aliases)
            lines.append(f"{number} {json} {kind}")
            base = kind.lstrip("*[]{}")
            if "." in base:
                wanted.append(base)
    target = pathlib.Path(__file__).with_name("messages.txt")
    target.write_text("\n".join(lines) + "\n")
    print(f"{target.name}: {len(done)} messages, {target.stat().st_size} bytes")


main()
