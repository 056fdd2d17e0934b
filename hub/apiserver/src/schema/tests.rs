//! Structural schemas: what they refuse, prune and default.

use serde_json::{Value, json};

use super::*;

const PATH: &str = "spec.versions[0].schema.openAPIV3Schema";

/// A CRD schema whose spec has these properties.
fn spec_schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn compile(schema: &Value) -> Schema {
    Schema::from_crd(schema, PATH)
        .unwrap_or_else(|e| panic!("{schema}: {}", crate::field::summary(&e)))
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "g/v1", "kind": "W", "metadata": {"name": "w"}, "spec": spec})
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Validates `spec` against a schema where `spec.x` is `x`.
fn check_x(x: Value, spec: Value) -> Vec<String> {
    let schema = spec_schema(json!({"type": "object", "properties": {"x": x}}));
    texts(&compile(&schema).validate(&object(spec), None))
}

#[test]
fn messages_are_those_of_kubernetes() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!({"x": "a"}),
            r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "integer"}),
            json!({"x": 1.5}),
            r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
        ),
        (
            json!({"type": "string"}),
            json!({"x": 1}),
            r#"spec.x: Invalid value: "integer": spec.x in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "boolean"}),
            json!({"x": null}),
            r#"spec.x: Invalid value: "null": spec.x in body must be of type boolean: "null""#,
        ),
        (
            json!({"type": "object"}),
            json!({"x": []}),
            r#"spec.x: Invalid value: "array": spec.x in body must be of type object: "array""#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!({"x": 0}),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!({"x": 1}),
            "spec.x: Invalid value: 1: spec.x in body should be greater than 1",
        ),
        (
            json!({"type": "number", "maximum": 1.5}),
            json!({"x": 2}),
            "spec.x: Invalid value: 2: spec.x in body should be less than or equal to 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!({"x": 7}),
            "spec.x: Invalid value: 7: spec.x in body should be a multiple of 5",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!({"x": "abc"}),
            "spec.x: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!({"x": "a"}),
            r#"spec.x: Invalid value: "a": spec.x in body should be at least 2 chars long"#,
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!({"x": "b"}),
            r#"spec.x: Invalid value: "b": spec.x in body should match '^a+$'"#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!({"x": "z"}),
            r#"spec.x: Unsupported value: "z": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!({"x": "z"}),
            r#"spec.x: Invalid value: "z": spec.x in body must be of type date-time: "z""#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!({"x": ["a", "b"]}),
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!({"x": []}),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"x": [1]}),
            r#"spec.x[0]: Invalid value: "integer": spec.x[0] in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "required": ["y"], "properties": {"y": {"type": "string"}}}),
            json!({"x": {}}),
            "spec.x.y: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"x": {"a": "1", "b": "2"}}),
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!({"x": true}),
            r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!({"x": ["a", "b", "a", "a"]}),
            r#"spec.x[2]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}}),
            json!({"x": [{"n": "a"}, {"n": "a"}]}),
            r#"spec.x[1]: Duplicate value: map[string]interface {}{"n":"a"}"#,
        ),
    ];
    for (x, spec, message) in cases {
        assert_eq!(check_x(x, spec), [message]);
    }
}

#[test]
fn accepts_what_fits() {
    let cases = [
        (json!({"type": "integer"}), json!({"x": 3.0})),
        (json!({"type": "number"}), json!({"x": 3})),
        (json!({"type": "string", "nullable": true}), json!({"x": null})),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!({"x": "80%"}),
        ),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!({"x": [{"any": 1}]})),
        (json!({"type": "integer", "enum": [1, 2]}), json!({"x": 1.0})),
    ];
    for (x, spec) in cases {
        assert_eq!(check_x(x, spec), [""; 0]);
    }
}

#[test]
fn junctors_name_themselves_and_the_nearest_alternative() {
    let one_of = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_eq!(
        check_x(one_of.clone(), json!({"x": {}})),
        [
            r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.x.a: Required value"
        ]
    );
    assert_eq!(
        check_x(one_of, json!({"x": {"a": "", "b": ""}})),
        [
            r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]
    );
    let not = json!({"type": "string", "not": {"pattern": "^x"}});
    assert_eq!(
        check_x(not, json!({"x": "xy"})),
        [r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#]
    );
}

#[test]
fn rules_see_the_old_value_of_the_same_key() {
    let schema = spec_schema(json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "max": {"type": "integer"},
        "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "required": ["n"], "properties": {
                "n": {"type": "string"},
                "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}}},
        "x-kubernetes-validations": [{"rule": "self.size <= self.max", "message": "size must not be over max"}]}));
    let schema = compile(&schema);
    let old = object(
        json!({"size": 1, "max": 2, "name": "a", "list": [{"n": "p", "v": 1}, {"n": "q", "v": 9}]}),
    );
    let new = object(
        json!({"size": 3, "max": 2, "name": "b", "list": [{"n": "q", "v": 8}, {"n": "p", "v": 2}]}),
    );
    assert_eq!(schema.validate(&old, None), []);
    assert_eq!(
        texts(&schema.validate(&new, Some(&old))),
        [
            r#"spec: Invalid value: "object": size must not be over max"#,
            r#"spec.list[0].v: Invalid value: "integer": failed rule: self >= oldSelf"#,
            r#"spec.name: Invalid value: "string": is immutable"#,
        ]
    );
    let broken = object(json!({"size": "x", "max": 2}));
    let errors = texts(&schema.validate(&broken, None));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[1].contains("some validation rules were not checked"), "{errors:?}");
}

#[test]
fn unchanged_mistakes_do_not_block_an_update() {
    let schema = compile(&spec_schema(json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1}}})));
    let old = object(json!({"a": "too long"}));
    let new = object(json!({"a": "too long", "b": "too long"}));
    assert_eq!(
        texts(&schema.validate(&new, Some(&old))),
        ["spec.b: Too long: may not be more than 1 bytes"]
    );
}

#[test]
fn prunes_what_is_unknown_and_says_where() {
    let schema = compile(&spec_schema(json!({"type": "object", "properties": {
        "a": {"type": "string"},
        "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "keep": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"known": {"type": "object", "properties": {"z": {"type": "string"}}}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}})));
    let mut value = object(json!({
        "a": "x", "zz": 1, "l": [{"k": "v", "zz": 1}], "m": {"free": "form"},
        "keep": {"unknown": 1, "known": {"z": "1", "y": 2}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "zz": 1}, "spec": {"any": 1}}}));
    value["metadata"]["zz"] = json!(1);
    value["metadata"]["creationTimestamp"] = json!(null);
    let unknown = schema.prune(&mut value);
    assert_eq!(
        unknown,
        ["metadata.zz", "spec.keep.known.y", "spec.l[0].zz", "spec.pod.metadata.zz", "spec.zz"]
    );
    let expected = object(json!({
        "a": "x", "l": [{"k": "v"}], "m": {"free": "form"}, "keep": {"unknown": 1, "known": {"z": "1"}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"any": 1}}}));
    assert_eq!(value, expected);
}

#[test]
fn defaults_fill_missing_fields_and_replace_nulls() {
    let schema = compile(&spec_schema(json!({"type": "object", "default": {}, "properties": {
        "replicas": {"type": "integer", "default": 1},
        "gone": {"type": "string"},
        "null": {"type": "string", "nullable": true, "default": "d"},
        "l": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}}}})));
    let mut value = json!({});
    schema.default(&mut value);
    assert_eq!(value, json!({"spec": {"replicas": 1, "null": "d"}}));
    let mut value = json!({"spec": {"replicas": null, "gone": null, "null": null, "l": [{}]}});
    schema.default(&mut value);
    assert_eq!(value, json!({"spec": {"replicas": 1, "null": null, "l": [{"p": "TCP"}]}}));
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    let cases = [
        (json!({"properties": {}}), vec![".type: Required value: must not be empty at the root"]),
        (
            spec_schema(json!({"properties": {"x": {}}})),
            vec![
                ".properties[spec].properties[x].type: Required value: must not be empty for specified object fields",
                ".properties[spec].type: Required value: must not be empty for specified object fields",
            ],
        ),
        (
            spec_schema(json!({"type": "foo"})),
            vec![
                r#".properties[spec].type: Unsupported value: "foo": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        (
            spec_schema(json!({"type": "array"})),
            vec![".properties[spec].items: Required value: must be specified"],
        ),
        (
            spec_schema(json!({"type": "object", "$ref": "#/x"})),
            vec![".properties[spec].$ref: Forbidden: $ref is not supported"],
        ),
        (
            spec_schema(
                json!({"type": "object", "anyOf": [{"type": "object", "required": ["a"], "properties": {"a": {}}}]}),
            ),
            vec![
                ".properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
                ".properties[spec].properties[a]: Required value: because it is defined in {PATH}.properties[spec].anyOf[0].properties[a]",
            ],
        ),
        (
            spec_schema(json!({"type": "string", "pattern": "("})),
            vec![
                ".properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error: unclosed group",
            ],
        ),
        (
            spec_schema(json!({"type": "object", "x-kubernetes-list-type": "map"})),
            vec![
                ".properties[spec].type: Invalid value: \"object\": must be array if x-kubernetes-list-type is specified",
                ".properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        ),
        (
            spec_schema(json!({"type": "integer", "default": "x"})),
            vec![
                ".properties[spec].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            vec![
                ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        ),
    ];
    for (schema, messages) in cases {
        let errors = Schema::from_crd(&schema, PATH).err().unwrap_or_default();
        let expected: Vec<String> =
            messages.iter().map(|m| format!("{PATH}{}", m.replace("{PATH}", PATH))).collect();
        assert_eq!(texts(&errors), expected, "{schema}");
    }
    let bad_rule =
        spec_schema(json!({"type": "string", "x-kubernetes-validations": [{"rule": "self ="}]}));
    let errors = texts(&Schema::from_crd(&bad_rule, PATH).err().unwrap_or_default());
    assert!(errors[0].starts_with(&format!("{PATH}.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \"self =\": compilation failed")), "{errors:?}");
    let mut deep = json!({"type": "string"});
    for _ in 0..70 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert!(Schema::from_crd(&deep, PATH).is_err());
}

#[test]
fn names_may_be_restricted() {
    let schema = compile(
        &json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 3}}}}}),
    );
    let errors = schema.validate(&json!({"metadata": {"name": "abcd", "labels": {"a": 1}}}), None);
    assert_eq!(
        texts(&errors),
        [
            r#"metadata.labels.a: Invalid value: "integer": metadata.labels.a in body must be of type string: "integer""#,
            "metadata.name: Too long: may not be more than 3 bytes"
        ]
    );
}

#[test]
fn built_in_kinds_are_known() {
    for (group, version, kind) in [
        ("", "v1", "Namespace"),
        ("", "v1", "ConfigMap"),
        ("", "v1", "Secret"),
        ("", "v1", "ServiceAccount"),
        ("", "v1", "Event"),
        ("", "v1", "Pod"),
        ("", "v1", "Service"),
        ("", "v1", "Node"),
        ("events.k8s.io", "v1", "Event"),
        ("coordination.k8s.io", "v1", "Lease"),
        ("rbac.authorization.k8s.io", "v1", "Role"),
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
        ("batch", "v1", "Job"),
        ("batch", "v1", "CronJob"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("authentication.k8s.io", "v1", "TokenReview"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
        ("autoscaling", "v1", "Scale"),
        ("", "v1", "Status"),
        ("", "v1", "DeleteOptions"),
    ] {
        assert!(Schema::builtin(group, version, kind).is_some(), "{group}/{version} {kind}");
    }
    assert!(Schema::builtin("apps", "v1", "StatefulSet").is_none());
    assert!(builtin::object_meta().properties.contains_key("finalizers"));
}

#[test]
fn built_in_objects_are_checked_through_references() {
    let schema = Schema::builtin("", "v1", "Pod").unwrap();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "creationTimestamp": null},
        "spec": {"containers": [{"name": "c", "image": "i", "imagee": "x", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
            "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": "http"}}}]}, "status": {}});
    assert_eq!(schema.prune(&mut pod), ["spec.containers[0].imagee"]);
    assert!(pod["metadata"].get("creationTimestamp").is_none());
    assert_eq!(schema.validate(&pod, None), []);
    schema.default(&mut pod);
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    pod["spec"]["containers"][0]["ports"][0]["containerPort"] = json!("80");
    let errors = schema.validate(&json!({"spec": {}}), None);
    assert_eq!(texts(&errors), ["spec.containers: Required value"]);
    assert_eq!(
        texts(&schema.validate(&pod, None)),
        [
            r#"spec.containers[0].ports[0].containerPort: Invalid value: "string": spec.containers[0].ports[0].containerPort in body must be of type integer: "string""#
        ]
    );
}

#[test]
fn recursive_definitions_work() {
    let schema = Schema::builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let mut crd = json!({"spec": {"group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Namespaced", "versions": [
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b": {"tpye": "x", "default": {"z": null}}}}}}}}]}});
    assert_eq!(
        schema.prune(&mut crd),
        ["spec.versions[0].schema.openAPIV3Schema.properties.a.properties.b.tpye"]
    );
    assert_eq!(schema.validate(&crd, None), []);
}

#[test]
fn rules_give_their_own_reason_place_and_message() {
    let schema = compile(&spec_schema(json!({"type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "m": {"type": "object",
            "additionalProperties": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}}},
        "x-kubernetes-validations": [
            {"rule": "!has(self.a) || has(self.b)", "reason": "FieldValueRequired", "fieldPath": ".b", "message": "b goes with a"},
            {"rule": "!has(self.b) || self.b < 5", "messageExpression": "'b is ' + string(self.b)"}]})));
    let errors = |spec: Value| texts(&schema.validate(&object(spec), None));
    assert_eq!(errors(json!({"a": 1})), ["spec.b: Required value: b goes with a"]);
    assert_eq!(errors(json!({"b": 7})), [r#"spec: Invalid value: "object": b is 7"#]);
    assert_eq!(
        errors(json!({"m": {"k": "bad"}})),
        [r#"spec.m[k]: Invalid value: "string": failed rule: self != 'bad'"#]
    );
    let missing = compile(&spec_schema(
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "max": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.a <= self.max", "message": "a must not be over max"}]}),
    ));
    assert_eq!(
        texts(&missing.validate(&object(json!({"a": 1})), None)),
        [
            r#"spec: Invalid value: "object": no such key: max evaluating rule: a must not be over max"#
        ]
    );
}

#[test]
fn a_million_mistakes_are_told_by_some() {
    let schema = compile(&spec_schema(json!({"type": "object", "properties": {
        "map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
        "set": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
    }})));
    let key = "k".repeat(100_000);
    let many: Vec<usize> = (0..20_000).map(|n| n / 2).collect();
    let mut wrong = object(json!({"map": {&key: vec!["x"; 20_000]}, "set": many}));
    let errors = schema.validate(&wrong, None);
    assert!((256..1000).contains(&errors.len()), "{}", errors.len());
    assert!(errors.iter().all(|error| error.field.len() < 2000));
    for n in 0..5000 {
        wrong["spec"][format!("unknown{n}")] = json!(1);
    }
    assert_eq!(schema.prune(&mut wrong).len(), 1000);
    assert_eq!(wrong["spec"].as_object().unwrap().len(), 2);
}

mod any_schema {
    use proptest::prelude::*;

    use super::*;

    /// Schemas and values of small shape, often wrong.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!({"type": "string"})),
            Just(json!({"type": "integer", "default": 1})),
            Just(json!({"x-kubernetes-int-or-string": true})),
            Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
            Just(json!({})),
            Just(json!(true)),
            Just(json!({"type": "string", "pattern": "^[a-z]$", "nullable": true})),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| json!({"type": "object", "properties": {"a": a, "b": b}})),
                inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
                inner.clone().prop_map(|v| json!({"type": "object", "additionalProperties": v})),
                (inner.clone(), inner)
                    .prop_map(|(a, b)| json!({"type": "object", "properties": {"a": a}, "anyOf": [b, {"required": ["a"]}]})),
            ]
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), Just(json!("a")), Just(json!(1)), Just(json!(true))];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        #[test]
        fn pruning_and_defaulting_settle(schema in tree(), spec in value()) {
            if let Ok(schema) = Schema::from_crd(&spec_schema(schema), PATH) {
                let mut once = object(spec);
                schema.prune(&mut once);
                schema.default(&mut once);
                let mut twice = once.clone();
                prop_assert_eq!(schema.prune(&mut twice), [""; 0]);
                schema.default(&mut twice);
                prop_assert_eq!(&once, &twice);
                // What was there before is no mistake of an update that changes nothing.
                prop_assert_eq!(schema.validate(&twice, Some(&once)), []);
                schema.validate(&once, None);
            }
        }
    }
}
