//! Connections to a served API without a client library between: what a client may do that no
//! library would.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where a server is and as whom it is spoken to.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    /// A certificate and its key, in PEM; `None`: nobody.
    pub(crate) identity: Option<(String, String)>,
}

pub(crate) type Sender1 = http1::SendRequest<Full<Bytes>>;
pub(crate) type Sender2 = http2::SendRequest<Full<Bytes>>;

impl Door {
    /// What a kubeconfig of ours says.
    pub(crate) fn of(kubeconfig: &str) -> Door {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let config: serde_json::Value = serde_json::from_str(kubeconfig).unwrap();
        let pem = |value: &serde_json::Value| {
            String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
        };
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let server = cluster["server"].as_str().unwrap();
        Door {
            address: server.strip_prefix("https://").unwrap().parse().unwrap(),
            authority: pem(&cluster["certificate-authority-data"]),
            identity: Some((pem(&user["client-certificate-data"]), pem(&user["client-key-data"]))),
        }
    }

    pub(crate) fn nobody(&self) -> Door {
        Door { identity: None, ..self.clone() }
    }

    /// A TLS connection on which nothing has been said.
    pub(crate) async fn connect(&self, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }

    pub(crate) async fn http1(&self) -> Sender1 {
        let stream = self.connect(b"http/1.1").await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub(crate) async fn http2(&self) -> Sender2 {
        let stream = self.connect(b"h2").await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// One request on a connection of its own: the code and the body.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> (u16, String) {
        let mut sender = self.http1().await;
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status().as_u16();
        (code, text(answer).await)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.send(get(path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> (u16, String) {
        self.send(with_body("POST", path, "application/json", body)).await
    }
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(uri(path)).header("host", "localhost").body(Full::default()).unwrap()
}

pub(crate) fn with_body(
    method: &str,
    path: &str,
    media: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(uri(path))
        .header("host", "localhost")
        .header("content-type", media)
        .body(Full::new(body.into()))
        .unwrap()
}

/// With a host, as HTTP/2 wants it; HTTP/1.1 servers take it, too.
fn uri(path: &str) -> String {
    format!("https://localhost{path}")
}

pub(crate) async fn text(answer: Response<Incoming>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}
