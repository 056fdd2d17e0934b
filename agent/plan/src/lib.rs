//! What an agent does next: a state machine without clock, randomness or I/O.
//!
//! The agent's event loop gives it what happened ([`Input`]) and the time, then carries out what it
//! answers ([`Output`]) until there is none, then sleeps until [`AgentState::poll_timeout`]:
//!
//! ```text
//! state.handle(input, now);  while let Some(output) = state.poll_output() { carry_out(output) }
//! ```
//!
//! What holds whatever is lost, repeated, reordered or restarted:
//!
//! - one action at a time for one placement, and for one thing that two placements claim;
//! - an older revision is never acted on ([`fence`]);
//! - a placement missing from an assignment is kept: only [`muster_core::Intent::Absent`] removes;
//! - dependencies are applied before requests and removed after them, but a dependency that fails,
//!   and a lane that is full, hold up nothing else.

mod decide;
pub mod fence;
mod input;
mod library;
mod output;
mod pace;
mod report;
mod slot;
mod state;

pub use fence::Refusal;
pub use input::Input;
pub use output::{Action, ActionId, Output, Task};
pub use pace::Pace;
pub use state::{AgentState, Start};
