//! Compression of long answers, for clients on sockets that take it.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY},
};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::body::{self, Body};

/// Shorter answers are not worth it (as kube-apiserver has it).
const LONG_BYTES: u64 = 128 * 1024;

/// The quickest level: JSON shrinks to a tenth by it, and higher ones cost several times as much
/// for little more.
const LEVEL: Compression = Compression::new(1);

/// What is made of text; what others mount may be packed already.
const MEDIA: [&str; 4] =
    ["application/json", "application/yaml", "application/com.github.proto-openapi", "text/"];

/// Whether a client takes compressed answers.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let refused = |part: &str| {
            part.strip_prefix("q=").and_then(|weight| weight.parse().ok()) == Some(0.0)
        };
        matches!(parts.next(), Some("gzip" | "*")) && !parts.any(refused)
    })
}

/// Compresses an answer if it is whole and long; streams pass as they are.
pub(crate) async fn compress(mut response: Response<Body>) -> Response<Body> {
    if !is_worth_it(&response) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // A whole body is there: nothing is waited for, and nothing fails.
    let whole = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let given = whole.clone();
    let packed = tokio::task::spawn_blocking(move || pack(&given)).await;
    let Ok(Ok(packed)) = packed else {
        return Response::from_parts(parts, body::full(whole));
    };
    response = Response::from_parts(parts, body::full(packed));
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

fn is_worth_it(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    response.body().size_hint().exact().is_some_and(|length| length >= LONG_BYTES)
        && MEDIA.iter().any(|known| media.starts_with(known))
        && !headers.contains_key(CONTENT_ENCODING)
}

fn pack(whole: &Bytes) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(whole.len() / 8), LEVEL);
    encoder.write_all(whole)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http::StatusCode;

    use super::*;
    use crate::respond;

    fn accepting(value: &'static str) -> HeaderMap {
        [(ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn clients_say_what_they_take() {
        for (value, taken) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
        ] {
            assert_eq!(is_accepted(&accepting(value)), taken, "{value}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn long_answers_shrink_and_short_ones_and_streams_stay() {
        let long = "{\"a\":1}".repeat(100_000);
        let answer = compress(respond::json_bytes(StatusCode::OK, long.clone())).await;
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        let packed = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(packed.len() * 10 < long.len());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, long);

        let short = compress(respond::json_bytes(StatusCode::OK, "{}")).await;
        let mut stream = Response::new(body::stream(futures::stream::iter([long.into()])));
        stream.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for answer in [short, compress(stream).await] {
            assert!(!answer.headers().contains_key(CONTENT_ENCODING));
        }
    }
}
