//! Compression: long answers, for clients on sockets that take it.

use http::{Response, header::CONTENT_TYPE};
use http_body::Body;
use tower_http::compression::{Compression, CompressionLevel, predicate::Predicate};

use crate::{body::GoesOn, service::ApiService};

/// Shorter answers are not worth it (as kube-apiserver has it).
const LONG_BYTES: u64 = 128 * 1024;

/// What is made of text; what others mount may be packed already.
const MEDIA: [&str; 4] =
    ["application/json", "application/yaml", "application/com.github.proto-openapi", "text/"];

/// The API for a socket. Its quickest level: JSON shrinks to a tenth by it, and higher ones cost
/// several times as much for little more.
pub(crate) fn compressed(api: ApiService) -> Compression<ApiService, WorthIt> {
    Compression::new(api).quality(CompressionLevel::Fastest).compress_when(WorthIt)
}

/// Says which answers are worth it: long ones of text that come to an end.
#[derive(Clone)]
pub(crate) struct WorthIt;

impl Predicate for WorthIt {
    fn should_compress<B: Body>(&self, response: &Response<B>) -> bool {
        let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default();
        let long = response.body().size_hint().exact().is_none_or(|length| length >= LONG_BYTES);
        long && response.extensions().get::<GoesOn>().is_none()
            && MEDIA.iter().any(|known| media.starts_with(known))
    }
}
