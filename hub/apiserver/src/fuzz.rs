//! One function for each parser that a client reaches: the fuzzer feeds them (`fuzz/run.sh`), and a
//! test feeds them what the fuzzer has found before. Each checks more than that nothing panics:
//! a second implementation, a round trip, or a bound on the result.
//!
//! Inputs are texts wherever they can be, their parts one a line, so that the corpus can be read
//! and written by hand.

mod bodies;
mod identity;
mod patches;
mod requests;
mod schemas;
#[cfg(test)]
mod tests;
mod texts;

use serde_json::Value;

/// A parser, with what is always true of it.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of its folder of the corpus.
    pub name: &'static str,
    /// Panics where something that is always true is not.
    pub run: fn(&[u8]),
}

/// Everything that is fuzzed.
pub const TARGETS: &[Target] = &[
    Target { name: "apply", run: patches::apply },
    Target { name: "builtin", run: schemas::builtin },
    Target { name: "certificate", run: identity::certificate },
    Target { name: "continue", run: texts::continue_token },
    Target { name: "formats", run: schemas::formats },
    Target { name: "json", run: bodies::json },
    Target { name: "json_patch", run: patches::json },
    Target { name: "jsonpath", run: texts::jsonpath },
    Target { name: "merge_patch", run: patches::merge },
    Target { name: "protobuf", run: bodies::protobuf },
    Target { name: "query", run: texts::query },
    Target { name: "request", run: requests::request },
    Target { name: "schema", run: schemas::custom },
    Target { name: "selectors", run: texts::selectors },
    Target { name: "strategic", run: patches::strategic },
    Target { name: "token", run: identity::token },
    Target { name: "yaml", run: bodies::yaml },
];

/// The first `N` lines of an input; the last takes the rest.
fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let mut parts = std::str::from_utf8(input).ok()?.splitn(N, '\n');
    let mut lines = [""; N];
    for line in &mut lines {
        *line = parts.next()?;
    }
    Some(lines)
}

/// The first `N` lines of an input as JSON, each nested no deeper than a client may send it.
fn documents<const N: usize>(input: &[u8]) -> Option<[Value; N]> {
    let texts = lines::<N>(input)?;
    let mut documents = [const { Value::Null }; N];
    for (document, text) in documents.iter_mut().zip(texts) {
        *document = serde_json::from_str(text).ok()?;
    }
    Some(documents)
}

/// What the server stores is read again by `serde_json`, which gives up on deeper nesting.
fn assert_readable(value: &Value) {
    let read: Value = serde_json::from_str(&value.to_string()).expect("what is stored can be read");
    assert_eq!(&read, value, "what is read is what was stored");
}
