//! What black-box tests need: the real programs, on directories and ports of their own.
//!
//! Nothing of Muster is linked here; a test sees what a user sees.

mod agent;
mod hub;
mod kubectl;
pub mod manifests;
mod process;
mod servers;
mod site;

pub use agent::Agent;
pub use hub::{Executor, Hub, HubOptions};
pub use kubectl::{Answer, Kubectl};
pub use process::{Process, eventually, free_port, has_part, program, sample, scratch};
pub use servers::{GitServer, Repositories, S3Server, SshServer, Tree};
pub use site::Site;
