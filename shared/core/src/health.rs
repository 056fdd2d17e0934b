//! How what was applied is doing, judged where it runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A verdict; the order of the variants is from best to worst.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Health {
    /// Every part says that it works.
    Healthy,
    /// Nobody has judged, or there is nothing to judge by.
    #[default]
    Unknown,
    /// On its way: not bad, not ready.
    Progressing,
    /// Some part says that it does not work, or is gone.
    Degraded,
}

impl Health {
    /// The worst of several verdicts; `None` where there is none.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Option<Self> {
        verdicts.into_iter().max()
    }

    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Unknown => "Unknown",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
