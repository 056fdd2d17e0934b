//! What every long-running process needs: logs, owned tasks, an orderly end, waits between
//! attempts, the time, files that survive a crash, exit codes.
//!
//! A process has one [`Shutdown`], made by [`Shutdown::on_signals`], and one [`Tasks`] for each part
//! that runs something beside its caller. Nothing calls `tokio::spawn` itself: a task without an
//! owner is one whose failure nobody hears and whose end nobody waits for.

pub mod backoff;
pub mod clock;
pub mod drain;
pub mod durable;
pub mod exit;
mod held_dir;
pub mod log;
pub mod tasks;

pub use backoff::Backoff;
pub use clock::Clock;
pub use drain::Shutdown;
pub use held_dir::{HeldDir, HeldDirError, default_state_dir};
pub use tasks::{OnError, TaskFailed, Tasks};
