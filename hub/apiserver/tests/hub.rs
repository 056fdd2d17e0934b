//! What the hub plugs into the API: admission rules, routes of its own, events, identities.

#[path = "shared/home.rs"]
mod home;

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Pod, ServiceAccount},
    api::rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::events::{EventType, Recorder, Reporter},
};
use muster_apiserver::{AdmissionRequest, Admit, Mounted, Operation, POD_NAME, Status, UserInfo};
use serde_json::json;

use home::{Home, config_map, reason};

/// Refuses the value `bad`, warns of `odd`.
struct NoBadValues;

impl Admit for NoBadValues {
    fn wants(&self, group: &str, resource: &str) -> bool {
        (group, resource) == ("", "configmaps")
    }

    fn admit<'a>(
        &'a self,
        request: &'a AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Status>> {
        let value = request.object.as_ref().map(|object| object["data"]["key"].clone());
        let refused = request.operation != Operation::Delete && value == Some("bad".into());
        let answer = match (refused, value == Some("odd".into())) {
            (true, _) => Err(Status::forbidden("bad values are not welcome")),
            (_, true) => Ok(vec!["an odd value".to_owned()]),
            _ => Ok(Vec::new()),
        };
        async move { answer }.boxed()
    }
}

#[tokio::test]
async fn a_rule_of_the_hub_refuses_a_write() {
    let home = Home::new().await;
    home.api.admit(Arc::new(NoBadValues));
    let maps: Api<ConfigMap> = Api::default_namespaced(home.client());
    let post = PostParams::default();
    let refused = maps.create(&post, &config_map("a", "bad")).await.unwrap_err();
    assert!(refused.to_string().contains("bad values are not welcome"), "{refused}");
    maps.create(&post, &config_map("a", "good")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "bad"}}));
    let refused = maps.patch("a", &PatchParams::default(), &patch).await.unwrap_err();
    assert_eq!(reason(refused), "Forbidden");
    let apply = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": "bad"},
    });
    let params = PatchParams::apply("me").force();
    let refused = maps.patch("a", &params, &Patch::Apply(&apply)).await.unwrap_err();
    assert_eq!(reason(refused), "Forbidden");
    maps.delete("a", &Default::default()).await.unwrap();
}

/// Answers with who asks and what he sent.
struct Echo;

impl Mounted for Echo {
    fn body_bytes_max(&self) -> usize {
        8
    }

    fn serve(
        &self,
        user: UserInfo,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response<Bytes>> {
        let pod = user.extra.get(POD_NAME).map_or("no pod", |names| &names[0]).to_owned();
        let path = request.uri().path().to_owned();
        let body = String::from_utf8_lossy(request.body()).into_owned();
        async move { Response::new(format!("{} {pod} {path} {body}", user.name).into()) }.boxed()
    }
}

async fn send(client: &Client, body: &str) -> Result<String, kube::Error> {
    let request = Request::post("/own/results").body(body.as_bytes().to_vec()).unwrap();
    client.request_text(request).await
}

#[tokio::test]
async fn a_route_of_the_hub_learns_who_asks() {
    let home = Home::new().await;
    home.api.mount("/own/", Arc::new(Echo));
    let user = UserInfo::service_account("team", "bot");
    let client = Client::new(home.api.service(user), "team");
    let answer = send(&client, "hello").await.unwrap();
    assert_eq!(answer, "system:serviceaccount:team:bot no pod /own/results hello");
    let refused = send(&client, "longer than eight bytes").await.unwrap_err();
    assert_eq!(reason(refused), "RequestEntityTooLarge");
}

#[tokio::test]
async fn a_pod_token_names_its_pod_and_dies_with_it() {
    let home = Home::new().await;
    let client = home.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let token = home.api.issue_service_account_token("default", "default", Some("p"), 600).unwrap();
    let review = json!({"spec": {"token": token}});
    let reviews: Api<k8s_openapi::api::authentication::v1::TokenReview> = Api::all(client.clone());
    let ask = || async {
        let review = serde_json::from_value(review.clone()).unwrap();
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    };
    let alive = ask().await;
    assert_eq!(alive.authenticated, Some(true));
    assert_eq!(alive.user.unwrap().extra.unwrap()[POD_NAME], ["p"]);
    pods.delete("p", &Default::default()).await.unwrap();
    let dead = ask().await;
    assert_ne!(dead.authenticated, Some(true));
    assert!(dead.error.unwrap().contains("pod no longer exists"));
}

#[tokio::test]
async fn a_recorder_of_new_events_is_read_as_old_events() {
    let home = Home::new().await;
    let client = home.client();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let recorder = Recorder::new(client.clone(), Reporter::from("tester"));
    let event = kube::runtime::events::Event {
        type_: EventType::Normal,
        reason: "Looked".to_owned(),
        note: Some("all is well".to_owned()),
        action: "Look".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &map.object_ref(&())).await.unwrap();
    recorder.publish(&event, &map.object_ref(&())).await.unwrap();
    let events: Api<Event> = Api::default_namespaced(client);
    let about = ListParams::default().fields("involvedObject.name=a,involvedObject.kind=ConfigMap");
    let found = events.list(&about).await.unwrap().items;
    assert_eq!(found.len(), 1, "the second is a series of the first");
    assert_eq!(found[0].message.as_deref(), Some("all is well"));
    assert_eq!(found[0].reporting_component.as_deref(), Some("tester"));
}

#[tokio::test]
async fn a_controller_may_do_what_its_role_says() {
    let home = Home::new().await;
    let admin = home.client();
    let post = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    let account = ServiceAccount::default();
    let named = |name: &str| ServiceAccount {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..account.clone()
    };
    accounts.create(&post, &named("bot")).await.unwrap();
    let bot = Client::new(home.api.service(UserInfo::service_account("default", "bot")), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(bot.clone());
    let refused = maps.create(&post, &config_map("a", "1")).await.unwrap_err();
    assert_eq!(reason(refused), "Forbidden");
    let roles: Api<Role> = Api::default_namespaced(admin.clone());
    let role = serde_json::from_value(json!({
        "metadata": {"name": "maker"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}],
    }))
    .unwrap();
    roles.create(&post, &role).await.unwrap();
    let bindings: Api<RoleBinding> = Api::default_namespaced(admin.clone());
    let binding = serde_json::from_value(json!({
        "metadata": {"name": "makers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maker"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    }))
    .unwrap();
    bindings.create(&post, &binding).await.unwrap();
    maps.create(&post, &config_map("a", "1")).await.unwrap();
    let elsewhere: Api<ConfigMap> = Api::namespaced(bot, "kube-system");
    assert_eq!(
        reason(elsewhere.create(&post, &config_map("a", "1")).await.unwrap_err()),
        "Forbidden"
    );
    assert_eq!(reason(maps.get("a").await.unwrap_err()), "Forbidden");
}
