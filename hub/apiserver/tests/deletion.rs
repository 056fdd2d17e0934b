//! What goes with what: finalizers, owners, namespaces, definitions.

#[path = "shared/home.rs"]
mod home;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource as _,
    api::{
        DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, PropagationPolicy,
    },
};
use serde_json::json;

use home::{Home, config_map, reason, until, widget, widgets};

fn owned_by(owner: &ConfigMap, name: &str) -> ConfigMap {
    let reference =
        OwnerReference { block_owner_deletion: Some(true), ..owner.owner_ref(&()).unwrap() };
    let mut map = config_map(name, "owned");
    map.metadata.owner_references = Some(vec![reference]);
    map
}

async fn is_gone(maps: &Api<ConfigMap>, name: &str) -> bool {
    maps.get_opt(name).await.unwrap().is_none()
}

fn finalizers(list: &[&str]) -> Patch<serde_json::Value> {
    Patch::Merge(json!({"metadata": {"finalizers": list}}))
}

#[tokio::test]
async fn waits_for_the_last_finalizer() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let params = PatchParams::default();
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    maps.patch("a", &params, &finalizers(&["x.example/a"])).await.unwrap();
    let held = maps.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let refused =
        maps.patch("a", &params, &finalizers(&["x.example/a", "x.example/b"])).await.unwrap_err();
    assert_eq!(reason(refused), "Invalid");
    maps.patch("a", &params, &finalizers(&[])).await.unwrap();
    assert!(is_gone(&maps, "a").await);
}

#[tokio::test]
async fn what_is_owned_follows_its_owner() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let post = PostParams::default();
    let owner = maps.create(&post, &config_map("owner", "1")).await.unwrap();
    let child = maps.create(&post, &owned_by(&owner, "child")).await.unwrap();
    maps.create(&post, &owned_by(&child, "grandchild")).await.unwrap();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    until("the grandchild is gone", || is_gone(&maps, "grandchild")).await;
    assert!(is_gone(&maps, "child").await);
}

#[tokio::test]
async fn a_foreground_deletion_ends_with_the_owner() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let post = PostParams::default();
    let owner = maps.create(&post, &config_map("owner", "1")).await.unwrap();
    maps.create(&post, &owned_by(&owner, "child")).await.unwrap();
    maps.patch("child", &PatchParams::default(), &finalizers(&["x.example/a"])).await.unwrap();
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    until("the child is being deleted", async || {
        maps.get("child").await.unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
    assert!(!is_gone(&maps, "owner").await, "the owner waits for what blocks it");
    maps.patch("child", &PatchParams::default(), &finalizers(&[])).await.unwrap();
    until("the owner is gone", || is_gone(&maps, "owner")).await;
    assert!(is_gone(&maps, "child").await);
}

#[tokio::test]
async fn an_orphan_stays_without_its_owner() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let post = PostParams::default();
    let owner = maps.create(&post, &config_map("owner", "1")).await.unwrap();
    maps.create(&post, &owned_by(&owner, "child")).await.unwrap();
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    maps.delete("owner", &orphan).await.unwrap();
    until("the owner is gone", || is_gone(&maps, "owner")).await;
    assert_eq!(maps.get("child").await.unwrap().metadata.owner_references, None);
}

#[tokio::test]
async fn what_is_owned_by_nobody_is_collected_after_a_restart() {
    let home = Home::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let post = PostParams::default();
    let mut stranger = maps.create(&post, &config_map("owner", "1")).await.unwrap();
    stranger.metadata.uid = Some("never-was".to_owned());
    let home = home.reopen().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    maps.create(&post, &owned_by(&stranger, "child")).await.unwrap();
    until("the child is gone", || is_gone(&maps, "child")).await;
    assert!(!is_gone(&maps, "owner").await);
}

#[tokio::test]
async fn a_namespace_goes_after_its_content() {
    let home = Home::new().await;
    let client = home.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some("team".to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "team");
    until("it has its account", async || accounts.get_opt("default").await.unwrap().is_some())
        .await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    maps.patch("a", &PatchParams::default(), &finalizers(&["x.example/a"])).await.unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    until("it says what it waits for", async || {
        let conditions = namespaces.get("team").await.unwrap().status.unwrap().conditions;
        conditions.unwrap_or_default().iter().any(|own| {
            own.type_ == "NamespaceFinalizersRemaining"
                && own.message.as_deref().unwrap_or_default().contains("x.example/a")
        })
    })
    .await;
    let refused = maps.create(&PostParams::default(), &config_map("b", "1")).await.unwrap_err();
    assert_eq!(reason(refused), "Forbidden");
    maps.patch("a", &PatchParams::default(), &finalizers(&[])).await.unwrap();
    until("it is gone", async || namespaces.get_opt("team").await.unwrap().is_none()).await;
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let home = Home::new().await;
    let client = home.client();
    let widgets = widgets(&client).await;
    widgets.create(&PostParams::default(), &widget("w", 1)).await.unwrap();
    widgets.patch("w", &PatchParams::default(), &finalizers(&["x.example/a"])).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.delete("widgets.lab.example.com", &DeleteParams::default()).await.unwrap();
    until("the object is being deleted", async || {
        widgets.get("w").await.unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
    let refused = widgets.create(&PostParams::default(), &widget("x", 1)).await.unwrap_err();
    assert_eq!(reason(refused), "MethodNotAllowed");
    widgets.patch("w", &PatchParams::default(), &finalizers(&[])).await.unwrap();
    until("the definition is gone", async || {
        definitions.get_opt("widgets.lab.example.com").await.unwrap().is_none()
    })
    .await;
    assert!(widgets.list(&ListParams::default()).await.is_err(), "the kind is no longer served");
}
