//! What pipelines hand over in `/kratix/metadata` and `/kratix/output`: each mistake in its own words,
//! and the Works that come of it.

use muster_e2e::{Executor, Hub, manifests::Promise, scratch};
use serde_json::{Value, json};

const MODES: Promise<'_> = Promise {
    name: "mode",
    group: "contract.example",
    platform: "env: nowhere",
    fields: &[("mode", "{type: string}")],
    dependencies: "",
    script: r#"
selectors=/kratix/metadata/destination-selectors.yaml
echo a > a.txt
case $mode in
  nolist) echo 'a: b' > $selectors ;;
  unlabelled) mkdir x; echo b > x/b; echo '- directory: x' > $selectors ;;
  twice) mkdir x; echo b > x/b
    printf -- '- {directory: x, matchLabels: {a: b}}\n- {directory: x/, matchLabels: {a: c}}\n' > $selectors ;;
  roots) printf -- '- matchLabels: {a: b}\n- matchLabels: {a: c}\n' > $selectors ;;
  nested) mkdir -p x/y; echo b > x/y/b; echo '- {directory: x/y, matchLabels: {a: b}}' > $selectors ;;
  missing) echo '- {directory: x, matchLabels: {a: b}}' > $selectors ;;
  broken) echo '- [' > $selectors ;;
  owned) echo 'kratix: {a: b}' > /kratix/metadata/status.yaml ;;
  statuslist) echo '- a' > /kratix/metadata/status.yaml ;;
  soon) echo 'retryAfter: soon' > /kratix/metadata/workflow-control.yaml ;;
  link) ln -s /etc/passwd users ;;
  split) mkdir x none; echo b > x/b.txt; echo 'anything' > /kratix/metadata/notes
    printf -- '- {directory: x, matchLabels: {zone: eu}}\n- {directory: none, matchLabels: {zone: us}}\n- matchLabels: {tier: one}\n' > $selectors
    printf 'message: all is split\nstage: 2\nconditions:\n- {type: Split, status: "True", reason: Split, message: done, lastTransitionTime: "2026-01-01T00:00:00Z"}\n' > /kratix/metadata/status.yaml ;;
  nothing) rm a.txt ;;
esac
"#,
    once: true,
};

const WRONG: &[(&str, &str)] = &[
    (
        "nolist",
        "invalid destination-selectors.yaml: error unmarshaling JSON: it is a map, not a list",
    ),
    ("unlabelled", "invalid destination-selectors.yaml: [0].matchLabels: Required value"),
    ("twice", "[1].directory: duplicate entry for the directory \"x\""),
    ("roots", "[1].directory: more than one entry is for the rest"),
    ("nested", "[0].directory: \"x/y\" is nested"),
    ("missing", "there is no directory \"x\" in /kratix/output"),
    ("broken", "invalid destination-selectors.yaml: "),
    ("owned", "invalid status.yaml: "),
    ("statuslist", "invalid status.yaml: it is a list, not a map of fields"),
    ("soon", "invalid workflow-control.yaml: retryAfter: \"soon\" is not a duration"),
    ("link", "output/users: is a symbolic link, which is never followed"),
];

#[test]
fn each_mistake_is_told_on_the_request_and_what_is_right_becomes_a_work() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&MODES.yaml());
    kubectl.wait("promise/mode", "Available");
    let requests = WRONG.iter().map(|(mode, _)| *mode).chain(["split", "nothing"]);
    let all: String = requests.map(|mode| MODES.request(mode, &format!("mode: {mode}"))).collect();
    kubectl.apply(&all);
    for (mode, words) in WRONG {
        let failed = "ConfigureWorkflowCompleted=False ConfigureWorkflowFailed";
        kubectl.says(&format!("mode/{mode}"), &[words, failed]);
    }
    let works = |request: &str| {
        let selector = format!("kratix.io/resource-name={request}");
        let listed = kubectl.ok(&["get", "works", "-l", &selector, "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["items"].as_array().unwrap().clone()
    };
    for (mode, _) in WRONG {
        assert!(works(mode).is_empty(), "{mode} made a Work");
    }

    kubectl.wait("mode/split", "ConfigureWorkflowCompleted");
    let made = works("split");
    let [work] = made.as_slice() else { panic!("{made:#?}") };
    assert!(
        work["metadata"]["name"].as_str().unwrap().starts_with("mode-split-render-"),
        "{work:#}"
    );
    let groups = work["spec"]["workloadGroups"].as_array().unwrap();
    let shown: Vec<_> = groups
        .iter()
        .map(|group| {
            let file = &group["workloads"][0]["filepath"];
            json!([group["directory"], group["id"], file, group["destinationSelectors"]])
        })
        .collect();
    let by = |labels: Value, source: &str| json!({"matchLabels": labels, "source": source});
    let rest = json!([
        by(json!({"tier": "one"}), "resource-workflow"),
        by(json!({"env": "nowhere"}), "promise"),
    ]);
    let eu = json!([by(json!({"zone": "eu"}), "resource-workflow")]);
    assert_eq!(
        shown,
        [
            json!(["x", "9dd4e461268c8034f5c8564e155c67a6", "x/b.txt", eu]),
            json!([".", "5058f1af8388633f609cadb75a75dc9d", "a.txt", rest]),
        ]
    );
    let request = kubectl.ok(&["get", "mode/split", "-o", "json"]);
    let request: Value = serde_json::from_str(&request).unwrap();
    assert_eq!(request["status"]["message"], "all is split");
    assert_eq!(request["status"]["stage"], 2);
    let conditions = request["status"]["conditions"].as_array().unwrap();
    let own = conditions.iter().find(|condition| condition["type"] == "Split");
    assert_eq!(own.map(|own| &own["message"]), Some(&json!("done")), "{conditions:#?}");

    // Nothing put out is a Work of no groups, as in Kratix.
    kubectl.wait("mode/nothing", "ConfigureWorkflowCompleted");
    let made = works("nothing");
    assert_eq!(made.len(), 1);
    assert_eq!(made[0]["spec"]["workloadGroups"], json!([]));
}
