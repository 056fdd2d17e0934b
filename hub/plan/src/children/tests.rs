//! Children: which they are, what is done about them, and what they come to.

use std::collections::BTreeMap;

use muster_api::{
    conditions::{Truth, Verdict, kind},
    destination::DestinationSelector,
    work::PlacementsSummary,
};
use muster_core::FileSet;

use super::{
    emitted::{DEPTH_MAX, Ground, Identity, check_line, concerns, take},
    *,
};
use crate::{
    promise::RequestApi,
    rollup::Rollup,
    site::{Site, Sites, sites},
    work::Group,
    workflow::{Scope, engine::phase},
};

const DATABASE: &str =
    "apiVersion: ex.io/v1\nkind: Database\nmetadata: {name: db}\nspec: {size: 1}\n";
const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";

fn api(kind: &str) -> RequestApi {
    let plural = format!("{}s", kind.to_lowercase());
    RequestApi::read(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.ex.io") },
        "spec": {
            "group": "ex.io", "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural },
            "versions": [{ "name": "v1", "storage": true }],
        },
    }))
    .unwrap()
}

fn parent(scope: Scope) -> Subject {
    let namespace = (scope == Scope::Resource).then(|| "team".to_owned());
    Subject {
        promise: "app".into(),
        scope,
        group: "ex.io".into(),
        version: "v1".into(),
        kind: "App".into(),
        plural: "apps".into(),
        name: "shop".into(),
        namespace,
        uid: "uid".into(),
        job_namespace: "team".into(),
    }
}

fn group(labels: &[(&str, &str)], files: &[(&str, &str)]) -> Group {
    let mut set = FileSet::new();
    for (path, text) in files {
        set.insert(path, text.as_bytes().to_vec()).unwrap();
    }
    let match_labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let selectors = vec![DestinationSelector { match_labels, ..DestinationSelector::default() }];
    Group { directory: ".".into(), files: set, selectors }
}

fn platform() -> BTreeMap<String, String> {
    [("environment".to_owned(), "platform".to_owned())].into()
}

const PLATFORM: [(&str, &str); 1] = [("environment", "platform")];

fn taken(
    scope: Scope,
    groups: Vec<Group>,
    (sites, held): (&Sites, &[ChildRequest]),
) -> Result<(Vec<Group>, Vec<ChildRequest>), String> {
    let offers = [("database".to_owned(), api("Database")), ("app".to_owned(), api("App"))];
    let platform = platform();
    let ground = Ground { platform: &platform, sites, offers: &offers, held };
    take(&parent(scope), groups, &ground).map_err(|error| error.to_string())
}

fn there() -> Sites {
    let mut destination = muster_api::Destination::new("hub", Default::default());
    destination.metadata.labels = Some(platform());
    sites([&destination])
}

#[test]
fn requests_for_the_platform_are_children_and_all_else_stays_in_its_group() {
    let both = format!("# two\n---\n{DATABASE}---\n{CONFIG}");
    let files = [("a.yaml", DATABASE), ("b.yaml", &both), ("c.txt", DATABASE), ("d.yaml", "{x")];
    let mut files = files.to_vec();
    let other = DATABASE.replace("db", "db2");
    files[1].1 = &other;
    let whole = both.replace("name: db", "name: db3");
    files.push(("e.yaml", &whole));
    let groups = vec![group(&PLATFORM, &files)];
    assert!(concerns(&groups, &platform()));
    let (groups, children) = taken(Scope::Resource, groups, (&Sites::new(), &[])).unwrap();
    let names: Vec<_> = children.iter().map(|c| c.manifest["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["db", "db2", "db3"]);
    assert_eq!(children[0].promise, "database");
    assert_eq!(children[0].resource, "databases");
    assert_eq!(children[0].manifest["metadata"], json!({ "name": "db", "namespace": "team" }));
    let left: Vec<_> = groups[0].files.iter().map(|(path, _)| path).collect();
    assert_eq!(left, ["c.txt", "d.yaml", "e.yaml"]);
    assert_eq!(groups[0].files.get("e.yaml").unwrap(), CONFIG.as_bytes());
    // A group of which nothing is left goes.
    let groups = vec![group(&PLATFORM, &[("a.yaml", DATABASE)])];
    let (groups, _) = taken(Scope::Resource, groups, (&Sites::new(), &[])).unwrap();
    assert!(groups.is_empty());
}

#[test]
fn where_a_destination_is_the_platform_it_is_as_in_kratix() {
    let groups = || vec![group(&PLATFORM, &[("a.yaml", DATABASE)])];
    let (left, children) = taken(Scope::Resource, groups(), (&there(), &[])).unwrap();
    assert_eq!((left.len(), children.len()), (1, 0));
    // What the hub made already stays the hub's.
    let (_, held) = taken(Scope::Resource, groups(), (&Sites::new(), &[])).unwrap();
    let (left, children) = taken(Scope::Resource, groups(), (&there(), &held)).unwrap();
    assert_eq!((left.len(), children), (0, held));
    // What is for other destinations, or for all, is not for the platform.
    for labels in [&[("environment", "dev")][..], &[]] {
        let groups = vec![group(labels, &[("a.yaml", DATABASE)])];
        assert!(!concerns(&groups, &platform()));
        let (left, children) = taken(Scope::Resource, groups, (&Sites::new(), &[])).unwrap();
        assert_eq!((left.len(), children.len()), (1, 0));
    }
}

#[test]
fn what_would_give_a_requester_more_is_refused_by_file_and_object() {
    let refused = |scope, text: &str| {
        let groups = vec![group(&PLATFORM, &[("a.yaml", text)])];
        taken(scope, groups, (&Sites::new(), &[])).unwrap_err()
    };
    let elsewhere = DATABASE.replace("{name: db}", "{name: db, namespace: other}");
    let said = refused(Scope::Resource, &elsewhere);
    assert!(
        said.starts_with("a.yaml: Database db: metadata.namespace: \"other\" is not"),
        "{said}"
    );
    let said = refused(Scope::Resource, &DATABASE.replace("{name: db}", "{}"));
    assert!(said.contains("metadata.name: Required value"), "{said}");
    let said = refused(Scope::Resource, &format!("{DATABASE}---\n{DATABASE}"));
    assert!(said.contains("puts it out twice"), "{said}");
    let many: Vec<_> =
        (0..=emitted::CHILDREN_MAX).map(|n| DATABASE.replace("db", &format!("db{n}"))).collect();
    let said = refused(Scope::Resource, &many.join("---\n"));
    assert!(said.contains("may put out 64 requests"), "{said}");
    // A Promise's own pipeline reaches every namespace.
    let groups = vec![group(&PLATFORM, &[("a.yaml", &elsewhere), ("b.yaml", DATABASE)])];
    let (_, children) = taken(Scope::Promise, groups, (&Sites::new(), &[])).unwrap();
    let of = |n: usize| children[n].manifest["metadata"]["namespace"].clone();
    assert_eq!((of(0), of(1)), (json!("other"), json!("default")));
    // Marks of its own are not taken over.
    let marked =
        DATABASE.replace("{name: db}", "{name: db, ownerReferences: [], finalizers: [a/b]}");
    let groups = vec![group(&PLATFORM, &[("a.yaml", &marked)])];
    let (_, children) = taken(Scope::Resource, groups, (&Sites::new(), &[])).unwrap();
    assert_eq!(children[0].manifest["metadata"], json!({ "name": "db", "namespace": "team" }));
}

#[test]
fn a_request_is_never_made_of_itself() {
    let child = |kind: &str, name: &str| ChildRequest {
        promise: "app".into(),
        resource: "apps".into(),
        manifest: json!({
            "apiVersion": "ex.io/v1", "kind": kind,
            "metadata": { "name": name, "namespace": "team" },
        }),
    };
    let above = |name: &str| Identity { name: name.into(), ..Identity::of(&child("App", "")) };
    let me = Identity::of_subject(&parent(Scope::Resource));
    let line = [me, above("suite")];
    assert!(check_line(&[child("App", "other")], &line).is_ok());
    let said = check_line(&[child("App", "shop")], &line).unwrap_err();
    assert!(said.contains("App shop is the request that puts it out"), "{said}");
    let said = check_line(&[child("App", "suite")], &line).unwrap_err();
    assert!(said.contains("App suite is made of App shop, which puts it out"), "{said}");
    let deep: Vec<_> = (0..=DEPTH_MAX).map(|n| above(&format!("a{n}"))).collect();
    assert!(check_line(&[child("Database", "db")], &deep[..DEPTH_MAX]).is_ok());
    let said = check_line(&[child("Database", "db")], &deep).unwrap_err();
    assert!(said.contains("no more than 8 generations"), "{said}");
}

/// The Work of a pipeline that put these out.
fn work(pipeline: &str, names: &[&str]) -> Work {
    let children = names.iter().map(|name| ChildRequest {
        promise: "database".into(),
        resource: "databases".into(),
        manifest: json!({
            "apiVersion": "ex.io/v1", "kind": "Database",
            "metadata": { "name": name, "namespace": "team" }, "spec": { "size": 1 },
        }),
    });
    let spec = muster_api::WorkSpec { children: children.collect(), ..Default::default() };
    let mut work = Work::new(pipeline, spec);
    work.metadata.labels = Some([(labels::PIPELINE_NAME.to_owned(), pipeline.to_owned())].into());
    work
}

#[test]
fn a_child_is_made_kept_changed_back_or_left_to_its_owner() {
    let parent = parent(Scope::Resource);
    let wanted = wanted(&parent, &[], &[work("one", &["db"])], &["one"]).remove(0);
    let manifest = &wanted.manifest;
    assert_eq!(manifest["metadata"]["labels"][labels::PARENT_RESOURCE_NAME], "shop");
    assert_eq!(next(&wanted, None, &parent), Move::Create);
    let mut live = manifest.clone();
    live["metadata"]["uid"] = json!("1");
    live["spec"]["mode"] = json!("somebody's");
    assert_eq!(next(&wanted, Some(&live), &parent), Move::Keep);
    live["spec"]["size"] = json!(2);
    assert_eq!(next(&wanted, Some(&live), &parent), Move::Update);
    live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(next(&wanted, Some(&live), &parent), Move::Await);
    live["metadata"]["ownerReferences"][0]["uid"] = json!("another's");
    assert_eq!(next(&wanted, Some(&live), &parent), Move::Foreign);
    assert!(foreign(&wanted.child, &live).contains("exists in team and is App shop's: choose"));
    live["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(next(&wanted, Some(&live), &parent), Move::Foreign);
    assert!(foreign(&wanted.child, &live).contains("and is somebody else's: choose"));
    // What is put out no longer is told by the hash alone.
    let mut smaller = work("one", &["db"]);
    smaller.spec.children[0].manifest["spec"] = json!({});
    let smaller = super::wanted(&parent, &[], &[smaller], &["one"]);
    assert_eq!(next(&smaller[0], Some(manifest), &parent), Move::Update);
    // Of two pipelines, neither has it.
    let twice = super::wanted(&parent, &[], &[work("b", &["db"]), work("a", &["db"])], &["a", "b"]);
    assert_eq!(twice.len(), 1);
    assert_eq!(twice[0].child.phase, Phase::Refused);
    assert!(twice[0].child.message.contains("pipelines a and b both"), "{twice:?}");
}

#[test]
fn what_status_names_stays_the_parents_though_its_marks_are_taken_off() {
    let parent = parent(Scope::Resource);
    let works = [work("one", &["db"])];
    let mut live = wanted(&parent, &[], &works, &["one"]).remove(0).manifest;
    live["metadata"]["uid"] = json!("1");
    let Member { child, .. } =
        Member::seen(wanted(&parent, &[], &works, &["one"]).remove(0).child, &live);
    assert_eq!(recorded(&json!({ "children": [child] })), std::slice::from_ref(&child));
    live["metadata"]["ownerReferences"] = json!([]);
    live["metadata"]["labels"] = json!({});
    let known = wanted(&parent, &[child], &works, &["one"]).remove(0);
    assert_eq!(next(&known, Some(&live), &parent), Move::Update);
    live["metadata"]["uid"] = json!("2");
    assert_eq!(next(&known, Some(&live), &parent), Move::Foreign);
}

#[test]
fn whoever_writes_works_has_nothing_made_that_a_pipeline_could_not() {
    let mut elsewhere = work("one", &["db"]);
    elsewhere.spec.children[0].manifest["metadata"]["namespace"] = json!("other");
    let works = [elsewhere];
    let refused = wanted(&parent(Scope::Resource), &[], &works, &["one"]).remove(0).child;
    assert_eq!(refused.phase, Phase::Refused);
    assert!(refused.message.contains("\"other\" is not the namespace"), "{refused:?}");
    let promises_own = wanted(&parent(Scope::Promise), &[], &works, &["one"]).remove(0).child;
    assert_eq!(promises_own.phase, Phase::Pending);

    let mut strange = work("one", &["db"]);
    strange.spec.children[0].manifest["metadata"] = json!({
        "name": "db", "namespace": "team", "labels": 1, "uid": "1", "finalizers": ["a/b"],
        "ownerReferences": [{ "uid": "x" }],
    });
    let made = wanted(&parent(Scope::Resource), &[], &[strange], &["one"]).remove(0);
    let metadata = &made.manifest["metadata"];
    assert!(metadata["uid"].is_null() && metadata["finalizers"].is_null(), "{metadata:#}");
    assert_eq!(metadata["ownerReferences"][0]["uid"], "uid");

    let child = made.child;
    assert_eq!(unoffered(&child, Some(&api("Database"))), None);
    assert_eq!(unoffered(&child, None).unwrap(), "promise database is not installed");
    let other = Child { kind: "Secret".into(), ..child };
    let said = unoffered(&other, Some(&api("Database"))).unwrap();
    assert_eq!(said, "promise database does not offer Secret.ex.io");
}

#[test]
fn what_was_created_counts_as_applied_before_it_is_applied_anew() {
    let entry = |manager: &str, operation: &str| json!({ "manager": manager, "operation": operation, "fieldsV1": {} });
    let live = |entries: &[Value]| json!({ "metadata": { "managedFields": entries } });
    let (ours, others) = (entry("m", "Update"), entry("n", "Update"));
    let status = json!({ "manager": "m", "operation": "Update", "subresource": "status" });
    let fields = as_applied(&live(&[others.clone(), ours, status.clone()]), "m").unwrap();
    assert_eq!(fields, json!([others, entry("m", "Apply"), status]));
    assert_eq!(as_applied(&live(&[others, entry("m", "Apply"), status]), "m"), None);
}

#[test]
fn files_of_children_are_those_of_the_parent_and_not_too_much() {
    let parent = parent(Scope::Resource);
    let Wanted { child, manifest } =
        wanted(&parent, &[], &[work("one", &["db"])], &["one"]).remove(0);
    let offers = [("database".to_owned(), api("Database"))];
    let mut files = Files::default();
    let mut others = manifest.clone();
    others["metadata"]["ownerReferences"] = json!([]);
    files.add((&child, &others), &parent, &offers).unwrap();
    files.add((&child, &manifest), &parent, &[]).unwrap();
    let mut managed = manifest.clone();
    managed["metadata"]["managedFields"] = json!([{ "manager": "m" }]);
    files.add((&child, &managed), &parent, &offers).unwrap();
    let texts = files.into_texts();
    let paths: Vec<_> = texts.keys().collect();
    assert_eq!(paths, ["children/database/db.yaml"]);
    assert!(!texts["children/database/db.yaml"].contains("managedFields"));
    // Line ends are two bytes of JSON each.
    let (mut files, mut large) = (Files::default(), manifest);
    large["status"]["text"] = json!("\n".repeat(FILES_LEN_MAX / 2));
    let said = files.add((&child, &large), &parent, &offers).unwrap_err();
    assert!(said.contains("more than 8388608 bytes with Database db"), "{said}");
}

fn live(truth: &str, message: &str, generation: i64) -> Value {
    let healthy = json!({ "type": kind::HEALTHY, "status": "False", "reason": "Degraded",
        "message": "it is down" });
    json!({
        "metadata": { "generation": generation },
        "status": { "conditions": [healthy, { "type": kind::RECONCILED, "status": truth,
            "message": message, "observedGeneration": 1 }] },
    })
}

fn rollup() -> Rollup {
    let reconciled = Verdict::new(kind::RECONCILED, Truth::True, "Reconciled", "Reconciled");
    Rollup {
        works_succeeded: reconciled.clone(),
        reconciled,
        healthy: None,
        scheduled: true,
        placements: PlacementsSummary::default(),
        health_status: Value::Null,
        outputs: BTreeMap::new(),
        heard_soon: false,
        wake_at: None,
    }
}

#[test]
fn a_parent_is_done_and_healthy_when_its_children_are() {
    let child = |name: &str, pipeline: &str| Child {
        kind: "Database".into(),
        name: name.into(),
        pipeline: pipeline.into(),
        ..Child::default()
    };
    let said = |members: Vec<Member>| {
        let mut rollup = rollup();
        Family { members }.fold_into(&mut rollup, Timestamp::UNIX_EPOCH);
        let Verdict { truth, reason, message, .. } = rollup.reconciled;
        format!("{}/{reason}: {message}", truth.as_str())
    };
    let seen = |live: &Value| Member::seen(child("db", "one"), live);
    assert_eq!(said(vec![seen(&live("True", "", 1))]), "True/Reconciled: Reconciled");
    assert_eq!(
        said(vec![seen(&live("True", "", 2))]),
        "Unknown/ChildNotReady: waiting for Database db: it has not been looked at yet"
    );
    let waits = seen(&live("Unknown", "pipeline main is running", 1));
    let failed = Member::seen(child("db2", "two"), &live("False", "no room", 1));
    assert_eq!(
        said(vec![waits.clone(), failed.clone()]),
        "False/ChildFailed: Database db2 failed: no room"
    );
    let mut both = rollup();
    Family { members: vec![waits.clone(), failed.clone()] }
        .fold_into(&mut both, Timestamp::UNIX_EPOCH);
    assert_eq!(both.healthy.unwrap().message, "Database db: it is down");
    assert_eq!(both.placements.health, "Degraded: Database db: it is down");
    assert_eq!(both.placements.destination, "2 requests");

    // A later pipeline waits for those of earlier ones, unless its author wants it otherwise.
    let pipeline = |name: &str, waits: &str| -> Pipeline {
        serde_json::from_value(json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline",
            "metadata": { "name": name, "annotations": { labels::WAIT_FOR_CHILDREN: waits } },
            "spec": { "containers": [] },
        }))
        .unwrap()
    };
    let entry = |name: &str| muster_api::promise::PipelineStatus {
        name: name.into(),
        phase: phase::RUNNING.into(),
        ..Default::default()
    };
    let start = |index: usize, attempt: i64| Progress {
        step: Step::Start { index, attempt },
        pipelines: vec![entry("one"), entry("two")],
    };
    let family = Family { members: vec![waits, failed] };
    let now = Timestamp::UNIX_EPOCH;
    let held = |progress: Progress, waits: &str| {
        let pipelines = [pipeline("one", "true"), pipeline("two", waits)];
        matches!(hold(progress, &family, &pipelines, now).step, Step::Held { .. })
    };
    assert!(held(start(1, 1), "true"));
    assert!(!held(start(1, 1), "false"));
    assert!(!held(start(0, 1), "true"), "its own children are no reason");
    assert!(!held(start(1, 2), "true"), "it has begun already");
}

#[test]
fn a_site_is_only_needed_to_know_where_it_is() {
    let site = there().into_values().next().unwrap();
    let leaving = Site { leaving: true, ..site };
    let sites = Sites::from([("hub".to_owned(), leaving)]);
    let groups = vec![group(&PLATFORM, &[("a.yaml", DATABASE)])];
    let (_, children) = taken(Scope::Resource, groups, (&sites, &[])).unwrap();
    assert_eq!(children.len(), 1, "nothing goes to a destination that is being removed");
}
