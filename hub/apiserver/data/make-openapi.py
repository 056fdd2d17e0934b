#!/usr/bin/env python3
"""Makes openapi.json.gz: the OpenAPI v3 schemas of the built-in kinds that the hub serves.

usage: make-openapi.py FOLDER

FOLDER is `api/openapi-spec/v3` of the Kubernetes source tree (`go mod download
k8s.io/kubernetes@v1.32.13` fetches it). Kept are the kinds below with all that they refer
to; paths are left out, the server makes them itself. The result is deterministic.
"""

import gzip
import json
import pathlib
import sys

KINDS = {
    "api__v1": ["Namespace", "ConfigMap", "Secret", "ServiceAccount", "Event", "Pod", "Service", "Node"],
    "apis__events.k8s.io__v1": ["Event"],
    "apis__coordination.k8s.io__v1": ["Lease"],
    "apis__rbac.authorization.k8s.io__v1": ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
    "apis__batch__v1": ["Job", "CronJob"],
    "apis__apps__v1": ["Deployment"],
    "apis__certificates.k8s.io__v1": ["CertificateSigningRequest"],
    "apis__apiregistration.k8s.io__v1": ["APIService"],
    "apis__apiextensions.k8s.io__v1": ["CustomResourceDefinition"],
    "apis__authentication.k8s.io__v1": ["TokenReview", "SelfSubjectReview", "TokenRequest"],
    "apis__authorization.k8s.io__v1": [
        "SubjectAccessReview", "SelfSubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectRulesReview",
    ],
    "apis__autoscaling__v1": ["Scale"],
}

# Kinds without a group of their own.
META = ["Status", "DeleteOptions", "APIResourceList", "APIGroup", "APIGroupList"]
META_PREFIX = "io.k8s.apimachinery.pkg.apis.meta.v1."


def references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix("#/components/schemas/")
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def main():
    folder = pathlib.Path(sys.argv[1])
    schemas, wanted = {}, []
    for document in KINDS:
        text = (folder / f"{document}_openapi.json").read_text()
        for name, schema in json.loads(text)["components"]["schemas"].items():
            schemas.setdefault(name, schema)
    for document, kinds in KINDS.items():
        version = document.rsplit("__", 1)[-1]
        group = document.split("__")[1] if document.startswith("apis__") else ""
        for kind in kinds:
            roots = [
                name
                for name, schema in schemas.items()
                for gvk in schema.get("x-kubernetes-group-version-kind", [])
                if (gvk["group"], gvk["version"]) == (group, version) and gvk["kind"] in (kind, kind + "List")
            ]
            if not roots:
                sys.exit(f"no schema of kind {kind} in group {group!r}, version {version}")
            wanted += roots
    wanted += [META_PREFIX + kind for kind in META if META_PREFIX + kind in schemas]
    kept = {}
    while wanted:
        name = wanted.pop()
        if name not in kept:
            kept[name] = schemas[name]
            wanted += references(schemas[name])
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    target = pathlib.Path(__file__).with_name("openapi.json.gz")
    # No time stamp and no file name, so that the bytes depend on the input alone.
    with open(target, "wb") as out, gzip.GzipFile("", "wb", 9, out, 0) as packed:
        packed.write(text.encode())
    print(f"{target.name}: {len(kept)} schemas, {len(text)} bytes, {target.stat().st_size} packed")


main()
