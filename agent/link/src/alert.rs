//! A TLS stream that remembers why the other side ended it.
//!
//! In TLS 1.3 a client learns that its certificate was refused only after its own part of the
//! handshake is done, in the middle of HTTP/2, whose errors do not say so.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use rustls::AlertDescription;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// The other side's last word, once it was heard.
pub(crate) type LastAlert = Arc<OnceLock<AlertDescription>>;

/// A stream that keeps the alert that ended it.
pub(crate) struct Attentive {
    stream: TlsStream<TcpStream>,
    alert: LastAlert,
}

impl Attentive {
    pub(crate) fn new(stream: TlsStream<TcpStream>, alert: LastAlert) -> Self {
        Self { stream, alert }
    }

    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            // Who cannot be written to may still have said something.
            let mut bytes = [0; 256];
            let _ = Pin::new(self).poll_read(cx, &mut ReadBuf::new(&mut bytes));
        }
        result
    }
}

impl AsyncRead for Attentive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if let Err(error) = &read
            && let Some(cause) = error.get_ref()
            && let Some(rustls::Error::AlertReceived(alert)) = cause.downcast_ref()
        {
            let _ = self.alert.set(*alert);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Attentive {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
