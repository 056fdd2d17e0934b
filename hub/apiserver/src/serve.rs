//! Listeners: TLS, HTTP/1.1 and HTTP/2, one task for each connection, a graceful end; and what
//! keeps clients that are slow, silent or many from harming the others.

mod patience;
mod peer;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustix::{
    net::sockopt,
    process::{Resource, getrlimit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    authn,
    compress::compressed,
    server::Inner,
    service::{ApiService, CONNECTIONS_MAX, Caller},
};
use patience::Patient;
pub(crate) use peer::{Handed, Peer};
use peer::{Strangers, Verdict};

/// File descriptors that are not for connections: the database, logs, agents, children.
const OTHER_FILES: u64 = 256;

/// Connections that have not yet shown whose they are.
const STRANGERS_MAX: usize = 512;

/// Requests at once on one connection (as kube-apiserver), and what is kept of their answers.
const STREAMS_MAX: u32 = 250;
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The head of a request: room for long selectors and continue tokens.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Requests under way get so long to end at shutdown; watches end at once.
const DRAIN_SECONDS: Duration = Duration::from_secs(5);

/// After a failed accept (no file descriptors left, say): a pause instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An end that says nothing is asked so often whether it is there, and so many times.
const PROBE_SECONDS: Duration = Duration::from_secs(30);
const PROBES: u32 = 3;

/// How long clients on sockets are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the head of a request.
    pub head: Duration,
    /// For a request as a whole, except watches and logs (kube-apiserver's `--request-timeout`).
    pub request: Duration,
    /// For a connection's first request that shows who asks.
    pub stranger: Duration,
    /// For the next request on a connection (as Go's servers).
    pub idle: Duration,
    /// For a client to take a piece (at most 64 KiB) of an answer.
    pub take: Duration,
    /// For a write to a socket.
    pub write: Duration,
    /// Connections are looked at so often.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let seconds = Duration::from_secs;
        Patience {
            handshake: seconds(10),
            head: seconds(30),
            request: seconds(60),
            stranger: seconds(30),
            idle: seconds(90),
            take: seconds(60),
            write: seconds(30),
            look: seconds(5),
        }
    }
}

pub(crate) async fn serve(server: Arc<Inner>, listener: TcpListener, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(server.pki.tls());
    let most = connections_max();
    let permits = Arc::new(Semaphore::new(most));
    let strangers = Arc::new(Strangers::new(STRANGERS_MAX.min(most / 2)));
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: accept and join_next lose nothing when dropped.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = shutdown.cancelled() => break,
            () = server.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((socket, remote)) => {
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    tracing::warn!("a connection was refused: {most} are open");
                    continue;
                };
                let stop = shutdown.clone();
                let (server, acceptor) = (server.clone(), acceptor.clone());
                let strangers = strangers.clone();
                connections.spawn(async move {
                    let (place, gone) = strangers.add();
                    let connection = Connection { server, remote, stop, gone };
                    connection.serve(acceptor, socket, || strangers.remove(place)).await;
                    strangers.remove(place);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_SECONDS, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// As many as this process may have files, and no more than memory is meant for.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let for_connections = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let most = CONNECTIONS_MAX.min(for_connections);
    if most < CONNECTIONS_MAX {
        tracing::info!("{most} connections at once: this process may have {files} open files");
    }
    most.max(1)
}

struct Connection {
    server: Arc<Inner>,
    remote: SocketAddr,
    /// The listener is to end.
    stop: CancellationToken,
    /// The connection has to make room for others.
    gone: CancellationToken,
}

impl Connection {
    /// Serves until it ends; `known` is called once when it has shown whose it is.
    async fn serve(self, acceptor: TlsAcceptor, socket: TcpStream, known: impl Fn() + Send) {
        prepare(&socket);
        let patience = self.server.patience;
        let socket = Patient::new(socket, patience.write);
        let accepted = tokio::select! {
            accepted = timeout(patience.handshake, acceptor.accept(socket)) => accepted,
            () = self.gone.cancelled() => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.answer(stream, known).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn answer(self, stream: TlsStream<Patient<TcpStream>>, known: impl Fn() + Send) {
        let Connection { server, remote, stop, gone } = self;
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let certified = certificate.and_then(|der| authn::of_certificate(der));
        let http2 = session.alpn_protocol() == Some(b"h2");
        let peer = Peer::new(Some(remote), certified);
        let patience = server.patience;
        let closing = server.shutdown.clone();
        let service = compressed(ApiService::new(server, Caller::Connection(peer.clone())));
        let builder = builder(&patience, http2);
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let mut look = interval(patience.look);
        let mut ending = false;
        let mut still_stranger = true;
        // Cancel-safe: the connection itself is polled on in each round.
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                _ = look.tick() => match peer.look(&patience) {
                    Verdict::Keep => {}
                    Verdict::Idle => connection.as_mut().graceful_shutdown(),
                    Verdict::Close(why) => {
                        return tracing::debug!(%remote, "a connection was closed: {why}");
                    }
                },
                () = peer.shown(), if still_stranger => {
                    still_stranger = false;
                    known();
                }
                () = gone.cancelled(), if still_stranger => {
                    return tracing::debug!(%remote, "a connection was closed: too many strangers");
                }
                () = stop.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = closing.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended with an error");
        }
    }
}

fn builder(patience: &Patience, http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    // What was agreed on in the handshake: to guess by the first bytes means to wait for them.
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(PROBE_SECONDS)
        .keep_alive_timeout(PROBE_SECONDS);
    builder
}

/// What fails here makes the connection slower, or its loss noticed later.
fn prepare(socket: &TcpStream) {
    // Small answers leave at once.
    let _ = socket.set_nodelay(true);
    // An end that has vanished (a host without power) is noticed.
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, PROBE_SECONDS);
    let _ = sockopt::set_tcp_keepintvl(socket, PROBE_SECONDS);
    let _ = sockopt::set_tcp_keepcnt(socket, PROBES);
}
