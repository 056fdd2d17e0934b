//! How a hub and an agent are named in certificates, and how a hub's authority is pinned.

use std::{fmt, str::FromStr};

use muster_core::Digest;

/// What comes before the agent's name in the one URI of its certificate.
pub const AGENT_URI_PREFIX: &str = "muster://agent/";

const PIN_PREFIX: &str = "sha256:";

/// The digest of the SubjectPublicKeyInfo of a hub's authority: what `--ca-pin` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaPin(Digest);

/// The text is not a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pin: write sha256: and 64 hexadecimal digits, as the hub prints it")]
pub struct PinError(String);

impl CaPin {
    /// The pin of an authority, from the DER of its SubjectPublicKeyInfo (RFC 5280 §4.1).
    pub fn of(public_key_info: &[u8]) -> Self {
        Self(Digest::of(public_key_info))
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}{}", self.0)
    }
}

impl FromStr for CaPin {
    type Err = PinError;
    fn from_str(text: &str) -> Result<Self, PinError> {
        let digest = text.strip_prefix(PIN_PREFIX).and_then(|digits| digits.parse().ok());
        digest.map(Self).ok_or_else(|| PinError(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_it_is_written() {
        let pin = CaPin::of(b"key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for wrong in ["", "sha256:", "sha256:00", "md5:00", &pin.to_string()[7..]] {
            assert!(wrong.parse::<CaPin>().is_err(), "{wrong}");
        }
    }
}
