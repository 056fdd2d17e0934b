//! The world of a pipeline: its Job, and what its containers find: environment, files, mounts.

use std::collections::BTreeMap;

use muster_e2e::{Executor, Hub, Kubectl, scratch};
use serde_json::{Value, json};

use super::{GOOD, with};

/// Two containers that tell what they see.
const PIPELINE: &str = r#"
      - apiVersion: platform.kratix.io/v1alpha1
        kind: Pipeline
        metadata:
          name: look
          labels: {team: blue, kratix.io/promise-name: other, app.kubernetes.io/managed-by: me}
          annotations: {note: hello}
        spec:
          nodeSelector: {kubernetes.io/os: linux}
          tolerations: [{key: dedicated, operator: Exists}]
          imagePullSecrets: [{name: registry}]
          jobOptions: {backoffLimit: 0, ttlSecondsAfterFinished: 3600}
          restartPolicy: Never
          volumes:
          - {name: scratch, emptyDir: {}}
          - {name: settings, configMap: {name: settings, items: [{key: mode, path: dir/mode.txt}]}}
          - {name: keys, secret: {secretName: keys}}
          - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
          - name: all
            projected:
              sources:
              - configMap: {name: settings}
              - secret: {name: keys}
              - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.namespace}}]}
              - serviceAccountToken: {path: token, audience: vault}
          containers:
          - name: first
            image: box
            command: [sh, -c]
            args:
            - |
              set -eu
              echo "env: action=$KRATIX_WORKFLOW_ACTION type=$KRATIX_WORKFLOW_TYPE promise=$KRATIX_PROMISE_NAME"
              echo "env: pipeline=$KRATIX_PIPELINE_NAME kind=$KRATIX_OBJECT_KIND group=$KRATIX_OBJECT_GROUP"
              echo "env: version=$KRATIX_OBJECT_VERSION name=$KRATIX_OBJECT_NAME namespace=$KRATIX_OBJECT_NAMESPACE"
              echo "env: plural=$KRATIX_CRD_PLURAL cluster=$KRATIX_CLUSTER_SCOPED dry=${KRATIX_DRY_RUN-unset}"
              echo "own: $PLAIN $MODE $PASSWORD $POD_NAMESPACE $ALL_mode $expanded"
              echo "file: $(cat /settings/dir/mode.txt) $(cat /keys/password) $(cat /all/mode) $(cat /all/password) $(cat /all/name)"
              echo "part: $(cat /app/mode.txt)"
              echo "label: $(grep team /about/labels)"
              test -s /all/token && echo "token: $(cut -d. -f2 < /all/token | tr '_-' '/+' | base64 -d 2>/dev/null | grep -o '"vault"')"
              (echo x > /kratix/input/x) 2>/dev/null || echo "input: read-only"
              (echo x > /settings/x) 2>/dev/null || echo "settings: read-only"
              grep -q '^kind: Good' /kratix/input/object.yaml && echo "object: there"
              echo kept > /scratch/kept
              echo told > /kratix/metadata/notes
            env:
            - {name: PLAIN, value: plain}
            - {name: KRATIX_PIPELINE_NAME, value: mine}
            - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
            - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: expanded, value: $(PLAIN)-$(MODE)}
            envFrom: [{prefix: ALL_, configMapRef: {name: settings}}]
            volumeMounts:
            - {name: scratch, mountPath: /scratch}
            - {name: settings, mountPath: /settings}
            - {name: settings, mountPath: /app/mode.txt, subPath: dir/mode.txt}
            - {name: keys, mountPath: /keys}
            - {name: about, mountPath: /about}
            - {name: all, mountPath: /all}
          - name: second
            image: box
            command: [sh, -c]
            args: ['echo "second: $(cat /scratch/kept) $(cat /kratix/metadata/notes) $KRATIX_PIPELINE_NAME"']
            volumeMounts: [{name: scratch, mountPath: /scratch}]
"#;

fn promise() -> String {
    let at = GOOD.find("      - apiVersion: platform").unwrap();
    format!("{}{}", &GOOD[..at], PIPELINE.trim_start_matches('\n'))
}

fn get(kubectl: &Kubectl, args: &[&str]) -> Value {
    let args = [&["get"], args, &["-o", "json"]].concat();
    serde_json::from_str(&kubectl.ok(&args)).unwrap()
}

fn one(kubectl: &Kubectl, kind: &str, selector: &str) -> Value {
    let listed = get(kubectl, &[kind, "-A", "-l", selector]);
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{kind} with {selector}: {listed:#}");
    items[0].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

const SECRETS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: default}
data: {mode: quick}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: default}
stringData: {password: hunter2}
---
apiVersion: contract.example/v1
kind: Good
metadata: {name: a, namespace: default}
spec: {size: small}
";

#[test]
fn a_pipeline_finds_what_its_author_was_promised() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&promise());
    kubectl.wait("promise/good", "Available");
    kubectl.apply(SECRETS);
    kubectl.wait("good/a", "ConfigureWorkflowCompleted");
    let ours = "kratix.io/promise-name=good,kratix.io/resource-name=a";
    let (job, pod) = (one(&kubectl, "job", ours), one(&kubectl, "pod", ours));
    let log =
        |container: &str| kubectl.ok(&["logs", text(&pod["metadata"]["name"]), "-c", container]);
    let told = log("first");
    let expected = [
        "env: action=configure type=resource promise=good",
        "env: pipeline=mine kind=Good group=contract.example",
        "env: version=v1 name=a namespace=default",
        "env: plural=goods cluster=false dry=unset",
        "own: plain quick hunter2 default quick plain-quick",
        "file: quick hunter2 quick hunter2 default",
        "part: quick",
        "label: team=\"blue\"",
        "token: \"vault\"",
        "input: read-only",
        "settings: read-only",
        "object: there",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    assert_eq!(log("second"), "second: kept told look");
    is_named_and_labelled(&job, &pod);
    has_its_containers(&job);
}

fn is_named_and_labelled(job: &Value, pod: &Value) {
    let metadata = &job["metadata"];
    assert!(text(&metadata["name"]).starts_with("kratix-good-a-look-"), "{metadata:#}");
    assert_eq!(metadata["namespace"], "default");
    for labels in [&metadata["labels"], &pod["metadata"]["labels"]] {
        for (key, value) in [
            ("kratix.io/promise-name", "good"),
            ("kratix.io/resource-name", "a"),
            ("kratix.io/workflow-type", "resource"),
            ("kratix.io/workflow-action", "configure"),
            ("kratix.io/pipeline-name", "look"),
            ("app.kubernetes.io/managed-by", "Kratix"),
            ("team", "blue"),
        ] {
            assert_eq!(labels[key], value, "{key} of {labels:#}");
        }
        assert!(!text(&labels["kratix.io/hash"]).is_empty(), "{labels:#}");
    }
    assert_eq!(pod["metadata"]["annotations"]["note"], "hello");
    let annotations = [
        ("kratix.io/job-resource-api-version", "contract.example/v1"),
        ("kratix.io/job-resource-kind", "Good"),
        ("kratix.io/job-resource-name", "a"),
        ("kratix.io/job-resource-namespace", "default"),
    ];
    for (key, value) in annotations {
        assert_eq!(metadata["annotations"][key], value, "{key}");
    }
    let owner = &metadata["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Good"), &json!("a")));
    let spec = &job["spec"];
    assert_eq!(
        (&spec["backoffLimit"], &spec["ttlSecondsAfterFinished"]),
        (&json!(0), &json!(3600))
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Never");
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(pod["tolerations"][0]["key"], "dedicated");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!(pod["serviceAccountName"], "good-resource-configure-look");
}

fn has_its_containers(job: &Value) {
    let pod = &job["spec"]["template"]["spec"];
    let of = |list: &str| pod[list].as_array().unwrap().clone();
    let names =
        |list: &[Value]| list.iter().map(|it| text(&it["name"]).to_owned()).collect::<Vec<_>>();
    let init = of("initContainers");
    assert_eq!(names(&init), ["reader", "first", "second", "work-writer"]);
    assert_eq!(names(&of("containers")), ["status-writer"]);
    let mounts = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts
            .map(|mount| format!("{}:{}", text(&mount["name"]), text(&mount["mountPath"])))
            .collect::<Vec<_>>()
    };
    assert_eq!(mounts(&init[0]), ["shared-input:/kratix/input", "shared-output:/kratix/output"]);
    let usual = [
        "shared-input:/kratix/input",
        "shared-output:/kratix/output",
        "shared-metadata:/kratix/metadata",
    ];
    assert_eq!(mounts(&init[1])[..3], usual);
    assert_eq!(
        mounts(&init[3]),
        [
            "shared-output:/work-creator-files/input",
            "shared-metadata:/work-creator-files/metadata",
            "promise-scheduling:/work-creator-files/kratix-system",
        ]
    );
    let writer = &of("containers")[0];
    assert_eq!(mounts(writer), ["shared-metadata:/work-creator-files/metadata"]);
    let args = init[3]["args"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join(" ");
    assert!(
        args.starts_with(
            "work-creator --input-directory /work-creator-files --promise-name good --pipeline-name \
             look --namespace default --workflow-type resource --resource-name a"
        ),
        "{args}"
    );
    let env: BTreeMap<_, _> = writer["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (text(&it["name"]).to_owned(), text(&it["value"]).to_owned()))
        .collect();
    assert_eq!(env["IS_LAST_PIPELINE"], "true");
    assert_eq!(env["KRATIX_PIPELINE_NAME"], "look");
    for own in [&init[0], &init[3], writer] {
        let security = &own["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{own:#}");
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{own:#}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{own:#}");
    }
}

#[test]
fn what_the_host_cannot_do_is_told_on_the_request() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&with(
        GOOD,
        "          containers:\n",
        "          nodeSelector: {gpu: 'yes'}\n          containers:\n",
    ));
    kubectl.wait("promise/good", "Available");
    kubectl.apply("apiVersion: contract.example/v1\nkind: Good\nmetadata: {name: a}\nspec: {}\n");
    let path = "jsonpath={.status.kratix.workflows.pipelines[0].message}";
    let told = kubectl.until(&["get", "good/a", "-o", path], |told| told.contains("nodeSelector"));
    assert!(told.contains("the hub's one node has no label gpu=yes"), "{told}");
}
