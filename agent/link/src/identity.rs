//! Who the agent is: its key, its certificate, and the authorities of the hub that it trusts.
//!
//! On disk: `identity/key.der` (made first, never sent) and `identity/identity.json` (written
//! whole when the hub has answered), both readable by their owner only.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_core::DestinationName;
use muster_daemon::durable;
use muster_wire::CaPin;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

/// An enrolled agent.
#[derive(Debug, Clone)]
pub struct Identity {
    name: DestinationName,
    hub: String,
    dir: PathBuf,
    key: Arc<Key>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
}

/// The agent's own key; it never leaves this host.
#[derive(Debug)]
pub(crate) struct Key(KeyPair);

/// What is kept in `identity.json`; bytes are hexadecimal DER.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: DestinationName,
    hub: String,
    certificate: String,
    authorities: Vec<String>,
}

/// Why the identity cannot be read, made or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file is not what this agent wrote.
    #[error("{path} is damaged ({cause}): remove the agent on the hub, clear {dir}, join again",
        path = path.display(), dir = path.parent().unwrap_or(path).display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] durable::DurableError),
    /// No key or signing request can be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

impl Identity {
    /// The identity in a state directory; `None` before enrolment.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let dir = directory(state_dir);
        let path = dir.join("identity.json");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |cause: String| IdentityError::Damaged { path: path.clone(), cause };
        let stored: Stored =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let der = |text: &str| {
            let bytes = hex::decode(text).map_err(|error| damaged(error.to_string()))?;
            Ok::<_, IdentityError>(CertificateDer::from(bytes))
        };
        let key = Key::load(&dir)?.ok_or_else(|| damaged("key.der is missing".to_owned()))?;
        Ok(Some(Self {
            certificate: der(&stored.certificate)?,
            authorities: stored.authorities.iter().map(|a| der(a)).collect::<Result<_, _>>()?,
            name: stored.name,
            hub: stored.hub,
            dir,
            key: Arc::new(key),
        }))
    }

    /// A new identity, kept on the disk.
    pub(crate) fn keep(
        state_dir: &Path,
        name: DestinationName,
        hub: String,
        key: Key,
        certificate: CertificateDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let dir = directory(state_dir);
        let identity = Self { name, hub, dir, key: Arc::new(key), certificate, authorities };
        identity.write()?;
        Ok(identity)
    }

    /// This identity with a new certificate, kept on the disk.
    pub(crate) fn renewed(
        &self,
        certificate: CertificateDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let identity = Self { certificate, authorities, ..self.clone() };
        identity.write()?;
        Ok(identity)
    }

    /// The agent's name, and its destination's.
    pub fn name(&self) -> &DestinationName {
        &self.name
    }

    /// `HOST:PORT` of the hub.
    pub fn hub(&self) -> &str {
        &self.hub
    }

    /// Whether it is of the hub whose authority has this pin.
    pub(crate) fn is_of(&self, pin: CaPin) -> bool {
        self.authorities.iter().any(|authority| {
            x509_parser::parse_x509_certificate(authority)
                .is_ok_and(|(_, parsed)| CaPin::of(parsed.tbs_certificate.subject_pki.raw) == pin)
        })
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    fn write(&self) -> Result<(), IdentityError> {
        let stored = Stored {
            name: self.name.clone(),
            hub: self.hub.clone(),
            certificate: hex::encode(&self.certificate),
            authorities: self.authorities.iter().map(hex::encode).collect(),
        };
        let path = self.dir.join("identity.json");
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| IdentityError::Damaged {
            path: path.clone(),
            cause: error.to_string(),
        })?;
        Ok(durable::write(&path, &text)?)
    }
}

impl Key {
    /// The key in a state directory, made where there is none: an enrolment whose answer was lost
    /// asks again with the same key.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let dir = directory(state_dir);
        durable::private_dir(&dir)?;
        if let Some(key) = Self::load(&dir)? {
            return Ok(key);
        }
        let key = KeyPair::generate()?;
        durable::write(&dir.join("key.der"), &key.serialize_der())?;
        Ok(Self(key))
    }

    fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join("key.der");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let der = PrivatePkcs8KeyDer::from(bytes);
        let key = KeyPair::try_from(&der)
            .map_err(|error| IdentityError::Damaged { path, cause: error.to_string() })?;
        Ok(Some(Self(key)))
    }

    /// A PKCS#10 signing request; it asks for no name, because the hub decides that.
    pub(crate) fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        let request = CertificateParams::default().serialize_request(&self.0)?;
        Ok(request.der().to_vec())
    }

    /// For TLS.
    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(IdentityError::Read { path: path.to_owned(), cause }),
    }
}
