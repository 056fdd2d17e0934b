//! Who someone is: certificates and tokens.

use std::sync::LazyLock;

use crate::{authn, tokens::Tokens, user::AUTHENTICATED};

/// A certificate in DER. Its chain is verified before; the text in it is still the user's.
pub(super) fn certificate(input: &[u8]) {
    if let Some(certified) = authn::of_certificate(input) {
        let user = certified.user;
        assert_eq!(user.groups.last().map(String::as_str), Some(AUTHENTICATED));
        assert!(user.extra.is_empty() && user.uid.is_empty());
    }
}

/// A bearer token, and the same bytes as the claims of one that we signed ourselves.
pub(super) fn token(input: &[u8]) {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a directory for the key");
        Tokens::open(&dir.path().join("key")).expect("a key is made")
    });
    if let Ok(text) = std::str::from_utf8(input) {
        assert!(TOKENS.verify(text).is_err(), "nobody else can sign: {text}");
    }
    let signed = TOKENS.sign(input).expect("anything can be signed");
    // Ours, but maybe no claims.
    let _ = TOKENS.verify(&signed);
    let (head, signature) = signed.rsplit_once('.').expect("a token has three parts");
    let (header, payload) = head.split_once('.').expect("a token has three parts");
    assert!(TOKENS.verify(&format!("{header}.{payload}A.{signature}")).is_err());
}
