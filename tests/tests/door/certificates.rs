//! The agent's certificate: of another hub, expired, renewed in time.

use std::{fs, path::Path, time::SystemTime};

use muster_wire::identity::AGENT_URI_PREFIX;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use tempfile::TempDir;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Gives an enrolled agent another certificate of its hub, valid from `age` ago until `end`.
fn reissue(hub_dir: &Path, state_dir: &Path, age: Duration, end: SystemTime) {
    let authority = |file| fs::read_to_string(hub_dir.join("agents-ca").join(file)).unwrap();
    let key = KeyPair::from_pem(&authority("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&authority("ca.crt"), key).unwrap();
    let key = PrivatePkcs8KeyDer::from(fs::read(state_dir.join("identity/key.der")).unwrap());
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = ((SystemTime::now() - age).into(), end.into());
    params.distinguished_name.push(DnType::CommonName, "vm-1");
    let uri = format!("{AGENT_URI_PREFIX}vm-1").try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&KeyPair::try_from(&key).unwrap(), &issuer).unwrap();
    change(state_dir, "certificate", &hex::encode(certificate.der()).into());
}

fn stored(state_dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(state_dir.join("identity/identity.json")).unwrap()).unwrap()
}

/// Changes one field of what an enrolled agent has kept.
fn change(state_dir: &Path, field: &str, value: &serde_json::Value) {
    let mut identity = stored(state_dir);
    identity[field] = value.clone();
    fs::write(state_dir.join("identity/identity.json"), identity.to_string()).unwrap();
}

/// Runs the agent of this directory until it is not let in; what it is told.
async fn refused(state_dir: &Path) -> String {
    let mut agent = Agent::start(Identity::load(state_dir).unwrap().unwrap(), None);
    match agent.next().await {
        LinkEvent::Refused { cause, .. } => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_hears_that_its_certificate_is_of_another_hub() {
    let (hub_dir, other_dir, agent_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (hub, other) = (Hub::new(&hub_dir).await, Hub::new(&other_dir).await);
    other.join(agent_dir.path(), TOKEN).await.unwrap();
    // It trusts this hub, and shows the certificate of the other.
    let authority = fs::read(hub_dir.path().join("agents-ca/ca.crt")).unwrap();
    let authority = CertificateDer::from_pem_slice(&authority).unwrap();
    change(agent_dir.path(), "authorities", &vec![hex::encode(authority)].into());
    change(agent_dir.path(), "hub", &hub.address.clone().into());
    let why = refused(agent_dir.path()).await;
    assert!(
        why.contains("issued by another hub") && why.contains("join with a new token"),
        "{why}"
    );
    assert_eq!(hub.house.seen.borrow().admitted, 0);
}

#[tokio::test]
async fn an_agent_hears_that_its_certificate_has_expired() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    reissue(hub_dir.path(), agent_dir.path(), HOUR, SystemTime::now() - HOUR / 2);
    let why = refused(agent_dir.path()).await;
    assert!(why.contains("has expired") && why.contains("join again with a new token"), "{why}");
    // Which is what helps.
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), None);
    agent.assigned().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_within_the_session_before_it_ends() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    // Less than a fifth of its life is left, and seconds until the hub cuts the session.
    let end = SystemTime::now() + Duration::from_secs(8);
    reissue(hub_dir.path(), agent_dir.path(), HOUR, end);
    let short = stored(agent_dir.path());
    let mut agent = Agent::start(Identity::load(agent_dir.path()).unwrap().unwrap(), None);
    agent.assigned().await;
    let renewed = soon(async {
        loop {
            let now = stored(agent_dir.path());
            if now["certificate"] != short["certificate"] {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(renewed.await["name"], short["name"]);
    // The session outlives the old certificate.
    while SystemTime::now() < end + Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    hub.house.assign(|_| {});
    agent.assigned().await;
    assert_eq!(hub.house.seen.borrow().sessions, 1, "the session ended");
    // And the new one opens the next.
    drop(agent);
    let mut again = Agent::start(Identity::load(agent_dir.path()).unwrap().unwrap(), None);
    again.assigned().await;
}
