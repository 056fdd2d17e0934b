//! Names of objects: what they may be, and how one is made up.

use rand::Rng as _;
use serde_json::Value;

use crate::field::FieldError;

/// Without vowels and look-alikes, so that no word appears (apimachinery `util/rand`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;

/// A made-up name is a label value at most (apiserver `storage/names`).
const GENERATED_CHARS_MAX: usize = 63;

/// Longest name of the kinds that allow almost anything: RBAC.
const PATH_SEGMENT_BYTES_MAX: usize = 1024;

const SUBDOMAIN_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name', \
    or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Which names a kind allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: namespaces.
    Label,
    /// Anything that fits in a path segment: RBAC.
    PathSegment,
}

/// A name made up from a prefix, as for `generateName`.
pub(crate) fn generate(prefix: &str) -> String {
    let kept: String = prefix.chars().take(GENERATED_CHARS_MAX - SUFFIX_CHARS).collect();
    let mut random = rand::rng();
    let letter = |_| char::from(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())]);
    kept + &(0..SUFFIX_CHARS).map(letter).collect::<String>()
}

/// What is wrong with a name, if anything.
pub(crate) fn check(rule: NameRule, field: &str, name: &str) -> Vec<FieldError> {
    let invalid = |detail: &str| FieldError::invalid(field, &Value::from(name), detail);
    let mut errors = Vec::new();
    match rule {
        NameRule::Subdomain => {
            if name.len() > SUBDOMAIN_CHARS_MAX {
                errors.push(invalid("must be no more than 253 characters"));
            }
            if !name.split('.').all(is_label) {
                errors.push(invalid(SUBDOMAIN));
            }
        }
        NameRule::Label => {
            if name.len() > LABEL_CHARS_MAX {
                errors.push(invalid("must be no more than 63 characters"));
            }
            match is_label(name) {
                true => {}
                false if name.split('.').all(is_label) => {
                    errors.push(invalid("must not contain dots"));
                }
                false => errors.push(invalid(LABEL)),
            }
        }
        NameRule::PathSegment => {
            if name.len() > PATH_SEGMENT_BYTES_MAX {
                let detail = format!("must be no more than {PATH_SEGMENT_BYTES_MAX} bytes");
                errors.push(FieldError::invalid(field, &"…".into(), &detail));
            }
            if [".", ".."].contains(&name) {
                errors.push(invalid(&format!("may not be '{name}'")));
            }
            for part in ["/", "%"].into_iter().filter(|part| name.contains(part)) {
                errors.push(invalid(&format!("may not contain '{part}'")));
            }
        }
    }
    errors
}

/// What is wrong with a prefix of names, if anything.
pub(crate) fn check_prefix(rule: NameRule, field: &str, prefix: &str) -> Vec<FieldError> {
    // As if a name went on where a separator ends the prefix.
    let ends = prefix.ends_with(['-', '.']);
    let as_name = if ends { format!("{prefix}a") } else { prefix.to_owned() };
    let wrong = check(rule, field, &as_name).into_iter();
    let shown = |error: FieldError| FieldError {
        message: error.message.replacen(&as_name, prefix, 1),
        ..error
    };
    wrong.map(shown).collect()
}

/// The name is one of a domain with at least one dot, as groups of definitions must be.
pub(crate) fn is_dotted(name: &str) -> bool {
    name.contains('.')
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}
