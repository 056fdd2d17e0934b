//! Refusals and warnings: who made the mistake reads what is wrong, where, and what to do.

use muster_e2e::{Executor, Hub, Kubectl, scratch};

use super::{GOOD, with};

/// kubectl's own validation would answer first, in words of its own.
const CREATE: [&str; 4] = ["create", "--validate=false", "-f", "-"];
const REPLACE: [&str; 4] = ["replace", "--validate=false", "-f", "-"];

/// What is spoiled, and words of the refusal.
type Case<'a> = (&'a str, &'a str, &'a [&'a str]);

fn refuses(kubectl: &Kubectl, verb: &[&str], good: &str, cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    for (from, to, words) in cases {
        let answer = kubectl.with_input(verb, &with(good, from, to));
        let told = &answer.stderr;
        let missing: Vec<_> = words.iter().filter(|word| !told.contains(**word)).collect();
        if answer.ok || !missing.is_empty() {
            wrong.push(format!("{to:?}: {missing:?} not in {told:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

const NEW_PROMISES: &[Case<'_>] = &[
    (
        "kind: Pipeline",
        "kind: Pipelines",
        &["admission webhook \"vpromise.kb.io\" denied the request: failed parsing \
           resource.configure pipeline: unsupported pipeline \"run\" with APIVersion \
           \"Pipelines/platform.kratix.io/v1alpha1\""],
    ),
    (
        "      - apiVersion: platform.kratix.io/v1alpha1\n",
        "      - apiVersion: platform.kratix.io/v1\n",
        &["unsupported pipeline \"run\" with APIVersion \"Pipeline/platform.kratix.io/v1\""],
    ),
    (
        "{name: emit, image: box,",
        "{name: emit, image: box, colour: blue,",
        &[
            "failed parsing resource.configure pipeline: failed unmarshalling pipeline run: json: \
             unknown field \"colour\"",
            "spec.workflows.resource.configure[0].spec.containers[0].colour",
        ],
    ),
    (
        "          containers:\n",
        "          volumes: [{name: v, emtpyDir: {medium: Memory}}]\n          containers:\n",
        &["json: unknown field \"emtpyDir\"", "spec.volumes[0].emtpyDir"],
    ),
    (
        "    resource:\n",
        "    resource:\n      delete:\n      - &p {apiVersion: platform.kratix.io/v1alpha1, kind: \
         Pipeline, metadata: {name: twice}, spec: {containers: [{name: a, image: b}]}}\n      - \
         *p\n",
        &["denied the request: duplicate pipeline name \"twice\" in workflow \"resource\" action \
           \"delete\""],
    ),
    (
        "name: run,",
        "name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,",
        &[
            "denied the request: resource.configure pipeline with name \
             \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" is too long. The name is used \
             when generating resources",
            "which cannot be longer than 60 characters in total",
        ],
    ),
    ("name: run,", "name: '',", &["metadata.name is empty: Required value"]),
    ("name: run,", "name: Not_OK,", &["metadata.name \"Not_OK\" must consist of lower-case"]),
    (
        "team: blue",
        "team: 'not ok!'",
        &["denied the request: invalid label value \"not ok!\" for key \"team\" in workflow \
           \"resource\" action \"configure\""],
    ),
    (
        "team: blue",
        "'not ok!': blue",
        &["invalid label key \"not ok!\" in workflow \"resource\" action \"configure\""],
    ),
    (
        "image: box,",
        "image: box, volumeMounts: [{name: none, mountPath: /x}],",
        &[
            "denied the request: \nresource.configure pipeline with name run failed to generate Job \
             definition: \nJob.batch \"kratix-good-webhook-dry-run-run-",
            "is invalid: spec.template.spec.initContainers[1].volumeMounts[3].name: Not found: \
             \"none\"",
        ],
    ),
    (
        "          - {name: emit,",
        "          - {name: emit, image: box}\n          - {name: emit,",
        &["is invalid: spec.template.spec.initContainers[2].name: Duplicate value: \"emit\""],
    ),
    (
        "image: box,",
        "image: box, resources: {limits: {memory: lots}},",
        &["initContainers[1].resources.limits[memory]", "quantities must match"],
    ),
    (
        "          containers:\n",
        "          volumes: [{name: v}]\n          containers:\n",
        &["volumes[4]: Required value: must specify a volume type"],
    ),
    (
        "          containers:\n",
        "          volumes: [{name: shared-output, emptyDir: {}}]\n          containers:\n",
        &["spec.volumes[0]: the name \"shared-output\" is the hub's own"],
    ),
    ("{name: emit,", "{name: reader,", &["the name \"reader\" is the hub's own: choose another"]),
    (
        "          containers:\n          - {name: emit, image: box, command: [sh, -c, 'echo a > \
         /kratix/output/a.txt']}\n",
        "          containers: []\n",
        &["spec.containers is empty: name at least one container"],
    ),
    ("image: box,", "", &["spec.containers[0]: name and image are both required"]),
    (
        "          containers:\n",
        "          restartPolicy: Always\n          containers:\n",
        &[
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    ),
    (
        "          containers:\n",
        "          jobOptions: {ttlSecondsAfterFinished: 30}\n          containers:\n",
        &["spec.jobOptions.ttlSecondsAfterFinished: Invalid value: 30: must be at least 120"],
    ),
    (
        "          containers:\n",
        "          jobOptions: {backoffLimit: -1}\n          containers:\n",
        &["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"],
    ),
    (
        "          containers:\n",
        "          rbac: {permissions: [{apiGroups: [''], resources: [secrets]}]}\n          \
         containers:\n",
        &["spec.rbac.permissions[0].verbs: Required value"],
    ),
    (
        "          containers:\n",
        "          rbac: {serviceAccount: muster-request}\n          containers:\n",
        &["spec.rbac.serviceAccount: names that begin with muster- are the hub's own"],
    ),
    (
        "scope: Namespaced",
        "scope: Cluster",
        &["denied the request: promise api needs to be namespace scoped; spec.api.spec.scope \
           cannot be: Cluster"],
    ),
    (
        "        schema:\n          openAPIV3Schema:\n            type: object\n            \
         properties:\n              spec: {type: object, properties: {size: {type: string}}}\n",
        "",
        &[
            "denied the request: invalid CRD: CustomResourceDefinition.apiextensions.k8s.io \
             \"goods.contract.example\" is invalid",
            "schema.openAPIV3Schema: Required value",
        ],
    ),
    (
        "properties: {size: {type: string}}",
        "properties: {size: {type: text}}",
        &["invalid CRD: ", "properties[size].type: Unsupported value: \"text\""],
    ),
    (
        "properties: {size: {type: string}}",
        "properties: few",
        &["denied the request: invalid CRD: ", "cannot unmarshal string"],
    ),
    (
        "            properties:\n              spec: {type: object, properties: {size: {type: \
         string}}}\n",
        "            properties: few\n",
        &["denied the request: invalid CRD: ", "cannot unmarshal string"],
    ),
    (
        "        storage: true\n",
        "        storage: true\n        additionalPrinterColumns: many\n",
        &["denied the request: invalid CRD: ", "cannot unmarshal string"],
    ),
    (
        "reconciliationInterval: 1h",
        "pipelineNamespace: Not OK",
        &["denied the request: spec.workflows.config.pipelineNamespace: Invalid value: \"Not OK\""],
    ),
    (
        "metadata: {name: goods.contract.example}",
        "metadata: {name: wrong.contract.example}",
        &["invalid CRD: ", "must be spec.names.plural+\".\"+spec.group"],
    ),
    (
        "    apiVersion: apiextensions.k8s.io/v1\n    kind: CustomResourceDefinition\n",
        "    apiVersion: v1\n    kind: ConfigMap\n",
        &["spec.api is not a CustomResourceDefinition"],
    ),
    (
        "reconciliationInterval: 1h",
        "reconciliationInterval: 10s",
        &["denied the request: spec.workflows.config.reconciliationInterval: Invalid value: \
           \"10s\": must be at least 1m0s"],
    ),
    (
        "reconciliationInterval: 1h",
        "reconciliationInterval: often",
        &["spec.workflows.config.reconciliationInterval: Invalid value: \"often\": must be a \
           valid duration"],
    ),
    (
        "  name: good\n",
        "  name: good\n  annotations: {kratix.io/reconciliation-interval: soon}\n",
        &["denied the request: metadata.annotations[kratix.io/reconciliation-interval]: Invalid \
           value: \"soon\": must be a valid duration"],
    ),
    (
        "  name: good\n",
        "  name: good\n  annotations: {kratix.io/reconciliation-interval: 5s}\n",
        &["metadata.annotations[kratix.io/reconciliation-interval]: Invalid value: \"5s\": must \
           be at least 1m0s"],
    ),
    (
        "spec:\n  dest",
        "spec:\n  dependencies: [{kind: Namespace, metadata: {name: a}}]\n  dest",
        &["spec.dependencies[0].apiVersion: Required value"],
    ),
    (
        "spec:\n  dest",
        "spec:\n  requiredPromises: [{name: ''}, {name: good}]\n  dest",
        &[
            "promises.platform.kratix.io \"good\" was not valid:\n* \
             spec.requiredPromises[0].name: Required value",
            "* spec.requiredPromises[1].name: Invalid value: \"good\": a promise cannot require \
             itself",
        ],
    ),
    (
        "  name: good\n",
        "  name: gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg\n",
        &["metadata.name: Invalid value", "must be no more than 63 characters"],
    ),
];

const CHANGED_PROMISES: &[Case<'_>] = &[
    (
        "kind: Good, plural: goods, singular: good",
        "kind: Better, plural: goods, singular: good",
        &[
            "promises.platform.kratix.io \"good\" was not valid:\n* spec.api.spec.names: Invalid \
           value: ",
            "field is immutable",
        ],
    ),
    (
        "    metadata: {name: goods.contract.example}\n    spec:\n      group: contract.example\n      \
         scope: Namespaced\n      names: {kind: Good, plural: goods, singular: good}\n",
        "    metadata: {name: betters.other.example}\n    spec:\n      group: other.example\n      \
         scope: Namespaced\n      names: {kind: Better, plural: betters, singular: better}\n",
        &[
            "* spec.api.metadata.name: Invalid value: \"betters.other.example\": field is immutable",
            "* spec.api.spec.names: Invalid value: ",
        ],
    ),
    (
        "apiVersion: apiextensions.k8s.io/v1\n",
        "apiVersion: apiextensions.k8s.io/v1beta1\n",
        &["* spec.api.apiVersion: Invalid value: \"apiextensions.k8s.io/v1beta1\": field is \
           immutable"],
    ),
    (
        "properties: {size: {type: string}}",
        "properties: {size: {type: text}}",
        &["invalid CRD changes: CustomResourceDefinition.apiextensions.k8s.io"],
    ),
];

#[test]
fn what_is_wrong_is_refused_in_the_documented_words() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    refuses(&kubectl, &CREATE, GOOD, NEW_PROMISES);

    kubectl.apply(GOOD);
    refuses(&kubectl, &REPLACE, GOOD, CHANGED_PROMISES);
    let api = GOOD.find("  api:\n").unwrap()..GOOD.find("  workflows:\n").unwrap();
    let without_api = GOOD.replace(&GOOD[api], "");
    let told = kubectl.refused(&REPLACE, &without_api);
    assert!(told.contains("cannot remove API from existing promise"), "{told}");

    let other = with(GOOD, "  name: good\n", "  name: other\n");
    let told = kubectl.refused(&CREATE, &other);
    assert!(told.contains("exists and does not belong to this promise"), "{told}");

    legacy_intervals_do_not_block(&kubectl);
    stores_and_destinations(&kubectl);
    nothing_at_all(&kubectl);
}

/// A value that came in before it was checked stays in nobody's way.
fn legacy_intervals_do_not_block(kubectl: &Kubectl) {
    let annotated = |value: &str| {
        let to = format!(
            "  name: good\n  annotations: {{kratix.io/reconciliation-interval: {value}, note: \
             \"1\"}}\n"
        );
        with(GOOD, "  name: good\n", &to)
    };
    kubectl.apply(&annotated("5m"));
    let told = kubectl.refused(&["apply", "-f", "-"], &annotated("5s"));
    assert!(told.contains("must be at least 1m0s"), "{told}");
    kubectl.apply(GOOD);
}

fn stores_and_destinations(kubectl: &Kubectl) {
    const GIT: &str = "apiVersion: platform.kratix.io/v1alpha1\nkind: GitStateStore\n\
        metadata: {name: git}\nspec: {url: 'https://git.example/x.git', secretRef: {name: s}}\n";
    const BUCKET: &str = "apiVersion: platform.kratix.io/v1alpha1\nkind: BucketStateStore\n\
        metadata: {name: pail}\nspec: {bucketName: b, endpoint: s3.example, secretRef: {name: s, \
        namespace: default}}\n";
    const DESTINATION: &str = "apiVersion: platform.kratix.io/v1alpha1\nkind: Destination\n\
        metadata: {name: dev, labels: {env: dev}}\nspec:\n  path: dev\n  stateStoreRef: {kind: \
        GitStateStore, name: git}\n  filepath: {mode: nestedByMetadata}\n";
    refuses(
        kubectl,
        &CREATE,
        GIT,
        &[
            ("url: 'https://git.example/x.git', ", "", &["spec.url: Required value"]),
            ("https://git", "https://me:hunter2@git", &["put them into the Secret"]),
            ("spec: {", "spec: {authMethod: magic, ", &["Unsupported value: \"magic\""]),
        ],
    );
    refuses(
        kubectl,
        &CREATE,
        BUCKET,
        &[
            (
                "name: s, namespace: default",
                "name: '', namespace: default",
                &["spec.secretRef.name and spec.secretRef.namespace are required"],
            ),
            ("bucketName: b, ", "", &["spec.bucketName: Required value"]),
            ("spec: {", "spec: {authMethod: magic, ", &["Unsupported value: \"magic\""]),
        ],
    );
    refuses(
        kubectl,
        &CREATE,
        DESTINATION,
        &[
            (
                "  path: dev\n",
                "",
                &[
                    "admission webhook \"vdestination.kb.io\" denied the request: path field is required",
                ],
            ),
            (
                "  stateStoreRef: {kind: GitStateStore, name: git}\n",
                "",
                &["stateStoreRef field is required"],
            ),
            ("kind: GitStateStore, name", "kind: Floppy, name", &["Unsupported value: \"Floppy\""]),
            ("mode: nestedByMetadata", "mode: flat", &["Unsupported value: \"flat\""]),
            (
                "{mode: nestedByMetadata}",
                "{mode: none, filename: a.yaml}",
                &["spec.filepath.filename"],
            ),
        ],
    );
    let warned = kubectl.with_input(&["apply", "-f", "-"], DESTINATION);
    assert!(warned.ok, "{}", warned.stderr);
    assert!(
        warned.stderr.contains("Warning: referenced GitStateStore \"git\" does not exist"),
        "{}",
        warned.stderr
    );
    kubectl.apply(GIT);
    let second = with(DESTINATION, "name: dev,", "name: dev-2,");
    let taken = "destination path 'dev' already exists for state store 'git'";
    refuses(
        kubectl,
        &CREATE,
        &second,
        &[
            ("path: dev\n", "path: dev\n", &[taken]),
            ("path: dev\n", "path: dev/\n", &["already exists for state store 'git'"]),
            ("path: dev\n", "path: dev/sub\n", &["must not hold the other"]),
        ],
    );
    refuses(
        kubectl,
        &REPLACE,
        DESTINATION,
        &[("mode: nestedByMetadata", "mode: none", &["filepath.mode is immutable"])],
    );
}

/// Upstream takes these without a word.
fn nothing_at_all(kubectl: &Kubectl) {
    let empty = |kind: &str| {
        format!(
            "apiVersion: platform.kratix.io/v1alpha1\nkind: {kind}\nmetadata: {{name: nothing, \
             namespace: default}}\nspec: {{}}\n"
        )
    };
    let told = kubectl.refused(&CREATE, &empty("Work"));
    assert!(told.contains("spec.promiseName: Required value"), "{told}");
    let told = kubectl.refused(&CREATE, &empty("WorkPlacement"));
    assert!(told.contains("spec.targetDestinationName: Required value"), "{told}");
    let blank = with(&empty("Work"), "spec: {}", "spec: {promiseName: ''}");
    let told = kubectl.refused(&CREATE, &blank);
    assert!(told.contains("spec.promiseName in body should be at least 1 chars long"), "{told}");
}

#[test]
fn what_will_not_work_yet_is_accepted_with_a_warning() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let needy = with(
        &with(
            GOOD,
            "spec:\n  dest",
            "spec:\n  requiredPromises: [{name: base, version: v1}]\n  dest",
        ),
        "reconciliationInterval: 1h",
        "pipelineNamespace: nowhere",
    );
    let answer = kubectl.with_input(&["apply", "-f", "-"], &needy);
    assert!(answer.ok, "{}", answer.stderr);
    for words in [
        "Required Promise \"base\" at version \"v1\" not installed",
        "Promise will not be available until the above issue(s) is resolved",
        "there is no namespace \"nowhere\"",
    ] {
        assert!(answer.stderr.contains(words), "{words:?} is not in {}", answer.stderr);
    }
}
