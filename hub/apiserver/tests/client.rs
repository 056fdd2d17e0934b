//! The API through `kube::Client` within the process: what the hub's controllers rely on.

#[path = "shared/home.rs"]
mod home;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use home::{Home, config_map, reason, widget, widgets};

/// What has not come after so long will not.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
async fn keeps_objects_over_a_restart() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let home = home.reopen().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    assert_eq!(maps.get("a").await.unwrap(), made);
}

#[tokio::test]
async fn refuses_a_write_on_an_old_version() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let old = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let mut newer = old.clone();
    newer.data = Some([("key".to_owned(), "2".to_owned())].into());
    maps.replace("a", &PostParams::default(), &newer).await.unwrap();
    let error = maps.replace("a", &PostParams::default(), &old).await.unwrap_err();
    assert_eq!(reason(error), "Conflict");
    let again = maps.create(&PostParams::default(), &config_map("a", "3")).await.unwrap_err();
    assert_eq!(reason(again), "AlreadyExists");
}

#[tokio::test]
async fn serves_a_custom_kind_as_soon_as_it_is_defined() {
    let home = Home::new().await;
    let client = home.client();
    let widgets = widgets(&client).await;
    let made = widgets.create(&PostParams::default(), &widget("w", 3)).await.unwrap();
    assert_eq!(made.data["spec"], json!({"size": 3, "replicas": 1}));
    assert_eq!(made.metadata.generation, Some(1));
    let refused = widgets.create(&PostParams::default(), &widget("bad", 0)).await.unwrap_err();
    assert_eq!(reason(refused), "Invalid");
    let status = json!({"status": {"phase": "ok"}, "spec": {"size": 9}});
    let params = PatchParams::default();
    let patched = widgets.patch_status("w", &params, &Patch::Merge(&status)).await.unwrap();
    assert_eq!(patched.data["spec"]["size"], 3, "the status endpoint leaves spec alone");
    assert_eq!(patched.metadata.generation, Some(1));
    let spec = json!({"spec": {"size": 4}, "status": {"phase": "no"}});
    let patched = widgets.patch("w", &params, &Patch::Merge(&spec)).await.unwrap();
    assert_eq!(patched.data["status"]["phase"], "ok");
    assert_eq!(patched.metadata.generation, Some(2));
}

#[tokio::test]
async fn pages_a_list_as_of_its_first_page() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    for name in ["a", "b", "c", "d"] {
        maps.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
    }
    let first = maps.list(&ListParams::default().labels("of=test").limit(2)).await.unwrap();
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("bb", "late")).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let rest = maps
        .list(&ListParams::default().labels("of=test").limit(9).continue_token(&token))
        .await
        .unwrap();
    let names: Vec<String> =
        first.into_iter().chain(rest).map(|map: ConfigMap| map.name_any()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_watcher_sees_the_state_and_then_every_change() {
    for streaming in [false, true] {
        let home = Home::new().await;
        let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
        maps.create(&PostParams::default(), &config_map("before", "1")).await.unwrap();
        let mut config = watcher::Config::default().labels("of=test");
        if streaming {
            config = config.streaming_lists();
        }
        let mut seen = watcher(maps.clone(), config).applied_objects().boxed();
        assert_eq!(seen.try_next().await.unwrap().unwrap().name_any(), "before");
        maps.create(&PostParams::default(), &config_map("after", "1")).await.unwrap();
        assert_eq!(seen.try_next().await.unwrap().unwrap().name_any(), "after");
    }
}

#[tokio::test]
async fn a_selector_finds_what_comes_after_many_that_do_not_match() {
    // More than a watch looks at in one step.
    const OTHERS: usize = 300;
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let since = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let others = (0..OTHERS).map(|count| {
        let maps = maps.clone();
        async move {
            let map = config_map(&format!("other-{count}"), "1");
            maps.create(&PostParams::default(), &map).await.unwrap();
        }
    });
    futures::future::join_all(others).await;
    let mut map = config_map("wanted", "1");
    map.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    maps.create(&PostParams::default(), &map).await.unwrap();
    for from in [since.as_str(), "0"] {
        let params = WatchParams::default().labels("app=x");
        let mut seen = maps.watch(&params, from).await.unwrap().boxed();
        let event = tokio::time::timeout(PATIENCE, seen.try_next()).await;
        let event = event.expect("nothing else changes, so it must come by itself").unwrap();
        assert!(matches!(event, Some(WatchEvent::Added(map)) if map.name_any() == "wanted"));
    }
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart_and_tells_what_ceased_to_match() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let since = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut map = config_map("a", "1");
    map.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    maps.create(&PostParams::default(), &map).await.unwrap();
    let unlabel = json!({"metadata": {"labels": null}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&unlabel)).await.unwrap();
    let home = home.reopen().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let params = kube::api::WatchParams::default().labels("app=x");
    let events = maps.watch(&params, &since).await.unwrap().take(2);
    let kinds: Vec<String> = events
        .map_ok(|event| match event {
            kube::api::WatchEvent::Added(map) => format!("added {}", map.name_any()),
            kube::api::WatchEvent::Deleted(map) => format!("deleted {}", map.name_any()),
            other => format!("{other:?}"),
        })
        .try_collect()
        .await
        .unwrap();
    assert_eq!(kinds, ["added a", "deleted a"]);
}

#[tokio::test]
async fn refuses_objects_in_a_namespace_that_does_not_exist() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::namespaced(home.client(), "nope");
    let error = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert!(error.to_string().contains("namespaces \"nope\" not found"), "{error}");
    let namespaces: Api<Namespace> = Api::all(home.client());
    assert!(namespaces.get("default").await.is_ok());
}

#[tokio::test]
async fn a_selector_reads_a_flag_that_is_not_set_as_false() {
    let home = Home::new().await;
    let nodes: Api<Node> = Api::all(home.client());
    let node = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let open = ListParams::default().fields("spec.unschedulable=false");
    assert_eq!(nodes.list(&open).await.unwrap().items.len(), 1);
    nodes.cordon("n").await.unwrap();
    assert_eq!(nodes.list(&open).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn says_as_kubernetes_does_what_is_wrong() {
    let home = Home::new().await;
    let widgets = widgets(&home.client()).await;
    let post = PostParams::default();
    let message = |error: kube::Error| match error {
        kube::Error::Api(status) => status.message,
        other => panic!("not an API error: {other}"),
    };
    let said = message(widgets.get("w").await.unwrap_err());
    assert_eq!(said, "widgets.lab.example.com \"w\" not found");
    let said = message(widgets.create(&post, &widget("BAD_", 1)).await.unwrap_err());
    assert!(said.starts_with(
        "Widget.lab.example.com \"BAD_\" is invalid: metadata.name: Invalid value: \"BAD_\": a \
         lowercase RFC 1123 subdomain must consist of"
    ));
    let made = widgets.create(&post, &widget("w", 1)).await.unwrap();
    let said = message(widgets.create(&post, &widget("w", 1)).await.unwrap_err());
    assert_eq!(said, "widgets.lab.example.com \"w\" already exists");
    let fields = ListParams::default().fields("spec.size=1");
    let said = message(widgets.list(&fields).await.unwrap_err());
    assert_eq!(said, "field label not supported: spec.size");
    let said =
        message(widgets.list(&ListParams::default().continue_token("x!")).await.unwrap_err());
    assert!(said.starts_with("invalid continue token"), "{said}");
    let change = |size| Patch::Merge(json!({"spec": {"size": size}}));
    widgets.patch("w", &PatchParams::default(), &change(2)).await.unwrap();
    let said = message(widgets.replace("w", &post, &made).await.unwrap_err());
    assert_eq!(
        said,
        "Operation cannot be fulfilled on widgets.lab.example.com \"w\": the object has been \
         modified; please apply your changes to the latest version and try again"
    );
    let future = ListParams::default().at("99999999");
    let said = message(widgets.list(&future).await.unwrap_err());
    assert!(said.starts_with("Timeout: Too large resource version: 99999999, current: "), "{said}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let home = Home::new().await;
    let widgets = widgets(&home.client()).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = widgets.create(&dry, &widget("w", 1)).await.unwrap();
    assert_eq!(made.data["spec"]["replicas"], 1);
    assert!(widgets.get_opt("w").await.unwrap().is_none());
    widgets.create(&PostParams::default(), &widget("w", 1)).await.unwrap();
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"size": 5}}));
    assert_eq!(widgets.patch("w", &params, &patch).await.unwrap().data["spec"]["size"], 5);
    assert_eq!(widgets.get("w").await.unwrap().data["spec"]["size"], 1);
    widgets.delete("w", &DeleteParams::default().dry_run()).await.unwrap();
    assert!(widgets.get_opt("w").await.unwrap().is_some());
}

#[tokio::test]
async fn names_are_made_up_and_a_write_that_changes_nothing_is_none() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let mut map = config_map("", "1");
    map.metadata.name = None;
    map.metadata.generate_name = Some("made-".to_owned());
    let first = maps.create(&PostParams::default(), &map).await.unwrap();
    let second = maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(first.name_any().starts_with("made-") && first.name_any() != second.name_any());
    let same = Patch::Merge(json!({"data": {"key": "1"}}));
    let name = first.name_any();
    let again = maps.patch(&name, &PatchParams::default(), &same).await.unwrap();
    assert_eq!(again.resource_version(), first.resource_version());
}

#[tokio::test]
async fn a_watch_goes_past_what_it_does_not_show() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let since = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    // More than a watch looks at in one step.
    let many = (0..600).map(|count| {
        let maps = maps.clone();
        async move {
            let map = config_map(&format!("m-{count}"), "1");
            maps.create(&PostParams::default(), &map).await.unwrap();
        }
    });
    futures::future::join_all(many).await;
    maps.create(&PostParams::default(), &config_map("wanted", "1")).await.unwrap();
    for version in [since.as_str(), "0"] {
        let params = kube::api::WatchParams::default().fields("metadata.name=wanted");
        let mut events = maps.watch(&params, version).await.unwrap().boxed();
        let seen = events.try_next().await.unwrap().unwrap();
        let kube::api::WatchEvent::Added(map) = seen else { panic!("{seen:?}") };
        assert_eq!(map.name_any(), "wanted");
    }
}
