//! One file for each command.

pub(crate) mod agents;
pub(crate) mod pipeline;
