//! One TLS connection to the hub, and why it could not be made, in words that say what to do.

use std::{error::Error as _, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use muster_wire::CaPin;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    Identity,
    alert::{Attentive, LastAlert},
};

/// Longest time for TCP and TLS over the worst line.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// Why the hub could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is not HOST:PORT.
    #[error("{0:?} is not an address of a hub: write HOST:PORT")]
    Address(String),
    /// TLS cannot be set up with this identity.
    #[error("this agent's identity cannot be used: {0}")]
    Identity(rustls::Error),
    /// No connection.
    #[error("cannot reach the hub at {hub}: {cause}")]
    Unreachable {
        /// Where.
        hub: String,
        /// Why.
        cause: String,
    },
    /// There was a connection, and it broke.
    #[error("the connection to the hub at {hub} broke: {cause}")]
    Broken {
        /// Where.
        hub: String,
        /// Why.
        cause: String,
    },
    /// Whoever answers is not the hub that this agent knows.
    #[error(
        "what answers at {hub} is not the hub that this agent trusts ({cause}): check the address; \
         if the hub was made anew, join with a new token and a clear state directory"
    )]
    NotOurHub {
        /// Where.
        hub: String,
        /// What the certificate lacks.
        cause: String,
    },
    /// The hub does not know this agent's certificate.
    #[error("the hub at {hub} refuses this agent's certificate: {cause}")]
    NotOurAgent {
        /// Where.
        hub: String,
        /// What the hub's TLS said, and the cure.
        cause: String,
    },
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) channel: Channel,
    hub: String,
    alert: LastAlert,
}

impl Dialled {
    /// What a failed call on this connection means.
    pub(crate) fn explain(&self, status: &tonic::Status) -> DialError {
        match self.alert.get() {
            Some(alert) => refused(&self.hub, *alert),
            None => {
                let cause = chain(status.source().unwrap_or(status));
                DialError::Broken { hub: self.hub.clone(), cause }
            }
        }
    }
}

/// Connects as an enrolled agent.
pub(crate) async fn as_agent(identity: &Identity) -> Result<Dialled, DialError> {
    let mut roots = RootCertStore::empty();
    for authority in &identity.authorities {
        roots.add(authority.clone()).map_err(DialError::Identity)?;
    }
    let config = builder()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key().private())
        .map_err(DialError::Identity)?;
    connect(identity.hub(), config).await
}

/// Connects without a certificate, to a hub of which only the pin is known.
pub(crate) async fn with_pin(hub: &str, pin: CaPin) -> Result<Dialled, DialError> {
    let verifier = Arc::new(PinVerifier { pin, provider: Arc::new(aws_lc_rs::default_provider()) });
    let config =
        builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    connect(hub, config).await
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, DialError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(DialError::Identity)
}

async fn connect(hub: &str, mut config: ClientConfig) -> Result<Dialled, DialError> {
    let address = || DialError::Address(hub.to_owned());
    let (host, _) = hub.rsplit_once(':').ok_or_else(address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| address())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let (target, alert) = (hub.to_owned(), LastAlert::default());
    let heard = alert.clone();
    let dial = move |_: Uri| {
        let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
        let heard = heard.clone();
        async move {
            let tcp = TcpStream::connect(&target).await?;
            tcp.set_nodelay(true)?;
            let stream = connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(Attentive::new(stream, heard)))
        }
    };
    // The scheme is http because TLS is made here, with a verifier that tonic does not offer.
    let endpoint = Endpoint::from_shared(format!("http://{hub}")).map_err(|_| address())?;
    let channel = endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .connect_with_connector(tower::service_fn(dial))
        .await
        .map_err(|error| explain(hub, &error))?;
    Ok(Dialled { channel, hub: hub.to_owned(), alert })
}

fn explain(hub: &str, error: &(dyn std::error::Error + 'static)) -> DialError {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            DialError::NotOurHub { hub: hub.to_owned(), cause: certificate_words(why) }
        }
        Some(rustls::Error::AlertReceived(alert)) => refused(hub, *alert),
        _ => DialError::Unreachable { hub: hub.to_owned(), cause: chain(error) },
    }
}

fn refused(hub: &str, alert: AlertDescription) -> DialError {
    use AlertDescription as Alert;
    let hub = hub.to_owned();
    match alert {
        Alert::CertificateExpired => {
            let cause = "it has expired; join again with a new token".to_owned();
            DialError::NotOurAgent { hub, cause }
        }
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::DecryptError => {
            let cause = format!(
                "it was issued by another hub ({alert:?}); join with a new token and a clear state \
                 directory"
            );
            DialError::NotOurAgent { hub, cause }
        }
        alert => DialError::Unreachable { hub, cause: format!("it ended TLS with {alert:?}") },
    }
}

fn certificate_words(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "another authority signed its certificate".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another address; start the hub with --agents-advertise"
                .to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "its authority is not the one of --ca-pin".to_owned()
        }
        other => format!("its certificate is not valid: {other:?}"),
    }
}

/// The TLS error within an error's causes; I/O errors hide theirs.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(tls) = tls_error(inner)
        {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// Trusts the one authority that is pinned, wherever it stands in the chain that is presented; the
/// rest of the chain must then be valid below it, for the name that was dialled.
#[derive(Debug)]
struct PinVerifier {
    pin: CaPin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refuse = || CertificateError::ApplicationVerificationFailure;
        let pinned = intermediates.iter().find(|der| self.is_pinned(der)).ok_or_else(refuse)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|_| refuse())?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl PinVerifier {
    fn is_pinned(&self, der: &CertificateDer<'_>) -> bool {
        x509_parser::parse_x509_certificate(der)
            .is_ok_and(|(_, c)| CaPin::of(c.tbs_certificate.subject_pki.raw) == self.pin)
    }
}
