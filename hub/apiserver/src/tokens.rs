//! Tokens of ServiceAccounts: JWTs signed with ES256, bound to an account and maybe to a pod or a
//! Secret, valid only while both exist (KEP-1205). The server keeps no list of them.

use std::{collections::BTreeMap, fs, io::Write as _, os::unix::fs::OpenOptionsExt, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    store::{Key, Object, Store},
    user::{POD_NAME, POD_UID, UserInfo},
};

/// Who issues the tokens, and for whom, if nothing else is asked for.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A token's life, in seconds: default, and bounds (Kubernetes': 1 hour, 10 minutes; the upper
/// bound is ours: nobody needs a bound token for longer than two days).
pub(crate) const LIFE_SECONDS: i64 = 3600;
pub(crate) const LIFE_SECONDS_MIN: i64 = 600;
pub(crate) const LIFE_SECONDS_MAX: i64 = 48 * 3600;

/// What a token is bound to may be on its way out for so long: a pod that is being ended still
/// needs its token (Kubernetes' own leeway).
const LEAVING_SECONDS: i64 = 60;

/// Longer ones are not looked at; those made here have about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token is not accepted, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token's signature does not verify")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is for other audiences")]
    Audience,
    #[error("the token's {0} no longer exists")]
    Unbound(&'static str),
    #[error("cannot read or make the signing key {path}: {cause}")]
    Key { path: String, cause: String },
    #[error("the token cannot be signed")]
    Sign,
}

/// What a token says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    nbf: i64,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
}

/// Something that a token is bound to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Named {
    pub name: String,
    pub uid: String,
}

/// What a token ends with, besides its account.
pub(crate) enum BoundTo {
    Pod(Named),
    Secret(Named),
}

/// The user of a token, which of the wanted audiences it is for, and when it ends.
pub(crate) struct Reviewed {
    pub user: UserInfo,
    pub audiences: Vec<String>,
    pub until: jiff::Timestamp,
}

/// What a token is asked for.
pub(crate) struct Ask {
    pub namespace: String,
    pub account: Named,
    pub bound: Option<BoundTo>,
    /// Empty: the API itself.
    pub audiences: Vec<String>,
    pub life_seconds: i64,
}

/// Signs and verifies tokens.
pub(crate) struct Tokens {
    key: EcdsaKeyPair,
}

impl Tokens {
    /// Reads the signing key, or makes one (0600).
    pub(crate) fn open(path: &Path) -> Result<Tokens, TokenError> {
        let failed = |cause: String| TokenError::Key { path: path.display().to_string(), cause };
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = match fs::read(path) {
            Ok(pkcs8) => pkcs8,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
                    .map_err(|error| failed(error.to_string()))?;
                fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .and_then(|mut file| {
                        file.write_all(made.as_ref())?;
                        file.sync_all()
                    })
                    .map_err(|error| failed(error.to_string()))?;
                made.as_ref().to_vec()
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Tokens { key })
    }

    /// Makes a token; the second part is when it expires.
    pub(crate) fn issue(&self, ask: Ask) -> Result<(String, jiff::Timestamp), TokenError> {
        let now = jiff::Timestamp::now().as_second();
        let exp = now + ask.life_seconds.clamp(LIFE_SECONDS_MIN, LIFE_SECONDS_MAX);
        let (pod, secret) = match ask.bound {
            Some(BoundTo::Pod(pod)) => (Some(pod), None),
            Some(BoundTo::Secret(secret)) => (None, Some(secret)),
            None => (None, None),
        };
        let aud = match ask.audiences.is_empty() {
            true => vec![ISSUER.to_owned()],
            false => ask.audiences,
        };
        let claims = Claims {
            aud,
            exp,
            iat: now,
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: now,
            sub: format!("system:serviceaccount:{}:{}", ask.namespace, ask.account.name),
            bound: Bound { namespace: ask.namespace, serviceaccount: ask.account, pod, secret },
        };
        let payload = serde_json::to_vec(&claims).map_err(|_| TokenError::Sign)?;
        let expires = jiff::Timestamp::from_second(exp).map_err(|_| TokenError::Sign)?;
        Ok((self.sign(&payload)?, expires))
    }

    /// A token of ours around these bytes, which should be claims.
    pub(crate) fn sign(&self, payload: &[u8]) -> Result<String, TokenError> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(br#"{"alg":"ES256","typ":"JWT"}"#), encode(payload));
        let signature =
            self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| TokenError::Sign)?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// Checks a token for the wanted audiences (none: the API itself).
    pub(crate) fn review(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
    ) -> Result<Reviewed, TokenError> {
        let claims = self.verify(token)?;
        let wanted = match audiences {
            [] => vec![ISSUER.to_owned()],
            audiences => audiences.to_vec(),
        };
        let audiences: Vec<String> =
            wanted.into_iter().filter(|audience| claims.aud.contains(audience)).collect();
        if audiences.is_empty() {
            return Err(TokenError::Audience);
        }
        let Bound { namespace, serviceaccount, pod, secret } = claims.bound;
        check_exists(store, "serviceaccounts", &namespace, &serviceaccount, "ServiceAccount")?;
        if let Some(secret) = secret {
            check_exists(store, "secrets", &namespace, &secret, "Secret")?;
        }
        let mut user = UserInfo::service_account(&namespace, &serviceaccount.name);
        user.uid = serviceaccount.uid;
        let mut extra = BTreeMap::new();
        if let Some(pod) = pod {
            check_exists(store, "pods", &namespace, &pod, "pod")?;
            extra.insert(POD_NAME.to_owned(), vec![pod.name]);
            extra.insert(POD_UID.to_owned(), vec![pod.uid]);
        }
        let credential = format!("JTI={}", claims.jti);
        extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![credential]);
        user.extra = extra;
        let until = jiff::Timestamp::from_second(claims.exp).map_err(|_| TokenError::Malformed)?;
        Ok(Reviewed { user, audiences, until })
    }

    /// The claims of a token that is ours and of now.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (_, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
        // The algorithm is ours, whatever the header claims.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims =
            serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Malformed)?;
        let now = jiff::Timestamp::now().as_second();
        match claims.nbf <= now && now < claims.exp {
            true => Ok(claims),
            false => Err(TokenError::Expired),
        }
    }
}

fn check_exists(
    store: &Store,
    kind: &str,
    namespace: &str,
    bound: &Named,
    what: &'static str,
) -> Result<(), TokenError> {
    let key = Key { kind: kind.into(), namespace: namespace.to_owned(), name: bound.name.clone() };
    match store.get(&key) {
        Some(object) if object.meta.uid == bound.uid && !has_left(&object) => Ok(()),
        _ => Err(TokenError::Unbound(what)),
    }
}

/// It was to be deleted at a time that is over.
fn has_left(object: &Object) -> bool {
    let Some(deleted) = &object.meta.deletion_timestamp else { return false };
    let leaving = |deleted: jiff::Timestamp| deleted.as_second() + LEAVING_SECONDS;
    let now = jiff::Timestamp::now().as_second();
    deleted.parse().map_or(true, |deleted| leaving(deleted) < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            namespace: "team".to_owned(),
            account: Named { name: "bot".to_owned(), uid: "1".to_owned() },
            bound: None,
            audiences: Vec::new(),
            life_seconds: LIFE_SECONDS,
        }
    }

    fn tokens() -> Tokens {
        let dir = tempfile::tempdir().unwrap();
        Tokens::open(&dir.path().join("key")).unwrap()
    }

    #[test]
    fn a_token_is_good_with_its_own_key_and_unchanged() {
        let tokens = tokens();
        let (token, _) = tokens.issue(ask()).unwrap();
        assert_eq!(tokens.verify(&token).unwrap().sub, "system:serviceaccount:team:bot");
        assert!(matches!(self::tokens().verify(&token), Err(TokenError::Signature)));
        let parts: Vec<&str> = token.split('.').collect();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        let other = URL_SAFE_NO_PAD.encode(claims.replace("team:bot", "team:top"));
        let forged = format!("{}.{other}.{}", parts[0], parts[2]);
        assert!(matches!(tokens.verify(&forged), Err(TokenError::Signature)));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for unsigned in [format!("{none}.{}.", parts[1]), format!("{none}.{}", parts[1])] {
            assert!(tokens.verify(&unsigned).is_err(), "{unsigned}");
        }
        assert!(matches!(
            tokens.verify("a.b.c"),
            Err(TokenError::Malformed | TokenError::Signature)
        ));
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert!(matches!(tokens.verify(&long), Err(TokenError::Malformed)));
    }

    #[test]
    fn a_token_ends() {
        let tokens = tokens();
        let mut claims = tokens.verify(&tokens.issue(ask()).unwrap().0).unwrap();
        claims.exp = jiff::Timestamp::now().as_second() - 1;
        let token = tokens.sign(&serde_json::to_vec(&claims).unwrap()).unwrap();
        assert!(matches!(tokens.verify(&token), Err(TokenError::Expired)));
    }

    #[test]
    fn a_key_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (token, _) = Tokens::open(&path).unwrap().issue(ask()).unwrap();
        Tokens::open(&path).unwrap().verify(&token).unwrap();
    }
}
