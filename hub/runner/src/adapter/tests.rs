//! What the adapter reads from the hub and gives back.

use std::{convert::Infallible, os::unix::fs::symlink};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

fn collected(dir: &Path) -> Result<FileSet, AdapterError> {
    let mut files = FileSet::new();
    collect::tree(dir, "output", &mut files)?;
    Ok(files)
}

#[test]
fn reads_the_arguments_that_a_job_gives() {
    let parse = |text: &str| AdapterArgs::parse(text.split(' ').map(str::to_owned));
    assert_eq!(parse("reader").unwrap(), AdapterArgs::Reader);
    let args = "work-creator --input-directory /work-creator-files --promise-name p \
                --pipeline-name l --namespace ns --workflow-type resource --resource-name r";
    let input_directory = PathBuf::from("/work-creator-files");
    assert_eq!(parse(args).unwrap(), AdapterArgs::WorkCreator { input_directory });
    for (wrong, says) in [
        ("work-creator", "--input-directory"),
        ("reader --colour red", "--colour"),
        ("writer", "unknown command writer"),
        ("work-creator --input-directory", "needs a value"),
    ] {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.contains(says), "{wrong}: {error}");
    }
}

#[test]
fn finds_the_host_path_of_the_innermost_mount() {
    let mounts = [("/kratix", "/host/outer"), ("/kratix/input", "/host/inner")];
    let mounts = mounts.map(|(a, b)| (PathBuf::from(a), PathBuf::from(b))).into();
    let pod = PodView { env: BTreeMap::new(), mounts, door: None };
    assert_eq!(pod.path(Path::new("/kratix/input/x")), Path::new("/host/inner/x"));
    assert_eq!(pod.path(Path::new("/kratix/input")), Path::new("/host/inner"));
    assert_eq!(pod.path(Path::new("/kratix/other")), Path::new("/host/outer/other"));
    assert_eq!(pod.path(Path::new("/etc")), Path::new("/etc"));
}

#[test]
fn collects_files_with_their_paths() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/c.yaml"), "c").unwrap();
    fs::write(dir.path().join("top"), "").unwrap();
    let files = collected(dir.path()).unwrap();
    let paths: Vec<&str> = files.iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["output/a/b/c.yaml", "output/top"]);
    assert!(collected(&dir.path().join("absent")).unwrap().is_empty());
}

#[test]
fn refuses_links_and_special_files_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, target) in [("file", "/etc/passwd"), ("dir", "/etc"), ("gone", "nowhere")] {
        let link = dir.path().join(name);
        symlink(target, &link).unwrap();
        let error = collected(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("symbolic link"), "{error}");
        fs::remove_file(link).unwrap();
    }
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let error = collected(dir.path()).unwrap_err().to_string();
    assert!(error.contains("pipe"), "{error}");
    // The directory itself may be a link too: a pipeline can replace what it may write.
    symlink("/etc", dir.path().join("out")).unwrap();
    assert!(collected(&dir.path().join("out")).is_err());
}

#[test]
fn refuses_output_beyond_the_limit_naming_file_and_size() {
    let dir = tempfile::tempdir().unwrap();
    let big = fs::File::create(dir.path().join("big.bin")).unwrap();
    big.set_len(muster_core::content::OUTPUT_BYTES_MAX as u64 + 1).unwrap();
    let error = collected(dir.path()).unwrap_err().to_string();
    assert!(error.contains("big.bin") && error.contains("33554433"), "{error}");
}

/// A pod whose hub says this of the children of its object; its reader's outcome, and its input.
async fn told_of_children(
    answer: Value,
) -> (Result<Option<String>, AdapterError>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (input, account) = (dir.path().join("input"), dir.path().join("account"));
    for made in [&input, &account] {
        fs::create_dir(made).unwrap();
    }
    fs::write(account.join("token"), "t").unwrap();
    fs::write(account.join("namespace"), "team").unwrap();
    let object = json!({ "kind": "App", "status": { "children": [{}] } }).to_string();
    let answer = answer.to_string();
    let hub = service_fn(move |request: Request<Body>| {
        let text = match request.uri().path() {
            "/apis/ex.io/v1/namespaces/team/apps/shop" => object.clone(),
            "/muster/results/team/job/children" => answer.clone(),
            other => panic!("{other} is asked for"),
        };
        async { Ok::<_, Infallible>(Response::new(Body::from(text.into_bytes()))) }
    });
    let env = [
        ("KRATIX_OBJECT_GROUP", "ex.io"),
        ("KRATIX_OBJECT_VERSION", "v1"),
        ("KRATIX_CRD_PLURAL", "apps"),
        ("KRATIX_OBJECT_NAME", "shop"),
        ("KRATIX_OBJECT_NAMESPACE", "team"),
        ("KRATIX_CLUSTER_SCOPED", "false"),
        (JOB_VARIABLE, "job"),
    ];
    let mounts = [(INPUT_DIR, &input), (crate::pod::SERVICE_ACCOUNT_DIR, &account)];
    let pod = PodView {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        mounts: mounts.map(|(mount, host)| (PathBuf::from(mount), host.clone())).into(),
        door: Some(Client::new(hub, "team")),
    };
    (run_in(&pod, AdapterArgs::Reader).await, dir)
}

#[tokio::test]
async fn children_are_written_below_the_input_and_nowhere_else() {
    let (outcome, dir) = told_of_children(json!({ "children/database/db.yaml": "a: 1\n" })).await;
    outcome.unwrap();
    let written = dir.path().join("input/children/database/db.yaml");
    assert_eq!(fs::read_to_string(written).unwrap(), "a: 1\n");
    let (outcome, dir) = told_of_children(json!({ "../escaped.yaml": "a: 1\n" })).await;
    outcome.unwrap_err();
    assert!(!dir.path().join("escaped.yaml").exists());
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read_to_its_end() {
    let (outcome, _dir) =
        told_of_children(json!({ "children/a/b.yaml": "x".repeat(17 << 20) })).await;
    let said = outcome.unwrap_err().to_string();
    assert!(said.contains("it is longer than 16777216 bytes"), "{said}");
}
