//! Bodies: reading a request's within its limit, and what an answer is made of.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

use crate::{json, proto, status::Status};

/// A request's body is at most so long (apiserver `MaxRequestBodyBytes`).
pub(crate) const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

/// So much more is read and thrown away, because a client that is still sending when the connection
/// closes never sees why (Go's server does so, too).
const DISCARDED_BYTES_MAX: usize = 256 * 1024;

/// Any error that a body may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: whole, or a stream (watches, logs).
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Marks an answer that goes on until one of the two ends it: a watch, a log.
#[derive(Clone)]
pub(crate) struct GoesOn;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// A long body is sent in chunks of about so many bytes: enough that the cost of each is not felt,
/// and few enough that no answer is ever whole in memory.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// A body of pieces that are made while it is sent.
pub(crate) fn pieces(mut pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let mut chunk = move || {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        while chunk.len() < CHUNK_BYTES
            && let Some(piece) = pieces.next()
        {
            chunk.extend_from_slice(&piece);
        }
        (!chunk.is_empty()).then(|| Bytes::from(chunk))
    };
    match chunk() {
        Some(first) if first.len() >= CHUNK_BYTES => {
            stream(futures::stream::iter([first].into_iter().chain(std::iter::from_fn(chunk))))
        }
        all => full(all.unwrap_or_default()),
    }
}

/// Reads a whole body.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut bytes = BytesMut::new();
    let mut over = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("cannot read the body: {}", error.into()))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if over > 0 || bytes.len() + data.len() > REQUEST_BYTES_MAX {
            over += data.len();
        } else {
            bytes.extend_from_slice(&data);
        }
        if over > DISCARDED_BYTES_MAX {
            break;
        }
    }
    match over {
        0 => Ok(bytes.freeze()),
        _ => {
            let message = format!("Request entity too large: limit is {REQUEST_BYTES_MAX}");
            let code = http::StatusCode::PAYLOAD_TOO_LARGE;
            Err(Status::new(code, "RequestEntityTooLarge", message))
        }
    }
}

/// The media type of a request, without parameters; JSON if none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    given.and_then(|value| value.split(';').next()).map_or("application/json", str::trim)
}

/// An object as a client sent it, with the warnings of its reader about repeated fields.
pub(crate) fn decode(
    headers: &HeaderMap,
    bytes: &[u8],
    expected: &str,
) -> Result<(Value, Vec<String>), Status> {
    let unreadable = |error: String| {
        let shown = match bytes {
            [] => "<empty>".into(),
            bytes => String::from_utf8_lossy(&bytes[..bytes.len().min(200)]),
        };
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {expected}): couldn't get \
             version/kind; {error} ({shown})"
        ))
    };
    match media_type(headers) {
        "application/json" => json::read_strict(bytes)
            .map_err(|error| unreadable(format!("json parse error: {error}"))),
        "application/yaml" | "text/yaml" => {
            json::read_yaml(bytes).map_err(|error| unreadable(error.to_string()))
        }
        "application/vnd.kubernetes.protobuf" => match proto::decode(bytes) {
            Ok(value) => Ok((value, Vec::new())),
            Err(error) => Err(Status::bad_request(error.to_string())),
        },
        _ => Err(Status::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}
