//! How a store is entered: what its object and its Secret say, read and checked.

use std::collections::BTreeMap;

use crate::{Secret, Trouble};

/// A Secret's bytes by key.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// What is needed to enter a store.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// A branch of a Git repository.
    Git(GitAccess),
    /// A bucket.
    Bucket(BucketAccess),
}

/// A branch of a Git repository.
#[derive(Debug, Clone, PartialEq)]
pub struct GitAccess {
    /// The repository.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// Who the hub is.
    pub auth: GitAuth,
    /// PEM of more authorities to trust.
    pub authorities: Option<Vec<u8>>,
    /// Whose name commits carry.
    pub author: Author,
    /// An SSH key that signs commits.
    pub signing_key: Option<Secret>,
    /// The Secret, for messages.
    pub secret: String,
}

/// Whose name commits carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

/// Who the hub is to a Git server.
#[derive(Debug, Clone, PartialEq)]
pub enum GitAuth {
    /// A user and a password or token.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A key, and the keys of hosts.
    Ssh {
        /// The private key.
        key: Secret,
        /// Lines as in `~/.ssh/known_hosts`.
        known_hosts: String,
    },
    /// An installation of a GitHub App.
    App {
        /// The App.
        app: String,
        /// The installation.
        installation: String,
        /// The App's private key, PEM.
        key: Secret,
    },
}

/// A bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketAccess {
    /// Its name.
    pub bucket: String,
    /// The server: a host, with or without a port.
    pub endpoint: String,
    /// Plain http.
    pub insecure: bool,
    /// Whether Amazon is asked by its names for both IPv4 and IPv6.
    pub dual_stack: bool,
    /// Who the hub is.
    pub auth: BucketAuth,
    /// PEM of more authorities to trust.
    pub authorities: Option<Vec<u8>>,
    /// The Secret, for messages.
    pub secret: String,
}

/// Who the hub is to an S3 server.
#[derive(Debug, Clone, PartialEq)]
pub enum BucketAuth {
    /// A key.
    Key {
        /// Its id.
        id: String,
        /// Its secret.
        secret: Secret,
    },
    /// What the machine or pod gives.
    Ambient,
}

/// The key of a Secret with more authorities to trust.
const AUTHORITIES: &str = "caFile";
/// The user that GitHub takes tokens from.
const TOKEN_USER: &str = "x-access-token";

/// A Secret, opened for one store.
#[derive(Debug, Clone, Copy)]
pub struct Opened<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What it holds.
    pub data: &'a SecretData,
}

impl Opened<'_> {
    /// A key that must be there.
    pub fn required(&self, key: &str) -> Result<Secret, Trouble> {
        self.optional(key)
            .ok_or_else(|| self.lacks(key, "is missing or empty: add it to the Secret".to_owned()))
    }

    /// A key that must be there and be text.
    pub fn text(&self, key: &str) -> Result<String, Trouble> {
        let value = self.required(key)?;
        let text = value.text().map(str::trim);
        let line = text.filter(|text| !text.chars().any(char::is_control));
        line.map(str::to_owned).ok_or_else(|| self.lacks(key, "is not one line of text".to_owned()))
    }

    /// A key that may be there.
    pub fn optional(&self, key: &str) -> Option<Secret> {
        self.data.get(key).filter(|value| !value.is_empty()).map(|value| Secret::new(value.clone()))
    }

    /// More authorities to trust.
    pub fn authorities(&self) -> Option<Vec<u8>> {
        self.optional(AUTHORITIES).map(|pem| pem.reveal().to_vec())
    }

    fn lacks(&self, key: &str, cause: String) -> Trouble {
        Trouble::store(
            "ErrorInitialisingWriter",
            format!("Secret {}: key {key} {cause}", self.name),
        )
    }
}

impl GitAuth {
    /// basicAuth: `username` and `password`; GitHub's tokens need no user.
    pub fn basic(url: &str, secret: Opened<'_>) -> Result<Self, Trouble> {
        https(url, "basicAuth")?;
        let of_github = url.starts_with("https://github.com/");
        let username = match secret.optional("username") {
            None if of_github => TOKEN_USER.to_owned(),
            _ => secret.text("username")?,
        };
        Ok(Self::Basic { username, password: Secret::new(secret.text("password")?) })
    }

    /// ssh: `sshPrivateKey` and `knownHosts`.
    pub fn ssh(url: &str, secret: Opened<'_>) -> Result<Self, Trouble> {
        let scp_like = !url.contains("://") && url.contains(':') && !url.starts_with('-');
        if !(url.starts_with("ssh://") || scp_like) {
            return Err(bad_url(
                url,
                "authMethod ssh needs user@host:path or ssh://user@host/path",
            ));
        }
        let known_hosts = secret.required("knownHosts")?;
        let known_hosts = known_hosts.text().unwrap_or_default().to_owned();
        Ok(Self::Ssh { key: secret.required("sshPrivateKey")?, known_hosts })
    }

    /// githubApp: `appID`, `installationID` and `privateKey`.
    pub fn app(url: &str, secret: Opened<'_>) -> Result<Self, Trouble> {
        https(url, "githubApp")?;
        Ok(Self::App {
            app: secret.text("appID")?,
            installation: secret.text("installationID")?,
            key: secret.required("privateKey")?,
        })
    }
}

impl GitAccess {
    /// Everything that must not be printed.
    pub(crate) fn secrets(&self) -> Vec<&Secret> {
        let own = match &self.auth {
            GitAuth::Basic { password, .. } => password,
            GitAuth::Ssh { key, .. } | GitAuth::App { key, .. } => key,
        };
        self.signing_key.iter().chain([own]).collect()
    }
}

fn https(url: &str, method: &str) -> Result<(), Trouble> {
    let Some(rest) = url.strip_prefix("https://") else {
        return Err(bad_url(url, &format!("authMethod {method} needs https://HOST/PATH")));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.contains('@') || url.chars().any(|c| c.is_control() || c == ' ') {
        let cause = "it must name a host, and no user or password: those are in the Secret";
        return Err(bad_url("", cause));
    }
    Ok(())
}

/// A URL that cannot be used. One that may hold a password is not repeated.
fn bad_url(url: &str, cause: &str) -> Trouble {
    Trouble::store("ErrorInitialisingWriter", format!("spec.url {url:?}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(all: &[(&str, &str)]) -> SecretData {
        all.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn each_method_names_what_is_missing() {
        let empty = data(&[]);
        let secret = Opened { name: "default/login", data: &empty };
        let https = "https://git.example/x.git";
        for (result, key) in [
            (GitAuth::basic(https, secret), "username"),
            (GitAuth::basic("https://github.com/o/r", secret), "password"),
            (GitAuth::ssh("git@git.example:x.git", secret), "knownHosts"),
            (GitAuth::app(https, secret), "appID"),
        ] {
            let message = result.unwrap_err().message;
            assert!(message.contains("default/login") && message.contains(key), "{message}");
        }
    }

    #[test]
    fn urls_fit_the_method_and_hold_no_password() {
        let all = data(&[
            ("username", "u"),
            ("password", "p"),
            ("sshPrivateKey", "k"),
            ("knownHosts", "h"),
        ]);
        let secret = Opened { name: "default/login", data: &all };
        for url in ["http://git.example/x", "git@git.example:x", "", "file:///etc"] {
            assert!(GitAuth::basic(url, secret).is_err(), "{url}");
        }
        for url in ["https://git.example/x", "-oProxyCommand=x:y", "/srv/x"] {
            assert!(GitAuth::ssh(url, secret).is_err(), "{url}");
        }
        assert!(GitAuth::ssh("ssh://git@git.example:22/x", secret).is_ok());
        let error = GitAuth::basic("https://me:hunter2@git.example/x", secret).unwrap_err();
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}
