//! The hub's own certificate authority: made once, kept in the data directory, asked by nobody else.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_core::{DestinationName, Digest};
use muster_daemon::durable::{self, DurableError};
use muster_wire::{CaPin, identity::AGENT_URI_PREFIX};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKey, PublicKeyData, SanType,
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use crate::config::{AGENT_CERTIFICATE_LIFE, AUTHORITY_LIFE, CLOCK_SKEW, SERVER_CERTIFICATE_LIFE};

/// Signs agents' certificates and the gateway's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: CaPin,
}

/// A request for a certificate whose signature proves that the asker has the key.
pub(crate) struct SigningRequest {
    key: PublicKey,
    /// The digest of its SubjectPublicKeyInfo.
    pub(crate) key_digest: Digest,
}

/// A certificate for an agent.
pub(crate) struct Issued {
    pub(crate) certificate: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
}

/// Why the authority cannot be opened or cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] DurableError),
    /// A file does not hold what it should.
    #[error("{path} does not hold the hub's authority: {cause}; restore it from a backup", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in the hub's certificate: {cause}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Sign(#[from] rcgen::Error),
    /// The key of a new certificate cannot be used.
    #[error("cannot use the hub's own key: {0}")]
    Key(#[from] rustls::Error),
}

impl Authority {
    /// Opens the authority in `dir`, making it at the first start.
    ///
    /// The key is written first: an authority whose certificate was lost to a crash is made again
    /// with the same key, and so with the same pin.
    pub(crate) fn open(dir: &Path) -> Result<Self, AuthorityError> {
        durable::private_dir(dir)?;
        let (key_file, certificate_file) = (dir.join("ca.key"), dir.join("ca.crt"));
        let key = match read(&key_file)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|e| damaged(&key_file, &e))?,
            None => {
                let key = KeyPair::generate()?;
                durable::write(&key_file, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let public_key = key.subject_public_key_info();
        let pem = match read(&certificate_file)? {
            Some(pem) => pem,
            None => {
                let pem = params()?.self_signed(&key)?.pem();
                durable::write(&certificate_file, pem.as_bytes())?;
                pem
            }
        };
        let certificate = certificate(&pem).map_err(|cause| damaged(&certificate_file, &cause))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|e| damaged(&certificate_file, &e))?;
        if parsed.tbs_certificate.subject_pki.raw != public_key {
            return Err(damaged(&certificate_file, &"it is not the certificate of ca.key"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, pem, pin: CaPin::of(&public_key) })
    }

    /// The certificate as PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate as DER.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What agents pin.
    pub(crate) fn pin(&self) -> CaPin {
        self.pin
    }

    /// Signs a certificate that names an agent, and can do nothing but be a client.
    pub(crate) fn issue(
        &self,
        agent: &DestinationName,
        request: &SigningRequest,
    ) -> Result<Issued, AuthorityError> {
        let mut params = CertificateParams::default();
        let now = SystemTime::now();
        (params.not_before, params.not_after) =
            ((now - CLOCK_SKEW).into(), (now + AGENT_CERTIFICATE_LIFE).into());
        params.distinguished_name.push(DnType::CommonName, agent.as_str());
        let uri = format!("{AGENT_URI_PREFIX}{agent}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.key, &self.issuer)?.der().to_vec();
        Ok(Issued { certificate, not_after: seconds(now + AGENT_CERTIFICATE_LIFE) })
    }

    /// A new certificate and key for the gateway itself; the chain ends with the authority, so that
    /// an agent that knows only the pin can find it.
    pub(crate) fn serve_as(&self, names: &[String]) -> Result<CertifiedKey, AuthorityError> {
        let mut params = CertificateParams::default();
        for name in names {
            let wrong = |cause: rcgen::Error| AuthorityError::Name {
                name: name.clone(),
                cause: cause.to_string(),
            };
            let one = CertificateParams::new(vec![name.clone()]).map_err(wrong)?;
            params.subject_alt_names.extend(one.subject_alt_names);
        }
        let now = SystemTime::now();
        (params.not_before, params.not_after) =
            ((now - CLOCK_SKEW).into(), (now + SERVER_CERTIFICATE_LIFE).into());
        params.distinguished_name.push(DnType::CommonName, "muster hub");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = aws_lc_rs::sign::any_supported_type(&key)?;
        Ok(CertifiedKey::new(vec![certificate, self.certificate.clone()], key))
    }
}

impl SigningRequest {
    /// Reads PKCS#10 and checks its signature. Whatever names it asks for are ignored.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        let request = CertificateSigningRequestParams::from_der(&der.to_vec().into())
            .map_err(|error| format!("the signing request cannot be used: {error}"))?;
        let key = request.public_key;
        if ![&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519].contains(&key.algorithm()) {
            return Err("the key must be ECDSA P-256 or Ed25519".to_owned());
        }
        let key_digest = Digest::of(&key.subject_public_key_info());
        Ok(Self { key, key_digest })
    }
}

/// A resolver that serves one certificate, whatever name is asked for: there is one hub.
#[derive(Debug)]
pub(crate) struct Current(arc_swap::ArcSwap<CertifiedKey>);

impl Current {
    pub(crate) fn new(key: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(arc_swap::ArcSwap::from_pointee(key)))
    }

    pub(crate) fn replace(&self, key: CertifiedKey) {
        self.0.store(Arc::new(key));
    }
}

impl rustls::server::ResolvesServerCert for Current {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn params() -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    (params.not_before, params.not_after) =
        ((now - CLOCK_SKEW).into(), (now + AUTHORITY_LIFE).into());
    // The time tells two authorities of one hub apart.
    let name = format!("muster agents authority {}", seconds(now));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, rustls::pki_types::pem::Error> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes())
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(AuthorityError::Read { path: path.to_owned(), cause }),
    }
}

fn damaged(path: &Path, cause: &impl ToString) -> AuthorityError {
    AuthorityError::Damaged { path: path.to_owned(), cause: cause.to_string() }
}
