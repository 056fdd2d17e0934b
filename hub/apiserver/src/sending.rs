//! An answer on its way to a client: cut into pieces, so that only what the client takes is
//! copied; counted against its user while it is held; marked while a piece waits to be taken, so
//! that a client that does not read is noticed; ended with the credential that it was given for.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::{
    audit::Seen,
    body::{Body, BoxError},
    serve::{Handed, Peer},
    server::Inner,
    shares::Share,
};

/// Bytes handed over at once. A shorter answer is handed over whole and is not followed.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// A body that is followed until the client has taken it.
pub(crate) struct Sending {
    body: Body,
    /// The part of the last piece of `body` that has not been handed over.
    rest: Bytes,
    handed: Handed,
    until: Option<Pin<Box<Sleep>>>,
    /// For a stream, whose pieces are counted as they come: by whom and against what.
    counted: Option<(Arc<Inner>, String)>,
    /// What the answer, or the last piece of a stream, is counted as.
    share: Option<Share>,
    _place: Option<Share>,
    /// Told to the audit log when this is dropped.
    _seen: Seen,
}

impl Sending {
    /// A body whose length is known, and counted by `share`.
    pub(crate) fn whole(body: Body, peer: &Arc<Peer>, share: Option<Share>, seen: Seen) -> Sending {
        Sending {
            body,
            rest: Bytes::new(),
            handed: peer.begin_sending(),
            until: None,
            counted: None,
            share,
            _place: None,
            _seen: seen,
        }
    }

    /// A watch or log with its `place` among the streams; it ends at `until` at the latest.
    pub(crate) fn stream(
        body: Body,
        peer: &Arc<Peer>,
        (place, counted): (Option<Share>, Option<(Arc<Inner>, String)>),
        until: Option<Pin<Box<Sleep>>>,
        seen: Seen,
    ) -> Sending {
        let whole = Sending::whole(body, peer, None, seen);
        Sending { until, counted, _place: place, ..whole }
    }

    /// Counts a long piece of a stream. `false`: there is no room for it.
    fn count(&mut self, length: usize) -> bool {
        let Some((server, user)) = &self.counted else { return true };
        self.share = None;
        if length <= PIECE_BYTES {
            return true;
        }
        self.share = server.limits.room_for_answer(user, length);
        self.share.is_some()
    }

    fn hand_over(&mut self) -> Option<Frame<Bytes>> {
        let length = self.rest.len().min(PIECE_BYTES);
        if length == 0 {
            return None;
        }
        self.handed.mark();
        Some(Frame::data(self.rest.split_to(length)))
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Asked for more: what was handed over has been taken.
        self.handed.taken();
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        if let Some(frame) = self.hand_over() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    if !self.count(data.len()) {
                        tracing::debug!("a stream was ended: its client has too much to read");
                        return Poll::Ready(None);
                    }
                    self.rest = data;
                    let frame = self.hand_over().unwrap_or_else(|| Frame::data(Bytes::new()));
                    Poll::Ready(Some(Ok(frame)))
                }
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
