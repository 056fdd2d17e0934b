//! The API through the real `kubectl`.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/kubectl.rs"]
mod kubectl;

use std::{io, os::unix::fs::PermissionsExt as _, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use muster_apiserver::{LogOptions, LogTarget, PodLogs};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use kubectl::Kubectl;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.lab.example.com}
spec:
  group: lab.example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, minimum: 1, description: How big it is.}
              replicas: {type: integer, default: 1}
          status:
            type: object
            properties:
              replicas: {type: integer}
              conditions:
                type: array
                items:
                  type: object
                  properties: {type: {type: string}, status: {type: string}}
"#;

fn widget(size: i64) -> String {
    format!(
        "apiVersion: lab.example.com/v1\nkind: Widget\nmetadata: {{name: w1}}\nspec: {{size: {size}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_kind_lives_its_whole_life() {
    let kubectl = Kubectl::new().await;
    kubectl.ok_with("apply -f -", DEFINITION).await;
    kubectl.ok("wait --for=condition=Established crd/widgets.lab.example.com").await;
    kubectl.ok_with("apply -f -", &widget(3)).await;
    let configured = kubectl.ok_with("apply -f -", &widget(4)).await;
    assert_eq!(configured, "widget.lab.example.com/w1 configured\n");
    let unchanged = kubectl.ok_with("apply -f -", &widget(4)).await;
    assert_eq!(unchanged, "widget.lab.example.com/w1 unchanged\n");
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl.ok(&format!("patch wd w1 --subresource=status --type=merge -p '{status}'")).await;
    kubectl.ok("wait --for=condition=Ready --timeout=30s wd/w1").await;
    let table = kubectl.ok("get wd").await;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["NAME", "SIZE", "READY"], ["w1", "4", "True"]]);
    kubectl.ok("scale wd/w1 --replicas=5").await;
    kubectl.ok("label wd w1 team=a").await;
    let labelled = kubectl.ok("get wd -o name -l team=a").await;
    assert_eq!(labelled, "widget.lab.example.com/w1\n");
    let replicas = kubectl.ok("get wd w1 -o jsonpath={.spec.replicas}").await;
    assert_eq!(replicas, "5");
    assert!(kubectl.ok("get all").await.contains("widget.lab.example.com/w1"));
    assert!(kubectl.ok("explain widget.spec.size").await.contains("How big it is."));
    assert!(kubectl.ok("describe wd w1").await.contains("Size:"));
    assert!(kubectl.ok("api-resources").await.contains("widgets"));
    let refused = kubectl.refused("apply -f -", &widget(0)).await;
    let expected = "spec.size in body should be greater than or equal to 1";
    assert!(refused.contains(expected), "{refused}");
    let typo = widget(4).replace("size", "siez");
    let refused = kubectl.refused("apply -f -", &typo).await;
    assert!(refused.contains("unknown field \"spec.siez\""), "{refused}");
    kubectl.ok("delete wd w1").await;
    assert!(kubectl.refused("get wd w1", "").await.contains("NotFound"));
    kubectl.ok("delete crd widgets.lab.example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_changes_an_object() {
    let kubectl = Kubectl::new().await;
    kubectl.ok_with("apply -f -", DEFINITION).await;
    kubectl.ok_with("apply -f -", &widget(3)).await;
    let editor = kubectl.home.dir.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/size: 3/size: 7/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o700)).unwrap();
    let edited = kubectl.command("edit wd w1").env("EDITOR", &editor).output().await.unwrap();
    assert!(edited.status.success(), "{edited:?}");
    assert_eq!(kubectl.ok("get wd w1 -o jsonpath={.spec.size}").await, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_kinds_are_made_by_command() {
    let kubectl = Kubectl::new().await;
    kubectl.ok("create namespace team").await;
    kubectl.ok("create configmap a -n team --from-literal=k=v").await;
    kubectl.ok("create secret generic s -n team --from-literal=k=v").await;
    kubectl.ok("create serviceaccount bot -n team").await;
    kubectl.ok("create role reader -n team --verb=get,list --resource=configmaps").await;
    kubectl.ok("create rolebinding readers -n team --role=reader --serviceaccount=team:bot").await;
    kubectl.ok("create job once -n team --image=busybox -- true").await;
    let secret = kubectl.ok("get secret s -n team -o jsonpath={.data.k}").await;
    assert_eq!(secret, "dg==");
    let completions = kubectl.ok("get job once -n team").await;
    assert!(completions.contains("0/1"), "{completions}");
    kubectl.ok(r#"patch configmap a -n team -p '{"data":{"k2":"w"}}'"#).await;
    assert_eq!(kubectl.ok("get cm a -n team -o jsonpath={.data}").await, r#"{"k":"v","k2":"w"}"#);
    kubectl.ok("delete namespace team --timeout=60s").await;
    assert!(kubectl.refused("get cm a -n team", "").await.contains("NotFound"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_do_what_its_role_says_and_no_more() {
    let kubectl = Kubectl::new().await;
    kubectl.ok("create serviceaccount bot").await;
    kubectl.ok("create configmap a --from-literal=k=v").await;
    kubectl.ok("create role reader --verb=get --resource=configmaps --resource-name=a").await;
    kubectl.ok("create rolebinding readers --role=reader --serviceaccount=default:bot").await;
    let bot = "--as=system:serviceaccount:default:bot";
    assert_eq!(kubectl.ok(&format!("auth can-i get cm/a {bot}")).await, "yes\n");
    assert_eq!(kubectl.call(&format!("auth can-i list cm {bot}"), "").await.out, "no\n");
    let token = kubectl.ok("create token bot --duration=600s").await;
    // The client certificate of the kubeconfig would win over a token.
    let ca = kubectl.home.dir.path().join("pki/ca.crt");
    let alone = format!(
        "--kubeconfig=/dev/null --server=https://{} --certificate-authority={} --token={}",
        kubectl.address,
        ca.display(),
        token.trim()
    );
    assert_eq!(kubectl.ok(&format!("{alone} get cm a -o jsonpath={{.data.k}}")).await, "v");
    let whoami = kubectl.ok(&format!("{alone} auth whoami")).await;
    assert!(whoami.contains("system:serviceaccount:default:bot"), "{whoami}");
    let refused = kubectl.refused(&format!("{alone} get cm b"), "").await;
    assert!(refused.contains("cannot get resource \"configmaps\""), "{refused}");
    kubectl.ok("delete serviceaccount bot").await;
    let dead = kubectl.refused(&format!("{alone} get cm a"), "").await;
    assert!(dead.contains("Unauthorized"), "a token dies with its account: {dead}");
    let nobody = alone.replace(token.trim(), "forged.token.here");
    assert!(kubectl.refused(&format!("{nobody} get cm a"), "").await.contains("Unauthorized"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_out_rights_that_he_lacks() {
    let kubectl = Kubectl::new().await;
    kubectl
        .ok("create role writer --verb=create,get --resource=roles.rbac.authorization.k8s.io")
        .await;
    kubectl.ok("create rolebinding writers --role=writer --user=eve").await;
    let refused =
        kubectl.refused("create role more --verb=get --resource=secrets --as=eve", "").await;
    assert!(refused.contains("not currently held"), "{refused}");
    kubectl
        .ok("create role less --verb=get --resource=roles.rbac.authorization.k8s.io --as=eve")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_appliers_conflict_by_name() {
    let kubectl = Kubectl::new().await;
    kubectl.ok_with("apply -f -", DEFINITION).await;
    kubectl.ok_with("apply --server-side --field-manager=one -f -", &widget(3)).await;
    let refused = kubectl.refused("apply --server-side --field-manager=two -f -", &widget(4)).await;
    assert!(refused.contains("conflict with \"one\""), "{refused}");
    let forced = "apply --server-side --field-manager=two --force-conflicts -f -";
    kubectl.ok_with(forced, &widget(4)).await;
    assert_eq!(kubectl.ok("get wd w1 -o jsonpath={.spec.size}").await, "4");
    let dry = kubectl.ok_with("apply --server-side --dry-run=server -o jsonpath={.spec.size} --field-manager=two -f -", &widget(9)).await;
    assert_eq!(dry, "9");
    assert_eq!(kubectl.ok("get wd w1 -o jsonpath={.spec.size}").await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_rows_as_they_change() {
    let kubectl = Kubectl::new().await;
    kubectl.ok_with("apply -f -", DEFINITION).await;
    kubectl.ok_with("apply -f -", &widget(3)).await;
    let mut child = kubectl.command("get wd -w --no-headers").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    kubectl.ok_with("apply -f -", &widget(8)).await;
    let second = lines.next_line().await.unwrap().unwrap();
    let sizes = [&first, &second].map(|line| line.split_whitespace().nth(1).map(str::to_owned));
    assert_eq!(sizes, [Some("3".to_owned()), Some("8".to_owned())]);
    child.kill().await.unwrap();
}

/// Logs as a runner would supply them, of one container.
struct OneLog;

impl PodLogs for OneLog {
    fn open(
        &self,
        target: &LogTarget,
        options: LogOptions,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        if target.container != "main" {
            return Err(io::ErrorKind::NotFound.into());
        }
        let lines = format!("{} tail={:?}\n", target.pod, options.tail_lines);
        Ok(futures::stream::iter([Ok(Bytes::from(lines))]).boxed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_whoever_runs_the_pods() {
    let kubectl = Kubectl::new().await;
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}}
spec:
  initContainers: [{name: first, image: i}]
  containers: [{name: main, image: i}]
";
    kubectl.ok_with("apply -f -", pod).await;
    let none = kubectl.refused("logs p", "").await;
    assert!(none.contains("runs no pods"), "{none}");
    kubectl.home.api.set_pod_logs(Arc::new(OneLog));
    assert_eq!(kubectl.ok("logs p --tail=3").await, "p tail=Some(3)\n");
    assert_eq!(kubectl.ok("logs -l app=x --tail=-1").await, "p tail=None\n");
    let waiting = kubectl.refused("logs p -c first", "").await;
    assert!(waiting.contains("waiting to start"), "{waiting}");
    assert!(kubectl.refused("logs p -c nope", "").await.contains("not valid for pod"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_moves_from_client_side_to_server_side_apply() {
    let kubectl = Kubectl::new().await;
    let job = "
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}
";
    kubectl.ok_with("apply -f -", job).await;
    for _ in 0..2 {
        kubectl.ok_with("apply --server-side -f -", job).await;
    }
    let wrong_type = widget(4).replace("{size: 4}", "wrong");
    kubectl.ok_with("apply -f -", DEFINITION).await;
    let refused = kubectl.refused("create --validate=false -f -", &wrong_type).await;
    assert!(refused.contains("spec in body must be of type object"), "{refused}");
}
