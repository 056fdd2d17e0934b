//! Fetches content by digest over the session's connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use muster_core::Digest;
use muster_wire::{
    convert::to_digest,
    limits::CONTENT_BYTES_MAX,
    v1::{ContentRequest, link_client::LinkClient},
};
use tokio::time::timeout;
use tonic::transport::Channel;

/// How long the next part may take; a slow line gets 64 KiB through in this time.
const PART_TIME_MAX: Duration = Duration::from_secs(30);

/// Why content could not be had. Asking again later may help.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There was no session for too long.
    #[error("the hub is not connected: content is fetched when it is")]
    NotConnected,
    /// The hub refused or failed.
    #[error("the hub did not give content {digest}: {cause}")]
    Hub {
        /// Which.
        digest: String,
        /// Why.
        cause: String,
    },
    /// More bytes than any content has.
    #[error("content {0} is larger than any content may be")]
    TooLarge(String),
    /// Nothing came for too long.
    #[error("the hub stopped sending content {0}")]
    Stalled(String),
}

pub(crate) async fn fetch(channel: Channel, digest: Digest) -> Result<Bytes, FetchError> {
    let failed = |status: tonic::Status| FetchError::Hub {
        digest: digest.short(),
        cause: status.message().to_owned(),
    };
    let stalled = |_| FetchError::Stalled(digest.short());
    let request = ContentRequest { digest: to_digest(&digest) };
    let mut client = LinkClient::new(channel);
    let answer = timeout(PART_TIME_MAX, client.fetch_content(request)).await.map_err(stalled)?;
    let mut parts = answer.map_err(failed)?.into_inner();
    let mut bytes = BytesMut::new();
    while let Some(part) =
        timeout(PART_TIME_MAX, parts.message()).await.map_err(stalled)?.map_err(failed)?
    {
        if bytes.len() + part.data.len() > CONTENT_BYTES_MAX {
            return Err(FetchError::TooLarge(digest.short()));
        }
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes.freeze())
}
