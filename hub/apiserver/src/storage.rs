//! How much is kept, for how long, and whether Secrets are encrypted: what an operator may choose.

use std::time::Duration;

use crate::store::EncryptionKey;

/// etcd's default, which operators of Kubernetes know; in memory objects take somewhat more.
const QUOTA_BYTES: u64 = 2 << 30;

/// kube-apiserver's `--event-ttl`.
const KEEP_EVENTS: Duration = Duration::from_secs(3600);

/// What is kept, and how.
///
/// What bounds the data directory:
///
/// - **Objects** have a quota ([`Self::quota_bytes`]). Beyond it nothing new is created, and
///   what exists may grow by a tenth of it; deletions always work.
/// - **History** (for watches that resume, and lists that go on) is kept for five minutes, and never
///   more than 64 MiB of a kind or 256 MiB of all.
/// - **The file** is written anew beside itself, while the server goes on, once it has more than
///   four times the bytes of what is in it; so that it needs room for a copy.
/// - **Events** go an hour after they were last told ([`Self::keep_events`]).
/// - **Jobs** go, with their pods and those pods' logs, when their `ttlSecondsAfterFinished` says
///   so, or, where they have none, after [`Self::keep_jobs`].
/// - **A reserve** of 16 MiB is kept for a full disk: it is given up then, objects can still be
///   read and deleted, and other writes are refused (503) until there is room.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The bytes that all objects together may have, as JSON.
    pub quota_bytes: u64,
    /// Keys of Secrets: the first encrypts, the others only open what they have encrypted before.
    /// What is stored otherwise is written anew at the start. None: Secrets are stored as they are.
    pub keys: Vec<EncryptionKey>,
    /// Turns encryption off: the keys only open, and what is encrypted is written anew as it is.
    pub decrypt: bool,
    /// How long an Event is kept after it was last told.
    pub keep_events: Duration,
    /// How long a finished Job without `ttlSecondsAfterFinished` is kept. `None`: for ever, as in
    /// Kubernetes.
    pub keep_jobs: Option<Duration>,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            quota_bytes: QUOTA_BYTES,
            keys: Vec::new(),
            decrypt: false,
            keep_events: KEEP_EVENTS,
            keep_jobs: None,
        }
    }
}
