//! What the agent knows of content: which files are on its disk, and what they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_core::{Contents, Digest, Failure};

use crate::pace::{Jitter, Pace, Retry};

/// Content by digest.
#[derive(Debug, Default)]
pub(crate) struct Library(BTreeMap<Digest, Entry>);

#[derive(Debug, Default)]
struct Entry {
    fetching: bool,
    known: Option<Result<Contents, Failure>>,
    retry: Retry,
}

/// What is known of one content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    /// On disk and understood.
    Ready(&'a Contents),
    /// Being fetched.
    Fetching,
    /// To be fetched now.
    Wanted,
    /// It could not be had or used; to be tried again at that time, if ever.
    Failed(&'a Failure, Option<Duration>),
}

impl Library {
    pub(crate) fn look_up(&self, digest: &Digest, now: Duration) -> Known<'_> {
        let Some(entry) = self.0.get(digest) else { return Known::Wanted };
        match &entry.known {
            _ if entry.fetching => Known::Fetching,
            Some(Ok(contents)) => Known::Ready(contents),
            Some(Err(failure)) if failure.refused => Known::Failed(failure, None),
            Some(Err(failure)) if now < entry.retry.at() => {
                Known::Failed(failure, Some(entry.retry.at()))
            }
            Some(Err(_)) | None => Known::Wanted,
        }
    }

    /// Notes that it is being fetched.
    pub(crate) fn fetch(&mut self, digest: Digest) {
        self.0.entry(digest).or_default().fetching = true;
    }

    /// Notes an answer; one that nobody asked for is ignored.
    pub(crate) fn fetched(
        &mut self,
        digest: Digest,
        result: Result<Contents, Failure>,
        again: impl FnOnce(&mut Retry),
    ) {
        let Some(entry) = self.0.get_mut(&digest).filter(|entry| entry.fetching) else { return };
        entry.fetching = false;
        if result.is_err() {
            again(&mut entry.retry);
        }
        entry.known = Some(result);
    }

    /// Forgets content that is not on disk after all.
    pub(crate) fn forget(
        &mut self,
        digest: &Digest,
        now: Duration,
        pace: &Pace,
        jitter: &mut Jitter,
    ) {
        let Some(entry) = self.0.get_mut(digest).filter(|entry| !entry.fetching) else { return };
        entry.retry.again(now, pace, jitter);
        let gone = format!("content {} is not on the agent's disk", digest.short());
        entry.known = Some(Err(Failure::retried("ContentUnavailable", gone)));
    }

    /// Forgets what no order names; a fetch in flight is kept, so that it is not begun twice.
    pub(crate) fn retain(&mut self, wanted: &BTreeSet<Digest>) {
        self.0.retain(|digest, entry| entry.fetching || wanted.contains(digest));
    }
}
