//! The agent protocol: messages, their limits, and their meaning in the words of `muster-core`.
//!
//! `proto/muster/link/v1/link.proto` is the contract; [`v1`] is made from it and committed, and a
//! test makes it again. Both sides convert at their door ([`convert`]), so that nothing behind it
//! sees an unchecked message.

pub mod convert;
pub mod identity;
pub mod limits;
pub mod version;

/// The generated messages, client and server of `muster.link.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
#[rustfmt::skip]
#[path = "gen/muster.link.v1.rs"]
pub mod v1;

pub use convert::Refusal;
pub use identity::CaPin;
pub use version::PROTOCOL;
