//! What `git` complains of → a reason, and words that a user can act on.

use std::io;

use super::command::{Asked, Failure};
use crate::{
    Trouble,
    access::{GitAccess, GitAuth},
    secret::redact,
};

/// The reason of a complaint that nobody knows.
pub(super) const UNKNOWN: &str = "StateStoreError";
/// Longest part of a complaint that is repeated.
const SAID_LEN_MAX: usize = 400;
/// How many of a repository's branches are named.
const BRANCHES_MAX: usize = 5;

/// What is looked for in a complaint, in order.
const COMPLAINTS: &[(&[&str], Cause)] = &[
    (&["HTTP 413", "returned error: 413"], Cause::Rejected),
    (&["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED"], Cause::HostKey),
    (&["error in libcrypto", "invalid format", "Load key"], Cause::Key),
    (&["No space left on device", "Out of diskspace", "Disk quota exceeded"], Cause::Disk),
    (
        &[
            "marked as read only",
            "Write access to repository not granted",
            "returned error: 403",
            "deploy key",
            "not allowed to push",
            "insufficient permission",
        ],
        Cause::ReadOnly,
    ),
    (
        &[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "returned error: 401",
            "Permission denied",
        ],
        Cause::Login,
    ),
    (
        &["Could not resolve host", "Name or service not known", "Temporary failure in name"],
        Cause::Host,
    ),
    (
        &[
            "SSL certificate problem",
            "certificate verification failed",
            "certificate subject name",
            "unable to get local issuer",
        ],
        Cause::Certificate,
    ),
    (
        &["not found", "does not appear to be a git repository", "returned error: 404"],
        Cause::Repository,
    ),
    (&["returned error: 3", "redirect"], Cause::Redirect),
    (
        &[
            "onnection refused",
            "Failed to connect",
            "timed out",
            "onnection timed",
            "unreachable",
            "onnection reset",
            "closed by remote host",
            "hung up",
            "Could not connect",
            "returned error: 5",
            "Operation too slow",
            "early EOF",
            "unexpected eof",
            "recv error",
            "SSL_ERROR_SYSCALL",
        ],
        Cause::Network,
    ),
    (&["remote rejected", "declined", "pre-receive"], Cause::Rejected),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    HostKey,
    Key,
    Disk,
    ReadOnly,
    Login,
    Host,
    Certificate,
    Repository,
    Redirect,
    Network,
    Rejected,
    Other,
}

/// A failure in words.
pub(super) fn trouble(failure: &Failure, access: &GitAccess) -> Trouble {
    let said = match failure {
        Failure::Run(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "the program git cannot be run: install git on the hub's host";
            return Trouble::store("GitMissing", message);
        }
        Failure::Run(error) => return disk(error),
        Failure::Slow(Asked::Disk) => {
            return Trouble::store(
                "StateStoreError",
                "git did not end in time on the hub's own disk",
            );
        }
        Failure::Slow(_) => format!("{} did not answer in time", access.url),
        Failure::Said { stdout, stderr } => said(stdout, stderr, access),
    };
    let slow = matches!(failure, Failure::Slow(_));
    explain(if slow { Cause::Network } else { cause_of(&said) }, &said, access)
}

/// The hub's own disk.
pub(super) fn disk(error: &io::Error) -> Trouble {
    let cure = "make room on the disk of the hub's data directory";
    Trouble::store(
        "DiskError",
        format!("the hub cannot write its copy of the branch: {error}: {cure}"),
    )
}

/// A branch that does not exist, though others do.
pub(super) fn no_branch(access: &GitAccess, told: &str) -> Trouble {
    let names = told.lines().filter_map(|line| line.split("refs/heads/").nth(1));
    let names: Vec<_> = names.take(BRANCHES_MAX).collect();
    let message = format!(
        "branch {:?} does not exist in {}, which has {}: create it there, or change spec.branch",
        access.branch,
        access.url,
        names.join(", ")
    );
    Trouble::store("BranchNotFound", message)
}

/// Others push all the time.
pub(super) fn contended(access: &GitAccess, attempts: usize) -> Trouble {
    let message = format!(
        "others pushed to branch {} of {} before each of {attempts} attempts: it is tried again",
        access.branch, access.url
    );
    Trouble::store("PushContended", message)
}

/// A commit could not be signed.
pub(super) fn signing(trouble: Trouble, access: &GitAccess) -> Trouble {
    let message = format!(
        "commits cannot be signed: key signingKey of Secret {} must be an SSH private key without \
         a passphrase, and the hub's host must have git 2.34 and ssh-keygen ({})",
        access.secret, trouble.message
    );
    Trouble::store("SigningFailed", message)
}

/// Whether a push failed because the branch had newer commits.
pub(super) fn met_newer(failure: &Failure) -> bool {
    let Failure::Said { stdout, stderr } = failure else { return false };
    let told = [
        "(fetch first)",
        "(non-fast-forward)",
        "(stale info)",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
        "is at ",
        "reference already exists",
    ];
    let rejected = stdout.lines().filter(|line| line.starts_with('!'));
    rejected.into_iter().any(|line| told.iter().any(|word| line.contains(word)))
        || (stderr.contains("[rejected]") && told.iter().any(|word| stderr.contains(word)))
}

/// Whether a push would change nothing, as `--porcelain` tells it: the branch is at that commit.
pub(super) fn is_there(told: &str) -> bool {
    told.lines().any(|line| line.starts_with("=\t"))
}

/// The commit of a branch in what `git ls-remote` printed.
pub(super) fn advertised(told: &str, branch: &str) -> Option<String> {
    let line =
        told.lines().find_map(|line| line.split_once('\t').filter(|(_, name)| *name == branch));
    line.map(|(id, _)| id.to_owned())
}

fn cause_of(said: &str) -> Cause {
    let known = COMPLAINTS.iter().find(|(words, _)| words.iter().any(|word| said.contains(word)));
    known.map_or(Cause::Other, |(_, cause)| *cause)
}

/// The lines that matter, without secrets.
fn said(stdout: &str, stderr: &str, access: &GitAccess) -> String {
    let noise = ["Done", "To ", "hint:", "Cloning", "fast-import: dumping"];
    let lines = stderr.lines().chain(stdout.lines().filter(|line| line.starts_with('!')));
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> =
        lines.filter(|line| !noise.iter().any(|start| line.starts_with(start))).collect();
    let text = redact(&lines.join("; "), access.secrets());
    text.chars().filter(|c| !c.is_control()).take(SAID_LEN_MAX).collect()
}

fn explain(cause: Cause, said: &str, access: &GitAccess) -> Trouble {
    let (url, secret) = (&access.url, &access.secret);
    let store = |reason, text: String| Trouble::store(reason, format!("{text} ({said})"));
    let whose = keys_of(access);
    match cause {
        Cause::HostKey => store(
            "HostKeyMismatch",
            format!(
                "the host of {url} does not show a key that knownHosts of Secret {secret} lists: if the \
             host is the right one, put its key there (ssh-keyscan HOST)"
            ),
        ),
        Cause::Key => store(
            "AuthenticationFailed",
            format!(
                "sshPrivateKey of Secret {secret} cannot be read: put a private key without a \
             passphrase there"
            ),
        ),
        Cause::Disk => store(
            "DiskFull",
            match said.contains("remote:") {
                true => format!("no space is left on the disk of {url}: make room there"),
                false => {
                    "no space is left on the disk of the hub's data directory: make room there"
                        .to_owned()
                }
            },
        ),
        Cause::ReadOnly => store(
            "PermissionDenied",
            format!(
                "{url} lets the hub read but not write: give {whose} of Secret {secret} the right to \
             push to branch {}",
                access.branch
            ),
        ),
        Cause::Login => store(
            "AuthenticationFailed",
            format!("Authentication failed for {url}: put a valid {whose} into Secret {secret}"),
        ),
        Cause::Host => store(
            "HostNotFound",
            format!(
                "the host of {url} has no address: correct spec.url, or the name service of the hub's host"
            ),
        ),
        Cause::Certificate => store(
            "CertificateNotTrusted",
            format!(
                "the certificate of {url} is signed by nobody whom the hub trusts, or is for another \
             name: put its authority (PEM) into caFile of Secret {secret}"
            ),
        ),
        Cause::Repository => store(
            "RepositoryNotFound",
            format!(
                "there is no repository at {url}, or {whose} of Secret {secret} may not see it: create \
             it, or correct spec.url"
            ),
        ),
        Cause::Redirect => store(
            "Redirected",
            format!(
                "{url} sends the hub elsewhere, and a password does not follow: put the final address \
             into spec.url"
            ),
        ),
        Cause::Network => store(
            "StoreUnreachable",
            format!("{url} does not answer: it is tried again; check the server and the way there"),
        ),
        Cause::Rejected => Trouble::batch(
            "PushRejected",
            format!("{url} does not take the commit: change what its rules forbid ({said})"),
        ),
        Cause::Other => store(UNKNOWN, format!("git failed with {url}")),
    }
}

/// The keys of the Secret that say who the hub is.
fn keys_of(access: &GitAccess) -> &'static str {
    match access.auth {
        GitAuth::Basic { .. } => "username and password",
        GitAuth::Ssh { .. } => "sshPrivateKey",
        GitAuth::App { .. } => "appID, installationID and privateKey",
    }
}

#[cfg(test)]
mod tests;
