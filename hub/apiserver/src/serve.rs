//! Listeners: TLS, HTTP/1.1 and HTTP/2, one task for each connection, a graceful end.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    authn,
    server::Inner,
    service::{ApiService, Caller},
};

/// Connections at once: each costs a task and buffers of about 50 KiB, so 100 MiB at most.
const CONNECTIONS_MAX: usize = 2048;

/// A client has so long to complete its TLS handshake.
const HANDSHAKE_SECONDS: Duration = Duration::from_secs(10);

/// A client has so long to send the head of a request.
const HEAD_SECONDS: Duration = Duration::from_secs(30);

/// Requests under way get so long to end at shutdown; watches end at once.
const DRAIN_SECONDS: Duration = Duration::from_secs(5);

/// After a failed accept (no file descriptors left, say): a pause instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn serve(server: Arc<Inner>, listener: TcpListener, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(server.pki.tls());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
            Ok((socket, _)) => {
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    tracing::warn!("a connection was refused: {CONNECTIONS_MAX} are open");
                    continue;
                };
                let (server, acceptor) = (server.clone(), acceptor.clone());
                let shutdown = shutdown.clone();
                connections.spawn(async move {
                    connection(server, acceptor, socket, shutdown).await;
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

async fn connection(
    server: Arc<Inner>,
    acceptor: TlsAcceptor,
    socket: TcpStream,
    shutdown: CancellationToken,
) {
    // Small answers leave at once; if it fails, they are merely later.
    let _ = socket.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_SECONDS, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = certificate.and_then(|der| authn::of_certificate(der)).map(Arc::new);
    let stop = server.shutdown.clone();
    let service = TowerToHyperService::new(ApiService::new(server, Caller::Connection(user)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_SECONDS);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Cancel-safe: the connection is polled on after the signal.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = shutdown.cancelled() => {}, () = stop.cancelled() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended with an error");
    }
}
