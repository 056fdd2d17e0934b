"""What programs written with the official Python client do, against the API that KUBECONFIG names.

Each part prints `ok: NAME` when all that it asserts held; the first failure ends the program with
a traceback. The pod `talker` of `pod_logs` has a log of three lines, which the caller supplies.
"""

import json
import threading
import time

from kubernetes import client, config, dynamic, informer, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import (
    ConflictError,
    NotFoundError,
    ResourceNotFoundError,
    UnprocessibleEntityError,
)

# A condition that does not come true within so many seconds never will.
PATIENCE = 60
GROUP, VERSION, PLURAL = "py.example.com", "v1", "gadgets"

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": PLURAL, "singular": "gadget", "kind": "Gadget", "shortNames": ["gd"]},
        "versions": [{
            "name": VERSION,
            "served": True,
            "storage": True,
            "subresources": {
                "status": {},
                "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                },
            },
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "replicas": {"type": "integer", "default": 1},
                        "bulk": {"type": "string"},
                    }},
                    "status": {"type": "object", "properties": {
                        "phase": {"type": "string"}, "replicas": {"type": "integer"},
                    }},
                },
            }},
        }],
    },
}


def gadget(name, **spec):
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Gadget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def until(what, condition):
    """What `condition` returned when it first was true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"never came true: {what}")


def refused(kind, act):
    """The error with which `act` is refused."""
    try:
        answer = act()
    except kind as error:
        return error
    raise AssertionError(f"was not refused: {answer}")


def the_version_and_what_is_served(api):
    version = client.VersionApi(api).get_code()
    assert (version.major, version.minor) == ("1", "32"), version
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch"} & groups and "rbac.authorization.k8s.io" in groups, groups
    core = {resource.name for resource in client.CoreV1Api(api).get_api_resources().resources}
    assert {"configmaps", "pods", "pods/log", "serviceaccounts/token"} <= core, core


def typed_objects_from_creation_to_deletion(api):
    core = client.CoreV1Api(api)
    body = client.V1ConfigMap(
        metadata=client.V1ObjectMeta(generate_name="typed-", labels={"of": "typed"}),
        data={"a": "1"},
    )
    made = core.create_namespaced_config_map("default", body)
    name = made.metadata.name
    assert name.startswith("typed-") and made.metadata.creation_timestamp.tzinfo, made
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map(name, "default", made)
    assert replaced.data == {"a": "1", "b": "2"}, replaced
    stale = refused(ApiException, lambda: core.replace_namespaced_config_map(name, "default", made))
    assert stale.status == 409 and json.loads(stale.body)["reason"] == "Conflict", stale
    patched = core.patch_namespaced_config_map(name, "default", {"data": {"a": None, "c": "3"}})
    assert patched.data == {"b": "2", "c": "3"}, patched
    steps = [{"op": "add", "path": "/data/d", "value": "4"}]
    assert core.patch_namespaced_config_map(name, "default", steps).data["d"] == "4"
    dry = core.patch_namespaced_config_map(name, "default", {"data": {"d": "5"}}, dry_run="All")
    read = core.read_namespaced_config_map(name, "default")
    assert (dry.data["d"], read.data["d"]) == ("5", "4")
    listed = core.list_namespaced_config_map("default", label_selector="of in (typed)")
    assert [item.metadata.name for item in listed.items] == [name], listed
    options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    other = refused(
        ApiException, lambda: core.delete_namespaced_config_map(name, "default", body=options))
    assert other.status == 409, other
    deleted = core.delete_namespaced_config_map(name, "default", propagation_policy="Background")
    assert deleted["status"] == "Success", deleted
    uid = made.metadata.uid
    assert deleted["details"] == {"name": name, "kind": "configmaps", "uid": uid}, deleted
    secret = client.V1Secret(
        metadata=client.V1ObjectMeta(name="typed"), string_data={"k": "v"}, type="Opaque")
    assert core.create_namespaced_secret("default", secret).data == {"k": "dg=="}
    core.delete_collection_namespaced_secret("default", field_selector="metadata.name=typed")
    assert core.list_namespaced_secret("default").items == []


def errors_are_statuses(api):
    core = client.CoreV1Api(api)
    missing = refused(ApiException, lambda: core.read_namespaced_config_map("nope", "default"))
    status = json.loads(missing.body)
    assert missing.status == 404 and missing.headers["Content-Type"] == "application/json"
    assert status["kind"] == "Status" and status["reason"] == "NotFound", status
    assert status["message"] == 'configmaps "nope" not found', status
    assert status["details"] == {"name": "nope", "kind": "configmaps"}, status
    wrong = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="Not_A_Name"))
    invalid = refused(ApiException, lambda: core.create_namespaced_config_map("default", wrong))
    status = json.loads(invalid.body)
    assert invalid.status == 422 and status["details"]["causes"][0]["field"] == "metadata.name"
    ghost = refused(ApiException, lambda: core.create_namespaced_config_map("ghost", {
        "metadata": {"name": "x"}}))
    assert ghost.status == 404 and 'namespaces \\"ghost\\" not found' in ghost.body, ghost


def pages_of_a_list(api):
    core = client.CoreV1Api(api)
    for number in range(7):
        core.create_namespaced_config_map("default", {
            "metadata": {"name": f"page-{number}", "labels": {"of": "pages"}}})
    names, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map("default", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        pages += 1
        if pages == 1:
            assert page.metadata.remaining_item_count >= 4, page.metadata
            # What comes later belongs to no page of an earlier state.
            core.create_namespaced_config_map("default", {"metadata": {"name": "page-late"}})
        token = page.metadata._continue
        if not token:
            break
    mine = [name for name in names if name.startswith("page-")]
    assert mine == [f"page-{number}" for number in range(7)] and pages >= 3, names
    core.delete_collection_namespaced_config_map("default", label_selector="of=pages")
    assert not core.list_namespaced_config_map("default", label_selector="of=pages").items
    bad = refused(ApiException, lambda: core.list_namespaced_config_map(
        "default", limit=3, _continue="forged"))
    assert bad.status == 400 and "continue" in bad.body, bad


def a_definition_and_its_objects(api):
    definitions = client.ApiextensionsV1Api(api)
    definitions.create_custom_resource_definition(DEFINITION)
    until("the definition is established", lambda: any(
        condition.type == "Established" and condition.status == "True"
        for condition in definitions.read_custom_resource_definition(
            f"{PLURAL}.{GROUP}").status.conditions))
    custom = client.CustomObjectsApi(api)
    where = (GROUP, VERSION, "default", PLURAL)
    made = custom.create_namespaced_custom_object(*where, gadget("g1", size=2))
    assert made["spec"] == {"size": 2, "replicas": 1} and made["metadata"]["generation"] == 1
    custom.patch_namespaced_custom_object(*where, "g1", {"spec": {"size": 3}})
    custom.patch_namespaced_custom_object_status(*where, "g1", {
        "status": {"phase": "Ready"}, "spec": {"size": 9}})
    read = custom.get_namespaced_custom_object(*where, "g1")
    assert (read["spec"]["size"], read["status"]["phase"]) == (3, "Ready"), read
    assert read["metadata"]["generation"] == 2, read
    custom.patch_namespaced_custom_object_scale(*where, "g1", {"spec": {"replicas": 4}})
    scale = custom.get_namespaced_custom_object_scale(*where, "g1")
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 4), scale
    invalid = refused(ApiException, lambda: custom.create_namespaced_custom_object(
        *where, gadget("g2", size=0)))
    cause = json.loads(invalid.body)["details"]["causes"][0]
    assert cause["field"] == "spec.size" and "greater than or equal to 1" in cause["message"], cause
    unknown = refused(ApiException, lambda: custom.create_namespaced_custom_object(
        *where, gadget("g2", sice=1), field_validation="Strict"))
    assert unknown.status == 400 and 'unknown field \\"spec.sice\\"' in unknown.body, unknown
    listed = custom.list_namespaced_custom_object(*where)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["g1"], listed


def the_dynamic_client(api):
    dyn = dynamic.DynamicClient(api)
    gadgets = dyn.resources.get(api_version=f"{GROUP}/{VERSION}", kind="Gadget")
    assert gadgets.namespaced and "gd" in gadgets.short_names, gadgets
    refused(ResourceNotFoundError, lambda: dyn.resources.get(api_version="v1", kind="Nothing"))
    made = gadgets.create(body=gadget("dyn", size=1), namespace="default")
    assert made.spec.size == 1 and made.metadata.uid, made
    merged = gadgets.patch(
        body={"spec": {"size": 5}}, name="dyn", namespace="default",
        content_type="application/merge-patch+json")
    assert merged.spec.size == 5, merged
    refused(UnprocessibleEntityError, lambda: gadgets.patch(
        body={"spec": {"size": 0}}, name="dyn", namespace="default",
        content_type="application/merge-patch+json"))
    status = gadgets.status.patch(
        body={"status": {"phase": "Up"}}, name="dyn", namespace="default",
        content_type="application/merge-patch+json")
    assert status.status.phase == "Up", status
    names = [item.metadata.name for item in gadgets.get(namespace="default").items]
    assert names == ["dyn", "g1"], names
    gadgets.delete(name="dyn", namespace="default")
    refused(NotFoundError, lambda: gadgets.get(name="dyn", namespace="default"))


def server_side_apply(api):
    dyn = dynamic.DynamicClient(api)
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")

    def body(**data):
        meta = {"name": "applied", "namespace": "default"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    first = maps.server_side_apply(body=body(a="1", b="1"), field_manager="one")
    again = maps.server_side_apply(body=body(a="1", b="1"), field_manager="one")
    assert first.metadata.resourceVersion == again.metadata.resourceVersion
    conflict = refused(ConflictError, lambda: maps.server_side_apply(
        body=body(a="2"), field_manager="two"))
    assert 'conflict with \\"one\\"' in str(conflict.body), conflict.body
    maps.server_side_apply(body=body(a="2"), field_manager="two", force_conflicts=True)
    left = maps.server_side_apply(body=body(), field_manager="one")
    assert left.to_dict()["data"] == {"a": "2"}, left
    managers = {entry["manager"]: entry["operation"]
                for entry in left.to_dict()["metadata"]["managedFields"]}
    assert managers["two"] == "Apply", managers
    maps.delete(name="applied", namespace="default")


def a_watch_resumes(api):
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map("default").metadata.resource_version
    make = lambda name: core.create_namespaced_config_map("default", {"metadata": {"name": name}})
    make("seen-1")
    watcher, seen = watch.Watch(), []
    for event in watcher.stream(
            core.list_namespaced_config_map, "default", resource_version=start,
            timeout_seconds=PATIENCE):
        seen.append((event["type"], event["object"].metadata.name))
        watcher.stop()
    make("seen-2")
    core.delete_namespaced_config_map("seen-1", "default")
    for event in watcher.stream(
            core.list_namespaced_config_map, "default", timeout_seconds=PATIENCE,
            resource_version=watcher.resource_version):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 3:
            watcher.stop()
    assert seen == [("ADDED", "seen-1"), ("ADDED", "seen-2"), ("DELETED", "seen-1")], seen
    core.delete_namespaced_config_map("seen-2", "default")


def a_watch_of_what_is_forgotten_is_gone(api):
    # More bytes of changes than the server keeps of one kind, so that the first are forgotten.
    custom = client.CustomObjectsApi(api)
    where = (GROUP, VERSION, "default", PLURAL)
    start = custom.list_namespaced_custom_object(*where)["metadata"]["resourceVersion"]
    bulk = "x" * (2 << 20)
    for number in range(40):
        custom.patch_namespaced_custom_object(*where, "g1", {"spec": {"bulk": f"{number}{bulk}"}})
    gone = refused(ApiException, lambda: next(watch.Watch().stream(
        custom.list_namespaced_custom_object, *where, resource_version=start)))
    assert gone.status == 410 and "too old resource version" in gone.reason, gone
    custom.patch_namespaced_custom_object(*where, "g1", {"spec": {"bulk": None}})


def an_informer_follows(api):
    core = client.CoreV1Api(api)
    maps = informer.SharedInformer(
        core.list_namespaced_config_map, namespace="default", label_selector="of=informer")
    events, lock = [], threading.Lock()

    def note(kind):
        def handler(found):
            with lock:
                events.append((kind, found.metadata.name))
        return handler

    for kind in ("ADDED", "MODIFIED", "DELETED"):
        maps.add_event_handler(kind, note(kind))
    body = {"metadata": {"name": "followed", "labels": {"of": "informer"}}}
    core.create_namespaced_config_map("default", body)
    maps.start()
    until("the informer knows the object", lambda: maps.cache.list_keys() == ["default/followed"])
    core.patch_namespaced_config_map("followed", "default", {"data": {"k": "v"}})
    until("the change is seen", lambda: ("MODIFIED", "followed") in events)
    # It leaves the selection: deleted, for this informer.
    core.patch_namespaced_config_map("followed", "default", {"metadata": {"labels": {"of": "no"}}})
    until("the object is gone", lambda: maps.cache.list_keys() == [])
    assert events == [(kind, "followed") for kind in ("ADDED", "MODIFIED", "DELETED")], events
    maps.stop()
    core.delete_namespaced_config_map("followed", "default")


def pod_logs(api):
    core = client.CoreV1Api(api)
    core.create_namespaced_pod("default", {
        "metadata": {"name": "talker"}, "spec": {"containers": [{"name": "main", "image": "i"}]}})
    assert core.read_namespaced_pod_log("talker", "default") == "one\ntwo\nthree\n"
    assert core.read_namespaced_pod_log("talker", "default", tail_lines=1) == "three\n"
    lines = list(watch.Watch().stream(core.read_namespaced_pod_log, "talker", "default"))
    assert lines == ["one", "two", "three"], lines
    core.delete_namespaced_pod("talker", "default", grace_period_seconds=0)
    missing = refused(ApiException, lambda: core.read_namespaced_pod("talker", "default"))
    assert missing.status == 404, missing


def who_may_do_what(api):
    core = client.CoreV1Api(api)
    core.create_namespaced_service_account("default", {"metadata": {"name": "bot"}})
    asked = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("bot", "default", asked).status.token
    settings = client.Configuration.get_default_copy()
    settings.cert_file = settings.key_file = None
    settings.api_key = {"authorization": f"Bearer {token}"}
    bot = client.ApiClient(settings)
    me = client.AuthenticationV1Api(bot).create_self_subject_review({})
    assert me.status.user_info.username == "system:serviceaccount:default:bot", me
    question = {"spec": {"resourceAttributes": {
        "namespace": "default", "verb": "get", "resource": "configmaps"}}}
    may = lambda: client.AuthorizationV1Api(bot).create_self_subject_access_review(
        question).status.allowed
    assert not may()
    forbidden = refused(
        ApiException, lambda: client.CoreV1Api(bot).list_namespaced_config_map("default"))
    assert forbidden.status == 403 and "cannot list resource" in forbidden.body, forbidden
    rbac = client.RbacAuthorizationV1Api(api)
    rbac.create_namespaced_role("default", {
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]})
    rbac.create_namespaced_role_binding("default", client.V1RoleBinding(
        metadata=client.V1ObjectMeta(name="readers"),
        role_ref=client.V1RoleRef(
            api_group="rbac.authorization.k8s.io", kind="Role", name="reader"),
        subjects=[client.RbacV1Subject(
            kind="ServiceAccount", name="bot", namespace="default")]))
    assert may() and client.CoreV1Api(bot).list_namespaced_config_map("default").items is not None
    settings.api_key = {"authorization": "Bearer forged.token.here"}
    unknown = refused(
        ApiException, lambda: client.CoreV1Api(client.ApiClient(settings)).list_namespace())
    assert unknown.status == 401 and json.loads(unknown.body)["reason"] == "Unauthorized", unknown


def objects_from_yaml_and_their_removal(api):
    core, batch = client.CoreV1Api(api), client.BatchV1Api(api)
    utils.create_from_dict(api, {"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}},
        {"apiVersion": "batch/v1", "kind": "Job",
         "metadata": {"name": "once", "namespace": "team"},
         "spec": {"template": {"spec": {
             "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}},
    ]})
    job = batch.read_namespaced_job("once", "team")
    assert job.spec.completions == 1 and job.spec.selector.match_labels, job
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "once", "uid": job.metadata.uid}
    core.create_namespaced_config_map("team", {
        "metadata": {"name": "owned", "ownerReferences": [owner]}})
    batch.delete_namespaced_job("once", "team", propagation_policy="Foreground")
    until("what the job owned is gone", lambda: not [
        item for item in core.list_namespaced_config_map("team").items
        if item.metadata.name == "owned"])
    until("the job is gone", lambda: not batch.list_namespaced_job("team").items)
    core.delete_namespace("team")
    until("the namespace is gone", lambda: "team" not in [
        item.metadata.name for item in core.list_namespace().items])
    client.ApiextensionsV1Api(api).delete_custom_resource_definition(f"{PLURAL}.{GROUP}")
    until("the kind is gone", lambda: GROUP not in {
        group.name for group in client.ApisApi(api).get_api_versions().groups})


PARTS = [
    the_version_and_what_is_served,
    typed_objects_from_creation_to_deletion,
    errors_are_statuses,
    pages_of_a_list,
    a_definition_and_its_objects,
    the_dynamic_client,
    server_side_apply,
    a_watch_resumes,
    a_watch_of_what_is_forgotten_is_gone,
    an_informer_follows,
    pod_logs,
    who_may_do_what,
    objects_from_yaml_and_their_removal,
]

if __name__ == "__main__":
    config.load_kube_config()
    with client.ApiClient() as shared:
        for part in PARTS:
            part(shared)
            print("ok:", part.__name__, flush=True)
