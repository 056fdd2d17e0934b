//! Who may do what, from outside: roles that gather others, rights that are not handed on, and
//! the reviews that say why, with the real `kubectl` and with bare connections.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/kubectl.rs"]
mod kubectl;
#[path = "shared/people.rs"]
mod people;
#[path = "shared/raw.rs"]
mod raw;

use serde_json::{Value, json};

use people::{READER, certified, served, write_kubeconfig};

#[tokio::test(flavor = "multi_thread")]
async fn aggregated_roles_show_what_they_give() {
    let (kubectl, _) = served().await;
    let widgets = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: widgets, labels: {rbac.authorization.k8s.io/aggregate-to-edit: "true"}}
rules: [{apiGroups: [lab.example.com], resources: [widgets], verbs: ["*"]}]
"#;
    kubectl.ok_with("apply -f -", widgets).await;
    let kubectl = &kubectl;
    for role in ["edit", "admin"] {
        home::until("the role shows the rule", || async move {
            kubectl.ok(&format!("get clusterrole {role} -o json")).await.contains("lab.example.com")
        })
        .await;
    }
    let view = kubectl.ok("get clusterrole view -o json").await;
    assert!(!view.contains("lab.example.com"));
    kubectl.ok("delete clusterrole widgets").await;
    home::until("the rule is gone", || async move {
        !kubectl.ok("get clusterrole admin -o json").await.contains("lab.example.com")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_not_smuggled() {
    let (kubectl, admin) = served().await;
    let roles = "roles.rbac.authorization.k8s.io,clusterroles.rbac.authorization.k8s.io,\
                 rolebindings.rbac.authorization.k8s.io,\
                 clusterrolebindings.rbac.authorization.k8s.io";
    let verbs = "get,list,create,update,patch,delete";
    kubectl.ok(&format!("create clusterrole rbac --verb={verbs} --resource={roles}")).await;
    kubectl.ok("create clusterrolebinding rbac --clusterrole=rbac --user=eve").await;
    kubectl.ok("create clusterrole secrets --verb=get --resource=secrets").await;
    let eve = certified(&admin, "eve", &[], 600).await.unwrap();
    let path = kubectl.home.dir.path().join("eve.kubeconfig");
    write_kubeconfig(&eve, &path);
    let eve = format!("--kubeconfig={}", path.display());
    let label = "rbac.authorization.k8s.io/aggregate-to-view=true";
    let attempts = [
        ("create clusterrole more --verb=get --resource=secrets".to_owned(), "not currently held"),
        ("create clusterrole more --verb=* --resource=*".to_owned(), "not currently held"),
        (
            "create clusterrole more --verb=get --non-resource-url=/x".to_owned(),
            "not currently held",
        ),
        (
            "create rolebinding more --clusterrole=secrets --user=eve".to_owned(),
            "not currently held",
        ),
        (
            "create clusterrolebinding more --clusterrole=cluster-admin --user=eve".to_owned(),
            "not currently held",
        ),
        ("create rolebinding more --role=missing --user=eve".to_owned(), "not found"),
        (format!("label clusterrole secrets {label}"), "not currently held"),
        ("create clusterrole more --aggregation-rule=a=b".to_owned(), "cluster-admin privileges"),
    ];
    for (attempt, expected) in &attempts {
        let refused = kubectl.refused(&format!("{eve} {attempt}"), "").await;
        assert!(refused.contains(expected), "{attempt}: {refused}");
    }
    let patch = r#"{"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}"#;
    kubectl.ok(&format!("{eve} create role own --verb=get --resource=roles")).await;
    let refused =
        kubectl.refused(&format!("{eve} patch role own --type=merge -p '{patch}'"), "").await;
    let expected = "roles.rbac.authorization.k8s.io \"own\" is forbidden: user \"eve\" \
                    (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions \
                    not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], \
                    Verbs:[\"get\"]}";
    assert!(refused.contains(expected), "{refused}");
    let applied = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: own}
rules: [{apiGroups: [""], resources: [secrets], verbs: [list]}]
"#;
    let apply = format!("{eve} apply --server-side --force-conflicts -f -");
    assert!(kubectl.refused(&apply, applied).await.contains("not currently held"));
    // A short role that stands for a million million rights is not looked through.
    let many: Vec<String> = (0..10_000).map(|count| format!("x{count}")).collect();
    let bomb = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "b"},
        "rules": [{"apiGroups": many, "resources": many, "verbs": many}],
    });
    assert!(
        kubectl
            .refused(&format!("{eve} create -f -"), &bomb.to_string())
            .await
            .contains("not currently held")
    );
    // With the verbs that say so, she may.
    kubectl
        .ok("create clusterrole binder --verb=bind --resource=clusterroles --resource-name=secrets")
        .await;
    kubectl.ok("create clusterrolebinding binder --clusterrole=binder --user=eve").await;
    kubectl.ok(&format!("{eve} create rolebinding more --clusterrole=secrets --user=eve")).await;
    let other = "create rolebinding all --clusterrole=cluster-admin --user=eve";
    assert!(kubectl.refused(&format!("{eve} {other}"), "").await.contains("not currently held"));
    kubectl.ok("create clusterrole escalator --verb=escalate --resource=roles").await;
    kubectl.ok("create rolebinding escalator --clusterrole=escalator --user=eve").await;
    kubectl.ok(&format!("{eve} create role free --verb=delete --resource=pods")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_one_object_may_watch_it() {
    let (kubectl, admin) = served().await;
    kubectl.ok("create configmap a --from-literal=k=v").await;
    kubectl
        .ok("create role one --verb=get,list,watch --resource=configmaps --resource-name=a")
        .await;
    kubectl.ok("create rolebinding ones --role=one --user=ann").await;
    let ann = certified(&admin, "ann", &[], 600).await.unwrap();
    let list = "/api/v1/namespaces/default/configmaps";
    assert_eq!(ann.get(list).await.0, 403);
    let (code, found) = ann.get(&format!("{list}?fieldSelector=metadata.name%3Da")).await;
    assert_eq!(code, 200, "{found}");
    let (code, _) = ann.get(&format!("{list}?fieldSelector=metadata.name%3Db")).await;
    assert_eq!(code, 403);
    let (code, _) = ann.get(&format!("{list}?fieldSelector=metadata.name!%3Db")).await;
    assert_eq!(code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_say_why() {
    let (kubectl, admin) = served().await;
    kubectl.ok_with("apply -f -", READER).await;
    let ask = async |spec: Value| {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (code, body) = admin.post(path, json!({"spec": spec}).to_string()).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    let what = |verb| json!({"verb": verb, "resource": "configmaps", "namespace": "default"});
    let (_, answer) = ask(json!({"groups": ["second"], "resourceAttributes": what("get")})).await;
    let reason = "RBAC: allowed by RoleBinding \"readers/default\" of Role \"reader\" to Group \
                  \"second\"";
    assert_eq!(answer["status"], json!({"allowed": true, "reason": reason}));
    let (_, answer) = ask(json!({"user": "x", "resourceAttributes": what("get")})).await;
    assert_eq!(answer["status"], json!({"allowed": false}));
    assert_eq!(ask(json!({"resourceAttributes": what("get")})).await.0, 422);
    assert_eq!(ask(json!({"user": "x"})).await.0, 422);
    let list = kubectl.ok("auth can-i --list --as=ann --as-group=second").await;
    let row = list.lines().find(|line| line.starts_with("configmaps")).unwrap();
    assert!(row.contains("[get list]"), "{row}");
    assert_eq!(kubectl.call("auth can-i delete pods --as=ann", "").await.out, "no\n");
}
