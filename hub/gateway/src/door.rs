//! The listener: TLS, limits of connections, and each connection's life.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use muster_core::Assignment;
use muster_daemon::{OnError, Tasks};
use muster_wire::{
    CaPin,
    limits::{ENROL_MESSAGE_MAX, FROM_AGENT_MESSAGE_MAX},
    v1::{enrolment_server::EnrolmentServer, link_server::LinkServer},
};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service;
use tracing::{debug, info, warn};

use crate::{
    authority::{Authority, AuthorityError, Current},
    config::{
        CALLS_PER_CONNECTION_MAX, CONNECTIONS_MAX, DOWNLOADS_MAX, FAREWELL_TIME_MAX, GatewayConfig,
        HANDSHAKE_TIME_MAX, HANDSHAKES_MAX, Ports, SERVER_CERTIFICATE_PERIOD, SESSIONLESS_TIME_MAX,
    },
    enrolment::Enrol,
    link::Sessions,
    peer::Peer,
    roster::{ConnectionPlace, Roster},
};

/// Most bytes of the header fields of one call: gRPC needs a few hundred.
const HEADERS_MAX: u32 = 8 << 10;
/// Bytes that an agent may send before the gateway has read them, for each call.
const WINDOW: u32 = 64 << 10;
/// Bytes that wait in memory to be sent on one call.
const SEND_BUFFER_MAX: usize = 64 << 10;

/// The door, bound and not yet open.
pub struct Gateway {
    config: GatewayConfig,
    listener: TcpListener,
    local_addr: SocketAddr,
    names: Vec<String>,
    authority: Authority,
    ports: Ports,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address cannot be listened on.
    #[error("cannot listen for agents on {address}: {cause}; choose another with --agents-listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The authority cannot be opened.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS for agents: {0}")]
    Tls(String),
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) authority: Authority,
    pub(crate) ports: Ports,
    pub(crate) roster: Arc<Roster>,
    pub(crate) pulse: Duration,
    /// Which process this is, by chance.
    pub(crate) instance: u64,
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: CancellationToken,
}

/// One connection; every call on it carries this among its extensions.
#[derive(Debug)]
pub(crate) struct Connection {
    /// `None` without a client certificate: it may only enrol.
    pub(crate) peer: Option<Peer>,
    pub(crate) from: SocketAddr,
    /// When its certificate ends (seconds since 1970); a renewal moves it.
    pub(crate) not_after: AtomicI64,
    /// Whether it has a session: without one it may not stay.
    pub(crate) in_session: AtomicBool,
    /// The assignment that its session has shown: what it may download. `None` before the first and
    /// after the end.
    pub(crate) shown: watch::Sender<Option<Arc<Assignment>>>,
    /// Ends the connection, last words included.
    pub(crate) cut: CancellationToken,
}

impl Gateway {
    /// Opens the authority and binds the port, so that its number is known before anything runs.
    pub async fn build(config: GatewayConfig, ports: Ports) -> Result<Self, BuildError> {
        let authority = Authority::open(&config.data_dir.join("agents-ca"))?;
        let address = config.listen;
        let refuse = |cause| BuildError::Listen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let local_addr = listener.local_addr().map_err(refuse)?;
        let names = names(&config, local_addr.ip());
        // A name that cannot stand in a certificate is told now.
        authority.serve_as(&names)?;
        Ok(Self { config, listener, local_addr, names, authority, ports })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// `HOST:PORT` that agents are told to dial.
    pub fn address(&self) -> String {
        let port = self.local_addr.port();
        match self.config.advertise.first() {
            Some(name) if split_port(name).1.is_some() => name.clone(),
            Some(name) if name.contains(':') => format!("[{name}]:{port}"),
            Some(name) => format!("{name}:{port}"),
            None if self.local_addr.ip().is_unspecified() => format!("127.0.0.1:{port}"),
            None => self.local_addr.to_string(),
        }
    }

    /// The certificate of the authority, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// What an agent that joins pins.
    pub fn ca_pin(&self) -> CaPin {
        self.authority.pin()
    }

    /// Serves until `shutdown`, then says goodbye to every session.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BuildError> {
        let certificate = Current::new(self.authority.serve_as(&self.names)?);
        let acceptor = acceptor(&self.authority, certificate.clone())?;
        let tasks = Tasks::new(shutdown.clone());
        let shared = Arc::new(Shared {
            authority: self.authority,
            ports: self.ports,
            roster: Roster::new(),
            pulse: self.config.pulse,
            instance: rand::random(),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        });
        let renewal = renew_server_certificate(shared.clone(), certificate, self.names);
        tasks.spawn("agents-certificate", OnError::Log, renewal);
        accept(&self.listener, acceptor, &shared).await;
        drop(self.listener);
        // No task of the gateway triggers the shutdown, so there is no failure to pass on.
        let _ = tasks.join(FAREWELL_TIME_MAX * 2).await;
        Ok(())
    }
}

async fn accept(listener: &TcpListener, acceptor: TlsAcceptor, shared: &Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let routes = routes(shared);
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: waiting lets others end.
                warn!(%error, "Cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = connections.clone().try_acquire_owned() else {
            warn!(%from, limit = CONNECTIONS_MAX, "Too many connections: refused one");
            continue;
        };
        let Ok(turn) = handshakes.clone().acquire_owned().await else { return };
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        let owner = shared.clone();
        shared.tasks.spawn("agent-connection", OnError::Log, async move {
            if let Some((stream, connection)) = greet(stream, from, acceptor, turn).await {
                serve(stream, connection, routes, &owner).await;
            }
            drop(place);
            Ok(())
        });
    }
}

/// The handshake; what goes wrong in it is told here, since the other side may only see it end.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    turn: OwnedSemaphorePermit,
) -> Option<(TlsStream<TcpStream>, Arc<Connection>)> {
    // Small messages must not wait for each other; failing to say so only makes them slower.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tell_refused(from, &error);
            return None;
        }
        Err(_) => {
            debug!(%from, "No handshake in time");
            return None;
        }
    };
    drop(turn);
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = match certificate.map(Peer::from_certificate).transpose() {
        Ok(peer) => peer,
        Err(error) => {
            warn!(%from, %error, "Refused a connection");
            return None;
        }
    };
    let not_after = peer.as_ref().map_or(i64::MAX, |peer| peer.not_after);
    let connection = Connection {
        peer,
        from,
        not_after: AtomicI64::new(not_after),
        in_session: AtomicBool::new(false),
        shown: watch::Sender::default(),
        cut: CancellationToken::new(),
    };
    Some((stream, Arc::new(connection)))
}

fn tell_refused(from: SocketAddr, error: &io::Error) {
    use rustls::{AlertDescription, CertificateError, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let why = match cause {
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => {
            "the agent's certificate is of another hub: join it to this one, with an empty state \
             directory and a token of this hub"
        }
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "the agent's certificate has expired: join it again with a new token",
        Some(Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate,
        )) => {
            "the agent does not trust this hub's authority: it enrolled with another hub, or this \
             hub's data directory is new"
        }
        _ => return debug!(%from, %error, "No handshake"),
    };
    warn!(%from, %error, why, "Refused a connection");
}

/// Serves one connection until its session ends, or for a while if it has none.
async fn serve(
    stream: TlsStream<TcpStream>,
    connection: Arc<Connection>,
    routes: Routes,
    shared: &Arc<Shared>,
) {
    let from = connection.from;
    let _place: Option<ConnectionPlace> = match &connection.peer {
        None => None,
        Some(peer) => match shared.roster.connect(&peer.agent) {
            Some(place) => Some(place),
            None => return warn!(agent = %peer.agent, %from, "Too many connections of one agent"),
        },
    };
    let carried = connection.clone();
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(carried.clone());
        routes.clone().call(request)
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 2)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADERS_MAX)
        .max_send_buf_size(SEND_BUFFER_MAX);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let idle = async {
        loop {
            tokio::time::sleep(SESSIONLESS_TIME_MAX).await;
            if !connection.in_session.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    tokio::select! {
        ended = &mut serving => match ended {
            Ok(()) => return debug!(%from, "Connection ended"),
            Err(error) => return debug!(%from, %error, "Connection broke"),
        },
        () = idle => {}
        () = connection.cut.cancelled() => {}
        () = shared.shutdown.cancelled() => {}
    }
    // Last words get out, but nobody is waited for.
    let last = async {
        if shared.shutdown.is_cancelled() {
            connection.cut.cancelled().await;
        }
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    };
    let _ = timeout(FAREWELL_TIME_MAX, last).await;
}

fn routes(shared: &Arc<Shared>) -> Routes {
    let enrolment = EnrolmentServer::new(Enrol(shared.clone()));
    let link = LinkServer::new(Sessions(shared.clone()));
    Routes::new(enrolment.max_decoding_message_size(ENROL_MESSAGE_MAX))
        .add_service(link.max_decoding_message_size(FROM_AGENT_MESSAGE_MAX))
        .prepare()
}

fn acceptor(authority: &Authority, certificate: Arc<Current>) -> Result<TlsAcceptor, BuildError> {
    let fail = |error: &dyn std::fmt::Display| BuildError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(|e| fail(&e))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let agents = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        // Enrolment has none; every other call looks for it.
        .allow_unauthenticated()
        .build()
        .map_err(|e| fail(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| fail(&e))?
        .with_client_cert_verifier(agents)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the look at the certificate's dates, and its state costs memory.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn renew_server_certificate(
    shared: Arc<Shared>,
    current: Arc<Current>,
    names: Vec<String>,
) -> anyhow::Result<()> {
    let mut period = tokio::time::interval(SERVER_CERTIFICATE_PERIOD);
    period.tick().await;
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            _ = period.tick() => {}
        }
        match shared.authority.serve_as(&names) {
            Ok(key) => {
                current.replace(key);
                info!("Renewed the gateway's certificate");
            }
            Err(error) => warn!(%error, "Cannot renew the gateway's certificate; trying tomorrow"),
        }
    }
}

/// The names in the gateway's certificate.
fn names(config: &GatewayConfig, listening: IpAddr) -> Vec<String> {
    let mut names: Vec<_> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !listening.is_unspecified() && !listening.is_loopback() {
        names.push(listening.to_string());
    }
    for name in &config.advertise {
        names.push(split_port(name).0.to_owned());
    }
    names
}

/// `HOST:PORT`, `[V6]:PORT` or a host alone.
fn split_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (address, None),
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}
