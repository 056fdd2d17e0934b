//! Peers that break the rules, speaking the protocol by hand.

use std::{path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use muster_wire::v1::{
    ContentRequest, EnrolRequest, Facts, FromAgent, FromHub, Goodbye, Hello, Pulse, Reports,
    enrolment_client::EnrolmentClient, from_agent, from_hub, link_client::LinkClient,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::{Hub, TOKEN, soon};

/// A certificate and its key.
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

async fn dial(hub: &Hub, hub_dir: &Path, shown: Option<Shown>) -> Channel {
    let mut roots = RootCertStore::empty();
    let authority = std::fs::read(hub_dir.join("agents-ca/ca.crt")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, address) = (TlsConnector::from(Arc::new(config)), hub.address.clone());
    let dial = move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    };
    Endpoint::from_static("http://hub")
        .connect_with_connector(tower::service_fn(dial))
        .await
        .unwrap()
}

/// What the agent that has joined with this state directory would show.
fn shown(state_dir: &TempDir) -> Shown {
    let dir = state_dir.path().join("identity");
    let identity = std::fs::read(dir.join("identity.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_slice(&identity).unwrap();
    let certificate = hex::decode(identity["certificate"].as_str().unwrap()).unwrap();
    let key = std::fs::read(dir.join("key.der")).unwrap();
    (vec![certificate.into()], PrivatePkcs8KeyDer::from(key).into())
}

fn message(message: from_agent::Message) -> FromAgent {
    FromAgent { message: Some(message) }
}

async fn session(
    channel: Channel,
    first: from_agent::Message,
) -> Result<(mpsc::Sender<FromAgent>, Streaming<FromHub>), Status> {
    let (sender, sent) = mpsc::channel(8);
    sender.try_send(message(first)).unwrap();
    let call = LinkClient::new(channel).session(ReceiverStream::new(sent)).await?;
    Ok((sender, call.into_inner()))
}

fn hello(protocol: u32) -> from_agent::Message {
    from_agent::Message::Hello(Hello { protocol, ..Hello::default() })
}

/// The hub's last words.
async fn goodbye(inbound: &mut Streaming<FromHub>) -> Goodbye {
    loop {
        let next = soon(inbound.message()).await.unwrap().expect("it ended without a goodbye");
        if let Some(from_hub::Message::Goodbye(goodbye)) = next.message {
            return goodbye;
        }
    }
}

#[tokio::test]
async fn without_a_certificate_only_enrolment_answers() {
    let hub_dir = TempDir::new().unwrap();
    let hub = Hub::new(&hub_dir).await;
    let channel = dial(&hub, hub_dir.path(), None).await;
    let refused = session(channel.clone(), hello(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let refused = LinkClient::new(channel.clone())
        .fetch_content(ContentRequest { digest: vec![0; 32] })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let facts = Facts { hostname: "x".repeat(100_000), ..Facts::default() };
    let request = EnrolRequest {
        protocol: 1,
        token: TOKEN.to_owned(),
        signing_request: b"none".to_vec(),
        facts: Some(facts),
    };
    let refused = EnrolmentClient::new(channel.clone()).enrol(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let small = EnrolRequest { facts: None, ..request };
    let refused = EnrolmentClient::new(channel).enrol(small).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[tokio::test]
async fn a_certificate_of_another_hub_ends_the_connection() {
    let (hub_dir, other_dir, agent_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (hub, other) = (Hub::new(&hub_dir).await, Hub::new(&other_dir).await);
    other.join(agent_dir.path(), TOKEN).await.unwrap();
    let channel = dial(&hub, hub_dir.path(), Some(shown(&agent_dir))).await;
    session(channel, hello(1)).await.unwrap_err();
    assert_eq!(hub.house.seen.borrow().admitted, 0);
}

#[tokio::test]
async fn a_session_begins_with_one_hello_of_a_known_version() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let channel = async || dial(&hub, hub_dir.path(), Some(shown(&agent_dir))).await;
    let pulse = from_agent::Message::Pulse(Pulse {});
    let refused = session(channel().await, pulse).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let refused = session(channel().await, hello(0)).await.unwrap_err();
    assert!(refused.message().contains("upgrade the older"), "{refused}");
    let (sender, mut inbound) = session(channel().await, hello(1)).await.unwrap();
    sender.send(message(hello(1))).await.unwrap();
    assert!(goodbye(&mut inbound).await.message.contains("said once"));
}

#[tokio::test]
async fn a_silent_agent_is_cut() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let channel = dial(&hub, hub_dir.path(), Some(shown(&agent_dir))).await;
    let (_sender, mut inbound) = session(channel, hello(1)).await.unwrap();
    assert!(goodbye(&mut inbound).await.message.contains("too long"));
    hub.house.wait(|seen| seen.live.is_empty() && seen.sessions == 1).await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_session() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let channel = dial(&hub, hub_dir.path(), Some(shown(&agent_dir))).await;
    let (sender, mut inbound) = session(channel, hello(1)).await.unwrap();
    let large = muster_wire::v1::PlacementReport {
        message: "x".repeat(muster_wire::limits::FROM_AGENT_MESSAGE_MAX),
        ..Default::default()
    };
    let reports = Reports { sequence: 1, reports: vec![large] };
    sender.send(message(from_agent::Message::Reports(reports))).await.unwrap();
    goodbye(&mut inbound).await;
    assert!(hub.house.seen.borrow().reports.is_empty());
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_left_out_and_the_session_goes_on() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let channel = dial(&hub, hub_dir.path(), Some(shown(&agent_dir))).await;
    let (sender, mut inbound) = session(channel, hello(1)).await.unwrap();
    let good = super::report("web", muster_core::Phase::Applied);
    let bad = muster_wire::v1::PlacementReport { phase: 99, ..Default::default() };
    let reports = vec![bad, muster_wire::convert::to_report(&good)];
    let reports = Reports { sequence: 5, reports };
    sender.send(message(from_agent::Message::Reports(reports))).await.unwrap();
    loop {
        let next = soon(inbound.message()).await.unwrap().expect("the session ended");
        if let Some(from_hub::Message::ReportsTaken(taken)) = next.message {
            assert_eq!(taken.sequence, 5);
            break;
        }
    }
    assert_eq!(hub.house.seen.borrow().reports, [good]);
}
