//! A client that costs little: raw hyper over TLS, bodies made beforehand, answers only counted.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Of a refusal so much is shown.
const SHOWN_BYTES: usize = 500;

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct Access {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// One request, ready to be sent again and again.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Content type and body.
    pub(crate) body: Option<(&'static str, Bytes)>,
    pub(crate) accept: &'static str,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Ask {
        Ask { method: Method::GET, path: path.into(), body: None, accept: "application/json" }
    }

    pub(crate) fn with(
        method: Method,
        path: impl Into<String>,
        body: (&'static str, Bytes),
    ) -> Ask {
        Ask { method, body: Some(body), ..Ask::get(path) }
    }
}

impl Access {
    /// By the PEMs of the authority, and of the client's certificate and key.
    pub(crate) fn new(
        address: SocketAddr,
        ca: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Access> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca)?)?;
        let certificate = CertificateDer::from_pem_slice(certificate)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_slice(key)?)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Access { address, tls: Arc::new(tls) })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, socket).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.address.to_string() })
    }
}

/// One kept-alive connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Asks, and reads the answer to its end: how many bytes it has.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<usize> {
        let mut body = self.open(ask).await?;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }

    /// Asks, and returns the answer whole.
    pub(crate) async fn read(&mut self, ask: &Ask) -> Result<Bytes> {
        Ok(self.open(ask).await?.collect().await?.to_bytes())
    }

    /// Asks, and returns the answer's body as soon as it begins.
    pub(crate) async fn open(&mut self, ask: &Ask) -> Result<Incoming> {
        self.sender.ready().await?;
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(&ask.path)
            .header(header::HOST, &self.host)
            .header(header::ACCEPT, ask.accept)
            .header(header::USER_AGENT, "bench/1");
        if let Some((media, _)) = &ask.body {
            request = request.header(header::CONTENT_TYPE, *media);
        }
        let body = ask.body.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        if !status.is_success() {
            let text = response.into_body().collect().await?.to_bytes();
            let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN_BYTES)]).into_owned();
            bail!("{} {}: {status}: {shown}", ask.method, ask.path);
        }
        Ok(response.into_body())
    }

    /// A JSON field of an answer.
    pub(crate) async fn field(&mut self, ask: &Ask, pointer: &str) -> Result<String> {
        let value: serde_json::Value = serde_json::from_slice(&self.read(ask).await?)?;
        let text = value.pointer(pointer).and_then(serde_json::Value::as_str);
        Ok(text.with_context(|| format!("{} has no {pointer}", ask.path))?.to_owned())
    }
}
