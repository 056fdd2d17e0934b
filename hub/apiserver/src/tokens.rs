//! Tokens of ServiceAccounts: JWTs signed with ES256, bound to an account and maybe to a pod,
//! valid only while both exist (KEP-1205). The server keeps no list of them.

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
    store::{Key, Store},
    user::{AUTHENTICATED, POD_NAME, POD_UID, UserInfo},
};

/// Who issues the tokens, and for whom, if nothing else is asked for.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A token's life, in seconds: default, and bounds (Kubernetes': 1 hour, 10 minutes; the upper
/// bound is ours: nobody needs a bound token for longer than two days).
pub(crate) const LIFE_SECONDS: i64 = 3600;
const LIFE_SECONDS_MIN: i64 = 600;
const LIFE_SECONDS_MAX: i64 = 48 * 3600;

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

#[derive(Serialize, Deserialize)]
struct Claims {
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
}

/// Something that a token is bound to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Named {
    pub name: String,
    pub uid: String,
}

/// What a token is asked for.
pub(crate) struct Ask {
    pub namespace: String,
    pub account: Named,
    pub pod: Option<Named>,
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
            bound: Bound { namespace: ask.namespace, serviceaccount: ask.account, pod: ask.pod },
        };
        let payload = serde_json::to_vec(&claims).map_err(|_| TokenError::Sign)?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(br#"{"alg":"ES256","typ":"JWT"}"#), encode(&payload));
        let signature =
            self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| TokenError::Sign)?;
        let expires = jiff::Timestamp::from_second(exp).map_err(|_| TokenError::Sign)?;
        Ok((format!("{signed}.{}", encode(signature.as_ref())), expires))
    }

    /// The user of a token, and which of the wanted audiences (none: the API itself) it is for.
    pub(crate) fn review(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
    ) -> Result<(UserInfo, Vec<String>), TokenError> {
        let claims = self.verify(token)?;
        let wanted = match audiences {
            [] => vec![ISSUER.to_owned()],
            audiences => audiences.to_vec(),
        };
        let matched: Vec<String> =
            wanted.into_iter().filter(|audience| claims.aud.contains(audience)).collect();
        if matched.is_empty() {
            return Err(TokenError::Audience);
        }
        let Bound { namespace, serviceaccount, pod } = claims.bound;
        check_exists(store, "serviceaccounts", &namespace, &serviceaccount, "ServiceAccount")?;
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
        debug_assert!(user.in_group(AUTHENTICATED));
        Ok((user, matched))
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
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
        Some(object) if object.meta.uid == bound.uid => Ok(()),
        _ => Err(TokenError::Unbound(what)),
    }
}
