//! Complaints that git 2.39 and servers were seen to make, and what becomes of them.

use super::*;
use crate::{Secret, Weight, access::Author};

fn access() -> GitAccess {
    GitAccess {
        url: "https://git.example/fleet.git".into(),
        branch: "main".into(),
        auth: GitAuth::Basic { username: "hub".into(), password: Secret::new("hunter2") },
        authorities: None,
        author: Author { name: "kratix".into(), email: "k@example".into() },
        signing_key: None,
        secret: "default/login".into(),
    }
}

fn said(stderr: &str) -> Failure {
    Failure::Said { stdout: String::new(), stderr: stderr.to_owned() }
}

#[test]
fn complaints_become_reasons_that_name_the_cure() {
    for (complaint, reason, cure) in [
        (
            "remote: authentication required\nfatal: Authentication failed for 'https://git.example/fleet.git/'",
            "AuthenticationFailed",
            "Secret default/login",
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 403",
            "PermissionDenied",
            "right to push",
        ),
        (
            "ERROR: The key you are authenticating with has been marked as read only.\nfatal: Could not read from remote repository.",
            "PermissionDenied",
            "right to push",
        ),
        ("fatal: repository 'https://x/' not found", "RepositoryNotFound", "spec.url"),
        (
            "fatal: unable to access 'https://x/': Could not resolve host: x",
            "HostNotFound",
            "spec.url",
        ),
        (
            "fatal: unable to access 'https://x/': Failed to connect to x port 443 after 0 ms: Couldn't connect to server",
            "StoreUnreachable",
            "tried again",
        ),
        (
            "fatal: unable to access 'https://x/': server certificate verification failed. CAfile: /x CRLfile: none",
            "CertificateNotTrusted",
            "caFile",
        ),
        (
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            "HostKeyMismatch",
            "knownHosts",
        ),
        (
            "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            "AuthenticationFailed",
            "default/login",
        ),
        (
            "fatal: unable to write loose object file: No space left on device",
            "DiskFull",
            "make room",
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 301",
            "Redirected",
            "spec.url",
        ),
    ] {
        let trouble = trouble(&said(complaint), &access());
        assert_eq!(trouble.reason, reason, "{complaint}");
        assert!(trouble.message.contains(cure), "{trouble}");
        assert_eq!(trouble.weight, Weight::Store);
    }
}

#[test]
fn a_password_that_git_repeats_is_not_repeated() {
    let trouble = trouble(&said("fatal: cannot use hunter2"), &access());
    assert!(trouble.message.contains("***") && !trouble.message.contains("hunter2"), "{trouble}");
}

#[test]
fn a_hook_that_declines_concerns_what_was_pushed() {
    let stdout = "To https://x\n!\tabc:refs/heads/main\t[remote rejected] (pre-receive hook declined)\nDone\n";
    let failure = Failure::Said { stdout: stdout.into(), stderr: "remote: no secrets here".into() };
    assert!(!met_newer(&failure));
    let trouble = trouble(&failure, &access());
    assert_eq!((trouble.reason, trouble.weight), ("PushRejected", Weight::Batch));
    assert!(trouble.message.contains("no secrets here"), "{trouble}");
}

#[test]
fn newer_commits_are_told_from_other_rejections() {
    for line in [
        "[rejected] (fetch first)",
        "[rejected] (non-fast-forward)",
        "[remote rejected] (cannot lock ref 'refs/heads/main': is at 1 but expected 2)",
    ] {
        let stdout = format!("To https://x\n!\tabc:refs/heads/main\t{line}\nDone\n");
        assert!(met_newer(&Failure::Said { stdout, stderr: String::new() }), "{line}");
    }
}

#[test]
fn the_branch_that_is_missing_is_named_with_those_that_exist() {
    let trouble = no_branch(&access(), "1\trefs/heads/dev\n2\trefs/heads/prod\n");
    assert!(
        trouble.message.contains("dev, prod") && trouble.message.contains("spec.branch"),
        "{trouble}"
    );
}
