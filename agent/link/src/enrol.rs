//! Trades a token for an identity.

use std::path::PathBuf;

use muster_core::{DestinationName, name::NameError, ports::AgentFacts};
use muster_wire::{
    CaPin, PROTOCOL,
    convert::to_facts,
    identity::PinError,
    v1::{EnrolRequest, enrolment_client::EnrolmentClient},
};
use rustls::pki_types::CertificateDer;
use tonic::Code;

use crate::{
    Identity,
    dial::{self, DialError},
    identity::{IdentityError, Key},
};

/// What an enrolment needs.
#[derive(Clone)]
pub struct EnrolOptions {
    /// `HOST:PORT` of the hub.
    pub hub: String,
    /// `sha256:` and the digest of the key of the hub's authority.
    pub ca_pin: String,
    /// The token; never logged.
    pub token: String,
    /// Where the identity is kept.
    pub state_dir: PathBuf,
    /// What the agent says of itself.
    pub facts: AgentFacts,
}

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The pin is not one.
    #[error("--ca-pin: {0}")]
    Pin(#[from] PinError),
    /// The hub was not reached, or is another.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The hub refused; the text says why and what to do.
    #[error("the hub refused to enrol this host: {0}")]
    Refused(String),
    /// The hub could not answer; the same command may succeed later.
    #[error("the hub could not answer ({0}): run the same command again")]
    Unavailable(String),
    /// The hub answered something that is no answer.
    #[error("the hub's answer cannot be used: {0}")]
    Answer(String),
    /// The state directory is of another agent: what that has applied is written down there.
    #[error(
        "the state directory {path} is that of agent {agent} of the hub at {hub}: name an empty one \
         with --state-dir",
        path = path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        agent: DestinationName,
        /// Of which hub.
        hub: String,
    },
    /// The identity cannot be made or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl EnrolError {
    /// Whether a host that has joined before may go on as it is: nothing speaks against it but that
    /// the hub did not take this token, or did not answer.
    pub fn leaves_identity(&self) -> bool {
        let unreachable =
            matches!(self, Self::Dial(DialError::Unreachable { .. } | DialError::Broken { .. }));
        unreachable || matches!(self, Self::Refused(_) | Self::Unavailable(_))
    }
}

impl From<NameError> for EnrolError {
    fn from(error: NameError) -> Self {
        Self::Answer(error.to_string())
    }
}

/// Enrols this host. The key is made and kept first, so that the same command can be run again if
/// the answer is lost.
///
/// A host that has joined before may join again, as the same agent of the same hub: with the same
/// key it gets a new certificate.
pub async fn enrol(options: EnrolOptions) -> Result<Identity, EnrolError> {
    let EnrolOptions { hub, ca_pin, token, state_dir, facts } = options;
    let pin: CaPin = ca_pin.parse()?;
    let held = Identity::load(&state_dir)?;
    let occupied = |held: &Identity| EnrolError::Occupied {
        path: state_dir.clone(),
        agent: held.name().clone(),
        hub: held.hub().to_owned(),
    };
    if let Some(held) = held.as_ref().filter(|held| !held.is_of(pin)) {
        return Err(occupied(held));
    }
    let key = Key::open(&state_dir)?;
    let request = EnrolRequest {
        protocol: PROTOCOL,
        token,
        signing_request: key.signing_request()?,
        facts: Some(to_facts(&facts)),
    };
    let channel = dial::with_pin(&hub, pin).await?.channel;
    let answer = EnrolmentClient::new(channel).enrol(request).await.map_err(refusal)?.into_inner();
    let credentials =
        answer.credentials.ok_or_else(|| EnrolError::Answer("it has no certificate".to_owned()))?;
    let name = DestinationName::parse(&answer.name)?;
    if let Some(held) = held.as_ref().filter(|held| *held.name() != name) {
        return Err(occupied(held));
    }
    let certificate = CertificateDer::from(credentials.certificate);
    let authorities = credentials.hub_authorities.into_iter().map(CertificateDer::from).collect();
    Ok(Identity::keep(&state_dir, name, hub, key, certificate, authorities)?)
}

fn refusal(status: tonic::Status) -> EnrolError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            EnrolError::Unavailable(message)
        }
        _ => EnrolError::Refused(message),
    }
}
