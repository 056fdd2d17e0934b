//! Every decision of the hub: observed objects and `now` in, a plan out.
//!
//! Nothing here waits, reads a clock, draws a random number or talks to anyone. `muster-control`
//! observes, asks one of these modules, and does what it says.

pub mod admit;
pub mod assign;
pub mod children;
pub mod config;
pub mod drift;
pub mod duration;
pub mod explain;
pub mod gitops;
pub mod names;
pub mod news;
pub mod options;
pub mod promise;
pub mod release;
pub mod relocation;
pub mod request;
pub mod rollup;
pub mod schedule;
pub mod selectors;
pub mod site;
pub mod store;
mod unknown;
pub mod work;
pub mod workflow;
