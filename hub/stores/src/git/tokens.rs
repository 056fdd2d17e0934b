//! Tokens of a GitHub App's installation: asked for with a short-lived JWT that the App's key signs,
//! and asked for again before they expire.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use serde_json::json;

use super::login::certificates;
use crate::{
    Secret, Trouble,
    access::{GitAccess, GitAuth},
};

/// How long a JWT is valid: GitHub takes no more than 10 minutes, and clocks differ.
const JWT_VALID: SignedDuration = SignedDuration::from_mins(8);
/// How far a JWT is dated back, for the same reason.
const JWT_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// How long before its end a token is renewed: longer than any one push.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// How long GitHub may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Longest text of an error that is repeated.
const ERROR_LEN_MAX: usize = 300;

/// An installation's tokens.
pub(super) struct AppTokens {
    key: RsaKeyPair,
    client: reqwest::Client,
    /// The end of the token that was handed out last.
    until: Option<Timestamp>,
}

impl std::fmt::Debug for AppTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppTokens").field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    token: String,
    expires_at: Timestamp,
}

impl AppTokens {
    /// Reads the key.
    pub(super) fn new(access: &GitAccess) -> Result<Self, Trouble> {
        let GitAuth::App { key, .. } = &access.auth else {
            return Err(Trouble::store("ErrorInitialisingWriter", "the store has no GitHub App"));
        };
        let wrong = |cause: &str| {
            let message = format!(
                "Secret {}: key privateKey {cause}: put the App's private key there as GitHub gives \
                 it (PEM, RSA)",
                access.secret
            );
            Trouble::store("ErrorInitialisingWriter", message)
        };
        let parsed = PrivateKeyDer::from_pem_slice(key.reveal());
        let pair = match parsed.map_err(|_| wrong("is no private key"))? {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(wrong("is no RSA key")),
        };
        let mut builder = reqwest::Client::builder().timeout(ANSWER_MAX).https_only(true);
        if let Some(pem) = &access.authorities {
            for certificate in certificates(pem)? {
                let certificate = reqwest::Certificate::from_der(&certificate);
                builder = builder.add_root_certificate(certificate.map_err(|error| {
                    Trouble::store(
                        "ErrorInitialisingWriter",
                        format!("caFile of the Secret: {error}"),
                    )
                })?);
            }
        }
        let client = builder.build().map_err(|error| unreachable(&error.to_string()))?;
        Ok(Self { key: pair.map_err(|_| wrong("is no RSA key"))?, client, until: None })
    }

    /// A new token, if the one that was handed out last is about to end.
    pub(super) async fn renewed(&mut self, access: &GitAccess) -> Result<Option<Secret>, Trouble> {
        let GitAuth::App { app, installation, .. } = &access.auth else { return Ok(None) };
        let now = Timestamp::now();
        if self.until.is_some_and(|until| until > now + RENEW_BEFORE) {
            return Ok(None);
        }
        let url = format!("{}/app/installations/{installation}/access_tokens", api(&access.url));
        let request = self.client.post(&url).bearer_auth(self.jwt(app, now)?);
        let request = request.header("accept", "application/vnd.github+json");
        let answer = request.header("user-agent", "muster").send().await;
        let answer = answer.map_err(|error| unreachable(&crate::trouble_chain(&error)))?;
        let status = answer.status();
        if !status.is_success() {
            let said = answer.text().await.unwrap_or_default();
            let said: String = said.chars().take(ERROR_LEN_MAX).collect();
            return Err(refused(access, (app, installation), &url, &format!("{status}: {said}")));
        }
        let answer: Answer =
            answer.json().await.map_err(|error| unreachable(&error.to_string()))?;
        self.until = Some(answer.expires_at);
        Ok(Some(Secret::new(answer.token)))
    }

    fn jwt(&self, app: &str, now: Timestamp) -> Result<String, Trouble> {
        let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let (issued, ends) = ((now - JWT_SKEW).as_second(), (now + JWT_VALID).as_second());
        let head = part(json!({ "alg": "RS256", "typ": "JWT" }));
        let signed = format!("{head}.{}", part(json!({ "iat": issued, "exp": ends, "iss": app })));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let made = self.key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        );
        made.map_err(|_| Trouble::store("ErrorInitialisingWriter", "the App's key signs nothing"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Where the API of a repository's GitHub is: github.com has a host of its own for it, an
/// enterprise's server a path.
fn api(url: &str) -> String {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    match host.unwrap_or_default() {
        "github.com" => "https://api.github.com".to_owned(),
        host => format!("https://{host}/api/v3"),
    }
}

fn refused(
    access: &GitAccess,
    (app, installation): (&str, &str),
    url: &str,
    said: &str,
) -> Trouble {
    let message = format!(
        "GitHub gives App {app} no token for installation {installation} ({url} answers {said}): \
         check appID, installationID and privateKey in Secret {}, that the key was not deleted, and \
         that the App is still installed",
        access.secret
    );
    Trouble::store("AuthenticationFailed", message)
}

fn unreachable(cause: &str) -> Trouble {
    Trouble::store("StoreUnreachable", format!("no token can be had from GitHub: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_the_repositorys_github_is() {
        assert_eq!(api("https://github.com/o/r.git"), "https://api.github.com");
        assert_eq!(
            api("https://git.corp.example:8443/o/r"),
            "https://git.corp.example:8443/api/v3"
        );
    }
}
