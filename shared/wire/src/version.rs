//! Which versions of the protocol two sides may speak.

/// The version that this side speaks.
pub const PROTOCOL: u32 = 1;

/// The oldest version that this side still understands. A hub is upgraded before its agents, so it
/// is the hub that must understand the past.
pub const PROTOCOL_OLDEST: u32 = 1;

/// The other side speaks what this one does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the other side speaks version {theirs} of the agent protocol, this one {PROTOCOL_OLDEST} to \
     {PROTOCOL}: upgrade the older of the two, the hub first"
)]
pub struct Unsupported {
    /// Their version.
    pub theirs: u32,
}

/// The version that both sides speak. A newer peer steps down, if it still can: it says so.
pub fn agree(theirs: u32) -> Result<u32, Unsupported> {
    if theirs < PROTOCOL_OLDEST { Err(Unsupported { theirs }) } else { Ok(theirs.min(PROTOCOL)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_of_two_versions_is_spoken() {
        assert_eq!(agree(PROTOCOL), Ok(PROTOCOL));
        assert_eq!(agree(PROTOCOL + 1), Ok(PROTOCOL));
        assert_eq!(agree(0), Err(Unsupported { theirs: 0 }));
    }
}
