//! The agent's line to its hub: enrol once, then dial, stay connected, and come back.
//!
//! [`enrol`] trades a token for an [`Identity`]. [`link`] keeps one session open with it: what the
//! hub assigns arrives as [`LinkEvent`]s, what the agent reports leaves through a [`LinkHandle`],
//! which never waits for the hub. Losing the line loses nothing: the latest report of each placement
//! is kept until the hub has taken it, and digests say what need not be sent again.

mod alert;
mod content;
mod dial;
mod enrol;
mod handle;
mod identity;
mod renew;
mod reports;
mod run;
mod session;

pub use content::FetchError;
pub use dial::DialError;
pub use enrol::{EnrolError, EnrolOptions, enrol};
pub use handle::{LinkConfig, LinkEvent, LinkHandle, link};
pub use identity::{Identity, IdentityError};
pub use run::{LinkFailed, LinkRun};
