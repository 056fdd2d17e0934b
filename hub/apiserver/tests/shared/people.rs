//! Users of a served API: each with a certificate that he was given.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use muster_apiserver::{CERTIFICATES_PATH, CertificateRequest, IssuedCertificate, Kubeconfig};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::{home::Home, kubectl::Kubectl, raw::Door};

/// Reads ConfigMaps, for the group `second`.
pub(crate) const READER: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: second}]
"#;

pub(crate) async fn served() -> (Kubectl, Door) {
    served_by(Home::new().await).await
}

pub(crate) async fn served_by(home: Home) -> (Kubectl, Door) {
    let kubectl = Kubectl::of(home).await;
    let config = std::fs::read_to_string(kubectl.home.dir.path().join("admin.kubeconfig")).unwrap();
    (kubectl, Door::of(&config))
}

/// A user's own door, by a certificate that `by` asks for; `Err`: the refusal.
pub(crate) async fn certified(
    by: &Door,
    user: &str,
    groups: &[&str],
    life: i64,
) -> Result<Door, String> {
    let key = KeyPair::generate().unwrap();
    let signing_request = CertificateParams::default().serialize_request(&key).unwrap();
    let request = CertificateRequest {
        user: user.to_owned(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        signing_request: signing_request.pem().unwrap(),
        expiration_seconds: Some(life),
    };
    let (code, body) = by.post(CERTIFICATES_PATH, serde_json::to_vec(&request).unwrap()).await;
    if code != 201 {
        let status: Value = serde_json::from_str(&body).unwrap();
        return Err(format!("{code} {}", status["message"].as_str().unwrap()));
    }
    let issued: IssuedCertificate = serde_json::from_str(&body).unwrap();
    Ok(Door { identity: Some((issued.certificate, key.serialize_pem())), ..by.clone() })
}

pub(crate) fn write_kubeconfig(door: &Door, path: &Path) {
    let (certificate, key) = door.identity.as_ref().unwrap();
    let server = format!("https://{}", door.address);
    let config =
        Kubeconfig { server: &server, authority: &door.authority, user: "u", certificate, key };
    std::fs::write(path, config.render()).unwrap();
}
