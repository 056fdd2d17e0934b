//! Files and whose they are.

use super::*;

fn files(files: &[(&str, &str)]) -> FileSet {
    let mut set = FileSet::new();
    for (path, text) in files {
        set.insert(path, text.as_bytes().to_vec()).unwrap();
    }
    set
}

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
const SCRIPT: &str = "apiVersion: fleet.muster.dev/v1alpha1\nkind: Script\nmetadata: {name: s}\n\
                      spec: {apply: {command: [\"true\"]}}\n";

#[test]
fn every_file_has_one_owner() {
    let set = files(&[
        ("infra/main.tf", ""),
        ("infra/values.yaml", CONFIG),
        ("infra/modules/net/net.tf", ""),
        ("k8s/a.yaml", CONFIG),
        ("run.sh", "#!/bin/sh\n"),
        ("svc.yml", SCRIPT),
        ("values.yaml", "replicas: 3\n"),
    ]);
    let parts = split(&set).unwrap();
    let terraform: Vec<_> = parts.terraform.keys().map(String::as_str).collect();
    assert_eq!(terraform, ["main.tf", "modules/net/net.tf", "values.yaml"]);
    assert_eq!(parts.objects.len(), 1);
    assert_eq!(parts.objects[0].place, Place { file: "k8s/a.yaml".into(), document: 1 });
    assert_eq!(parts.scripts[0].value.name, "s");
    let data: Vec<_> = parts.data.keys().map(String::as_str).collect();
    assert_eq!(data, ["run.sh", "values.yaml"]);
    assert!(parts.unapplied().is_empty());
    assert_eq!(parts.needs()["terraform"], "infra/main.tf");
}

#[test]
fn data_without_a_script_is_listed() {
    let parts = split(&files(&[("README.md", "hello"), ("a.yaml", CONFIG)])).unwrap();
    assert_eq!(parts.unapplied(), ["README.md"]);
}

#[test]
fn a_stream_of_documents_keeps_their_numbers() {
    let stream = format!("# first\n---\n{CONFIG}---\n# nothing\n---\n{SCRIPT}");
    let parts = split(&files(&[("all.yaml", &stream)])).unwrap();
    assert_eq!(parts.objects[0].place.document, 1);
    assert_eq!(parts.scripts[0].place.document, 3);
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
    assert_eq!(split(&files(&[("l.yaml", list)])).unwrap().objects[0].value["kind"], "Secret");
}

#[test]
fn errors_name_file_document_and_line() {
    let broken = format!("{CONFIG}---\napiVersion: v1\nkind: [\n");
    let error = split(&files(&[("x/b.yaml", &broken)])).unwrap_err().to_string();
    assert!(error.starts_with("x/b.yaml, document 2, line "), "{error}");
    assert!(error.contains("line 6") || error.contains("line 7"), "{error}");
    let cases = [
        ("apiVersion: v1\nkind: Pod\n", "metadata.name"),
        (&format!("{CONFIG}---\nkind: Pod\n"), "apiVersion"),
        ("apiVersion: fleet.muster.dev/v1\nkind: Script\n", "v1alpha1"),
        (
            "apiVersion: fleet.muster.dev/v1alpha1\nkind: Script\nmetadata: {name: s}\nspec: {run: x}\n",
            "run",
        ),
    ];
    for (text, named) in cases {
        let error = split(&files(&[("a.yaml", text)])).unwrap_err().to_string();
        assert!(error.contains("a.yaml, document") && error.contains(named), "{error}");
    }
}

#[test]
fn refuses_the_same_object_twice_and_two_roots() {
    let twice = split(&files(&[("a.yaml", CONFIG), ("b.yaml", CONFIG)])).unwrap_err().to_string();
    assert!(twice.contains("a.yaml") && twice.contains("b.yaml"), "{twice}");
    let roots = split(&files(&[("a/m.tf", ""), ("b/m.tf", "")])).unwrap_err();
    assert!(matches!(roots, SplitError::TwoRoots { .. }), "{roots}");
}
