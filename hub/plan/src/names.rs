//! Names of objects that the hub makes: which name follows from what?
//!
//! Every name is a function of what the object is for, so that making it twice makes it once.

use md5::{Digest as _, Md5};

/// Longest readable part of a generated name, as in Kratix: with `-` and five digits it is a label
/// value of 63 characters.
const STEM_LEN_MAX: usize = 57;

/// `stem` cut to length, and five digits that tell apart what `identity` tells apart.
pub fn bounded(stem: &str, identity: &[&str]) -> String {
    let mut end = stem.len().min(STEM_LEN_MAX);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let stem = stem[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{stem}-{}", &fingerprint(identity)[..5])
}

/// One fingerprint of several texts: where one ends and the next begins counts.
pub fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// The MD5 of a text in hexadecimal: Kratix's identity of a directory or a version, never a
/// protection of anything.
pub fn md5_hex(text: &str) -> String {
    hex::encode(Md5::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_end_on_a_letter_or_digit() {
        let name = bounded(&format!("{}-.x", "a".repeat(56)), &["1"]);
        assert_eq!(name.len(), 56 + 6);
        assert!(name.starts_with(&format!("{}-", "a".repeat(56))), "{name}");
        assert!(bounded(&"a".repeat(200), &["1"]).len() <= 63);
    }

    #[test]
    fn names_tell_identities_apart_and_nothing_else() {
        assert_eq!(bounded("web", &["a", "b"]), bounded("web", &["a", "b"]));
        assert_ne!(bounded("web", &["a", "b"]), bounded("web", &["ab", ""]));
    }

    #[test]
    fn the_root_directory_has_the_id_that_kratix_gives_it() {
        assert_eq!(md5_hex("."), "5058f1af8388633f609cadb75a75dc9d");
    }
}
