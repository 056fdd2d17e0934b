//! The vocabulary that hub and agent share: names, digests, files, assignments, reports, health.
//!
//! Everything here is plain data and pure functions. What crosses the wire or names stored bytes
//! has exactly one encoding ([`encode`]), fixed by committed test vectors.

pub mod assignment;
pub mod content;
pub mod digest;
pub mod directory;
pub mod encode;
pub mod health;
pub mod name;
pub mod outcome;
pub mod ports;
pub mod report;
pub mod revision;
pub mod selector;
pub mod waiting;
pub mod yaml;

pub use assignment::{Assignment, Intent, Lane, Order};
pub use content::FileSet;
pub use digest::Digest;
pub use health::Health;
pub use name::{DestinationName, PlacementKey};
pub use outcome::{Claim, Contents, Failure, Held, Observation, Outcome};
pub use report::{Phase, PlacementReport};
pub use revision::Revision;
pub use selector::Selector;
pub use waiting::Waiting;
