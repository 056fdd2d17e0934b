//! The agents' door: who an agent is, its session, its content.
//!
//! One listener serves both services of the agent protocol over TLS 1.3. Enrolment needs no client
//! certificate, only a token; everything else needs a certificate that this hub's own authority
//! signed, and takes the agent's name from it alone. The rest of the hub is reached only through
//! the ports of `muster-core`: assignments come in, reports and enrolments go out.
//!
//! A session lives in memory. Pulses and repeated reports go no further than this crate.

mod authority;
mod config;
mod content;
mod door;
mod enrolment;
mod link;
mod peer;
mod roster;
mod session;

pub use authority::AuthorityError;
pub use config::{GatewayConfig, PULSE, Ports};
pub use door::{BuildError, Gateway};
