//! The API through `kube::Client` within the process: what the hub's controllers rely on.

#[path = "shared/home.rs"]
mod home;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use home::{Home, config_map, reason, widget, widgets};

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
