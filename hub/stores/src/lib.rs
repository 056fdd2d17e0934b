//! State stores: Git branches and buckets that Flux and Argo CD read.
//!
//! What files are to be where is decided by pure functions: [`layout`] (Kratix's, byte by byte),
//! [`claims`] (who may write where) and [`content`] (what a store cannot hold). A [`StateStore`]
//! makes it so: everything that waits in one write. Nothing here knows the Kubernetes API.

pub mod access;
pub mod bucket;
pub mod change;
pub mod claims;
pub mod content;
pub mod git;
pub mod layout;
mod secret;
pub mod trouble;

use std::path::Path;

use futures::future::BoxFuture;
use muster_daemon::Clock;

pub use access::{Access, BucketAccess, BucketAuth, GitAccess, GitAuth};
pub use change::{Change, Entry, Files};
pub use layout::{Mode, Placed, Root};
pub use secret::Secret;
pub use trouble::{Trouble, Weight};

/// A store that can be written to. One write happens at a time; the others wait.
pub trait StateStore: Send + Sync {
    /// Whether it can be written to now, and what others changed in it since the last look.
    fn probe(&self) -> BoxFuture<'_, Result<Drift, Trouble>>;

    /// Makes all of it so, or says why nothing of it may be relied on.
    fn write<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<Written, Trouble>>;
}

/// What others changed in a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Drift {
    /// Nothing.
    #[default]
    None,
    /// These paths, from the store's top.
    Paths(Vec<String>),
    /// Nobody knows what; all is to be written again.
    Unknown,
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// The version of each entry: a commit, or a digest of versions of objects.
    pub versions: Vec<String>,
    /// Whether anything was not as it should be before.
    pub changed: bool,
    /// How often the store was asked to take something: pushes, or objects put and deleted.
    pub requests: usize,
    /// What others changed meanwhile.
    pub drift: Drift,
}

/// Opens a store; nothing is asked of it before the first probe or write. `dir` is the store's own,
/// and may hold what an earlier opening left there; `clock` says when it is looked at again.
pub fn open(access: Access, dir: &Path, clock: &Clock) -> Result<Box<dyn StateStore>, Trouble> {
    Ok(match access {
        Access::Git(access) => Box::new(git::GitStore::open(access, dir)?),
        Access::Bucket(access) => Box::new(bucket::BucketStore::open(access, clock)?),
    })
}

impl Drift {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, drift) | (drift, Self::None) => drift,
            (Self::Paths(mut one), Self::Paths(two)) => {
                one.extend(two);
                Self::Paths(one)
            }
            _ => Self::Unknown,
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn trouble_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
