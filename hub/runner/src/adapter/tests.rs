//! What the adapter reads from the hub and gives back.

use std::os::unix::fs::symlink;

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
