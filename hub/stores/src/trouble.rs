//! Why a store cannot be used or does not take something, in words that a user can act on.

/// A store's trouble.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// One CamelCase word.
    pub reason: &'static str,
    /// What was asked, the cause and the cure.
    pub message: String,
    /// What it concerns.
    pub weight: Weight,
}

/// What a trouble concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The store as a whole: nothing can be written.
    Store,
    /// What was just written: other files may well be taken.
    Batch,
}

impl Trouble {
    /// A trouble with the whole store.
    pub fn store(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), weight: Weight::Store }
    }

    /// A trouble with what was just written.
    pub fn batch(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), weight: Weight::Batch }
    }
}
