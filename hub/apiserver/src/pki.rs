//! The server's own certificate authority: made at the first start, kept in the data directory
//! (0600), issuing the serving certificate and client certificates.

mod client;

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The files that a server needs to be the same one elsewhere, within its data directory: its
/// authority, and the key of its tokens.
pub(crate) const FILES: [&str; 3] = ["pki/ca.key", "pki/ca.crt", "pki/service-accounts.key"];

/// Lives of certificates: the CA's bounds everything; the serving certificate is made anew at
/// each start; an admin's lasts a year.
const CA_DAYS: i64 = 3650;
const SERVING_DAYS: i64 = 365;
const ADMIN_DAYS: i64 = 365;

/// Clocks of clients may be behind by so much.
const SKEW_SECONDS: i64 = 3600;

/// The certificate authority cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    #[error("cannot read or write {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// The certificate authority and the server's TLS configuration.
pub(crate) struct Pki {
    ca_pem: String,
    /// The authority's name, in DER.
    name: Vec<u8>,
    key: KeyPair,
    tls: Arc<ServerConfig>,
}

/// A client's certificate and key, in PEM.
pub(crate) struct Client {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    /// Reads the authority from `dir`, or makes it there. `names`: further names and addresses
    /// under which the server is reached.
    pub(crate) fn open(dir: &Path, names: &[String]) -> Result<Pki, PkiError> {
        let make_dir = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        make_dir.map_err(|source| PkiError::File { path: dir.to_owned(), source })?;
        let (key_path, ca_path) = (dir.join("ca.key"), dir.join("ca.crt"));
        let key = match read(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem)?,
            None => {
                let key = KeyPair::generate()?;
                write_private(&key_path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let ca_pem = match read(&ca_path)? {
            Some(pem) => pem,
            None => {
                let pem = authority()?.self_signed(&key)?.pem();
                write_private(&ca_path, pem.as_bytes())?;
                pem
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, &key)?;
        let tls = Arc::new(server_config(&ca_pem, &issuer, names)?);
        let der = der_of(&ca_pem)?;
        let (_, authority) =
            X509Certificate::from_der(&der).map_err(|error| PkiError::Tls(error.to_string()))?;
        let name = authority.subject().as_raw().to_vec();
        Ok(Pki { ca_pem, name, key, tls })
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(crate) fn tls(&self) -> Arc<ServerConfig> {
        self.tls.clone()
    }

    /// Makes a key and a certificate for an administrator.
    pub(crate) fn issue_admin(&self, user: &str, groups: &[String]) -> Result<Client, PkiError> {
        let key = KeyPair::generate()?;
        let life = SignedDuration::from_hours(ADMIN_DAYS * 24);
        let public = key.subject_public_key_info();
        let certificate = self.certify(user, groups, Timestamp::now() + life, &public)?;
        Ok(Client { certificate, key: key.serialize_pem() })
    }

    /// A certificate (PEM) for a user in groups, for the key (`SubjectPublicKeyInfo`).
    pub(crate) fn certify(
        &self,
        user: &str,
        groups: &[String],
        until: Timestamp,
        key: &[u8],
    ) -> Result<String, PkiError> {
        let from = Timestamp::now() - SignedDuration::from_secs(SKEW_SECONDS);
        let subject = client::Subject { user, groups, from, until, key };
        Ok(pem(&client::certificate(&subject, &self.name, &self.key)?))
    }
}

/// The public key of a certificate signing request (PEM) that was signed with it. Its other
/// wishes do not count.
pub(crate) fn requested_key(request: &str) -> Result<Vec<u8>, rcgen::Error> {
    Ok(CertificateSigningRequestParams::from_pem(request)?.public_key.subject_public_key_info())
}

/// Letters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(PEM_LINE) {
        text.extend(line.iter().map(|&letter| char::from(letter)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Writes a file that only its owner may read; whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { path: path.to_owned(), source };
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.to_owned(), source }),
    }
}

fn authority() -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "muster-api-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, CA_DAYS);
    Ok(params)
}

fn set_life(params: &mut CertificateParams, days: i64) {
    let now = std::time::SystemTime::now();
    let seconds = |count: i64| std::time::Duration::from_secs(count.unsigned_abs());
    params.not_before = (now - seconds(SKEW_SECONDS)).into();
    params.not_after = (now + seconds(days * 24 * 3600)).into();
}

fn server_config(
    ca_pem: &str,
    issuer: &Issuer<'_, &KeyPair>,
    names: &[String],
) -> Result<ServerConfig, PkiError> {
    let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
    let key = KeyPair::generate()?;
    let certificate = serving(names)?.signed_by(&key, issuer)?;
    let mut roots = RootCertStore::empty();
    roots.add(der_of(ca_pem)?).map_err(|error| tls(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| tls(&error))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(|error| tls(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn serving(names: &[String]) -> Result<CertificateParams, PkiError> {
    let usual = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let hosts: Vec<String> = usual
        .into_iter()
        .map(str::to_owned)
        .chain(names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned())
        .collect();
    let mut params = CertificateParams::new(hosts)?;
    let local = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])];
    let named = names.iter().filter_map(|name| name.parse::<IpAddr>().ok());
    params.subject_alt_names.extend(local.into_iter().chain(named).map(SanType::IpAddress));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "muster-api");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    set_life(&mut params, SERVING_DAYS);
    Ok(params)
}

fn der_of(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| PkiError::Tls(error.to_string()))
}
