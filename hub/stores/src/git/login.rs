//! What `git` needs to enter a server, in files that only the hub can read: never in arguments, and
//! not in the environment either.
//!
//! A password is told by a program that `git` asks (`GIT_ASKPASS`), a script of ours that prints
//! the file beside it; a key is a file that `ssh` is pointed to.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use muster_daemon::durable::private_dir;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::Mutex;

use super::{tokens::AppTokens, words};
use crate::{
    Trouble,
    access::{GitAccess, GitAuth},
};

/// Answers `git`'s question for a user or a password from the files beside it.
const ASKPASS: &str = "#!/bin/sh\ncase \"$1\" in\n  Username*) exec cat \"${0%/*}/username\" ;;\n  \
                       *) exec cat \"${0%/*}/password\" ;;\nesac\n";
/// Most bytes of a push that are sent in one piece: the largest batch, and some.
const POST_BYTES: usize = 100 << 20;
/// The user that GitHub takes an installation's tokens from.
const TOKEN_USER: &str = "x-access-token";

/// The files, and what points to them.
#[derive(Debug)]
pub(super) struct Login {
    /// Removed with everything in it when the store is closed.
    files: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
    tokens: Option<Mutex<AppTokens>>,
}

impl Login {
    /// Writes the files.
    pub(super) fn new(access: &GitAccess, dir: &Path) -> Result<Self, Trouble> {
        let made = private_dir(dir).map_err(|error| error.cause);
        let files = made.and_then(|()| tempfile::Builder::new().prefix("login-").tempdir_in(dir));
        let files = files.map_err(|error| words::disk(&error))?;
        let mut login = Self { files, environment: Vec::new(), tokens: None };
        login.set("HOME", login.files.path().as_os_str().to_owned());
        for (key, value) in [
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "https:ssh"),
        ] {
            login.set(key, value.into());
        }
        let author = &access.author;
        for (key, value) in [
            ("GIT_AUTHOR_NAME", &author.name),
            ("GIT_AUTHOR_EMAIL", &author.email),
            ("GIT_COMMITTER_NAME", &author.name),
            ("GIT_COMMITTER_EMAIL", &author.email),
        ] {
            login.set(key, value.into());
        }
        let written = login.write_all(access);
        written.map_err(|error| words::disk(&error))??;
        Ok(login)
    }

    /// What `git` is started with.
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment.clone()
    }

    /// Sees to it that what the files hold is valid for the next command.
    pub(super) async fn refresh(&self, access: &GitAccess) -> Result<(), Trouble> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        if let Some(token) = tokens.lock().await.renewed(access).await? {
            self.write("password", token.reveal(), 0o600).map_err(|error| words::disk(&error))?;
        }
        Ok(())
    }

    fn write_all(&mut self, access: &GitAccess) -> io::Result<Result<(), Trouble>> {
        // No hook runs, and nobody is sent elsewhere with a password.
        let mut config = vec![
            ("core.hooksPath", "/dev/null".to_owned()),
            ("http.followRedirects", "false".to_owned()),
            ("http.lowSpeedLimit", "100".to_owned()),
            ("http.lowSpeedTime", "20".to_owned()),
            ("fetch.unpackLimit", "1".to_owned()),
            // What is larger is sent in chunks, which not every server takes.
            ("http.postBuffer", POST_BYTES.to_string()),
            ("gc.auto", "0".to_owned()),
        ];
        match &access.auth {
            GitAuth::Basic { username, password } => {
                self.askpass(username, password.reveal())?;
                self.authorities(access)?;
            }
            GitAuth::App { .. } => {
                match AppTokens::new(access) {
                    Ok(tokens) => self.tokens = Some(Mutex::new(tokens)),
                    Err(trouble) => return Ok(Err(trouble)),
                }
                self.askpass(TOKEN_USER, b"")?;
                self.authorities(access)?;
            }
            GitAuth::Ssh { key, known_hosts } => {
                let key = self.write("key", &with_newline(key.reveal()), 0o600)?;
                let hosts =
                    self.write("known_hosts", &with_newline(known_hosts.as_bytes()), 0o600)?;
                self.set("GIT_SSH_COMMAND", ssh_command(&key, &hosts).into());
                self.set("GIT_SSH_VARIANT", "ssh".into());
            }
        }
        if let Some(key) = &access.signing_key {
            let key = self.write("signing_key", &with_newline(key.reveal()), 0o600)?;
            config.push(("gpg.format", "ssh".to_owned()));
            config.push(("user.signingKey", key.to_string_lossy().into_owned()));
        }
        self.set("GIT_CONFIG_COUNT", config.len().to_string().into());
        for (index, (key, value)) in config.into_iter().enumerate() {
            self.set(&format!("GIT_CONFIG_KEY_{index}"), key.into());
            self.set(&format!("GIT_CONFIG_VALUE_{index}"), value.into());
        }
        Ok(Ok(()))
    }

    fn askpass(&mut self, username: &str, password: &[u8]) -> io::Result<()> {
        self.write("username", username.as_bytes(), 0o600)?;
        self.write("password", password, 0o600)?;
        let askpass = self.write("askpass", ASKPASS.as_bytes(), 0o700)?;
        self.set("GIT_ASKPASS", askpass.into());
        Ok(())
    }

    /// The system's authorities and the Secret's, in one file: `git` takes only one.
    fn authorities(&mut self, access: &GitAccess) -> io::Result<()> {
        let mut bundle = Vec::new();
        for certificate in rustls_native_certs::load_native_certs().certs {
            writeln!(bundle, "{}", pem(&certificate))?;
        }
        bundle.extend(access.authorities.iter().flatten());
        let bundle = self.write("authorities.pem", &bundle, 0o600)?;
        self.set("GIT_SSL_CAINFO", bundle.into());
        Ok(())
    }

    /// Writes a file whole, so that a reader never sees half of it.
    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
        let path = self.files.path().join(name);
        let new = self.files.path().join(format!("{name}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        drop(file);
        fs::rename(&new, &path)?;
        Ok(path)
    }

    fn set(&mut self, key: &str, value: OsString) {
        self.environment.push((key.into(), value));
    }
}

/// The certificates of PEM text; an error says what is wrong with it.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let wrong = |cause: String| {
        let message = format!("caFile of the Secret is not a list of certificates in PEM: {cause}");
        Trouble::store("ErrorInitialisingWriter", message)
    };
    let all = read.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("it holds none".to_owned())) } else { Ok(all) }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", lines.join("\n"))
}

fn ssh_command(key: &Path, hosts: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"));
    format!(
        "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o IdentityAgent=none \
         -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes \
         -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3",
        quoted(key),
        quoted(hosts)
    )
}

/// `ssh` reads no key whose last line does not end.
fn with_newline(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    text
}
