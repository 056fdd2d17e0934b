//! The bytes of groups of files: stored once, named by their digest, kept while somebody names them.
//!
//! The first part of a Content is written last: where it exists, all parts do. A Content that is
//! put again is marked as used, so that a sweep that looked before cannot take it away after.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{
        DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions,
    },
};
use muster_api::{Content, ContentSpec, Work, WorkPlacement, content::PART_BYTES_MAX};
use muster_core::{
    Digest, FileSet,
    content::{OUTPUT_BYTES_MAX, OUTPUT_FILES_MAX, PATH_LEN_MAX},
    encode::DecodeError,
};
use muster_daemon::Clock;

/// How long a Content that nobody names is kept: longer than from storing a result to making its
/// Work, and long enough to put back what was removed by mistake.
pub const SWEEP_GRACE: Duration = Duration::from_secs(600);
/// Compression level: zstd's default, at which a small manifest takes microseconds.
const LEVEL: i32 = 3;
/// Most canonical bytes: the files, and for each file its path and two lengths.
const CANONICAL_BYTES_MAX: usize = OUTPUT_BYTES_MAX + OUTPUT_FILES_MAX * (PATH_LEN_MAX + 8) + 64;
/// Most parts that are read: what cannot be compressed at all, and some.
const PARTS_MAX: i64 = (CANONICAL_BYTES_MAX / PART_BYTES_MAX) as i64 + 2;
/// How many objects one page of a sweep's list has.
const PAGE: u32 = 500;
/// When a Content was last put (RFC 3339).
const USED_AT: &str = "fleet.muster.dev/used-at";

/// Stores file sets as Content objects.
#[derive(Clone)]
pub struct ContentStore {
    client: Client,
    clock: Clock,
}

/// Why content could not be stored or had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The API failed.
    #[error("Content {digest} could not be {action}")]
    Api {
        /// What was to be done.
        action: &'static str,
        /// Which one.
        digest: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is no such Content, or a part of it is missing.
    #[error("Content {0} is not stored: run the pipelines that made it again")]
    Missing(String),
    /// The stored bytes are not what their name says.
    #[error("Content {digest} is damaged ({cause}): delete it, and run the pipelines again")]
    Damaged {
        /// Which one.
        digest: Digest,
        /// What is wrong.
        cause: String,
    },
}

impl ContentStore {
    /// A store over the API.
    pub fn new(client: Client, clock: Clock) -> Self {
        Self { client, clock }
    }

    /// Stores a file set; equal sets are stored once.
    pub async fn put(&self, files: &FileSet) -> Result<Digest, ContentError> {
        let canonical = files.encode();
        let digest = Digest::of(&canonical);
        let head = self.api().get_metadata_opt(&digest.to_string()).await;
        if let Some(head) = head.map_err(failed("read", digest))? {
            return self.mark_used(digest, &head).await.map(|()| digest);
        }
        let compressed =
            zstd::bulk::compress(&canonical, LEVEL).map_err(|error| damaged(digest, error))?;
        let chunks: Vec<_> = compressed.chunks(PART_BYTES_MAX).collect();
        for (index, chunk) in chunks.iter().enumerate().rev() {
            let spec = ContentSpec {
                size: count(files.size()),
                files: count(files.len()),
                parts: count(chunks.len()),
                data: STANDARD.encode(chunk),
            };
            self.create(digest, index, spec).await?;
        }
        Ok(digest)
    }

    /// The zstd-compressed canonical bytes.
    pub async fn compressed(&self, digest: Digest) -> Result<Bytes, ContentError> {
        let first = self.part(digest, 0).await?;
        let parts = first.spec.parts;
        if !(1..=PARTS_MAX).contains(&parts) {
            return Err(damaged(digest, format!("it has {parts} parts")));
        }
        let mut bytes = decode(digest, &first)?;
        for index in 1..usize::try_from(parts).unwrap_or_default() {
            bytes.extend(decode(digest, &self.part(digest, index).await?)?);
        }
        Ok(bytes.into())
    }

    /// The files.
    pub async fn get(&self, digest: Digest) -> Result<FileSet, ContentError> {
        let compressed = self.compressed(digest).await?;
        let canonical = zstd::bulk::decompress(&compressed, CANONICAL_BYTES_MAX)
            .map_err(|error| damaged(digest, error))?;
        if Digest::of(&canonical) != digest {
            return Err(damaged(digest, "its bytes have another digest"));
        }
        FileSet::decode(&canonical).map_err(|error: DecodeError| damaged(digest, error))
    }

    /// Deletes what nobody names and nobody put within [`SWEEP_GRACE`]. Says how many, and when the
    /// next one may be due.
    pub async fn sweep(&self, now: Timestamp) -> Result<(usize, Option<Timestamp>), ContentError> {
        let stored = self.stored().await?;
        // Named is read after stored: what was named in between is in it.
        let named = self.named().await?;
        let mut swept = 0;
        let mut next: Option<Timestamp> = None;
        for (name, content) in &stored {
            let digest = name.split('.').next().unwrap_or_default();
            if named.contains(digest) {
                continue;
            }
            let due = used_at(stored.get(digest).unwrap_or(content)) + SWEEP_GRACE;
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            swept += usize::from(self.delete(name, content).await?);
        }
        Ok((swept, next))
    }

    fn api(&self) -> Api<Content> {
        Api::all(self.client.clone())
    }

    async fn create(
        &self,
        digest: Digest,
        index: usize,
        spec: ContentSpec,
    ) -> Result<(), ContentError> {
        let name = part_name(digest, index);
        let content = Content::new(&name, spec);
        match self.api().create(&PostParams::default(), &content).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let held = self.part(digest, index).await?;
                if held.spec == content.spec {
                    return Ok(());
                }
                // A part of a put that another version of the hub did not finish.
                let deleted = self.api().delete(&name, &DeleteParams::default()).await;
                deleted.map_err(failed("replaced", digest))?;
                let created = self.api().create(&PostParams::default(), &content).await;
                created.map(drop).map_err(failed("stored", digest))
            }
            Err(error) => Err(failed("stored", digest)(error)),
        }
    }

    async fn part(&self, digest: Digest, index: usize) -> Result<Content, ContentError> {
        let name = part_name(digest, index);
        let found = self.api().get_opt(&name).await.map_err(failed("read", digest))?;
        found.ok_or(ContentError::Missing(name))
    }

    /// Half the grace is enough between two marks: a Content is then never due right after a put.
    async fn mark_used(
        &self,
        digest: Digest,
        head: &PartialObjectMeta<Content>,
    ) -> Result<(), ContentError> {
        let now = self.clock.now();
        if used_at(head) + SWEEP_GRACE / 2 > now {
            return Ok(());
        }
        let patch = serde_json::json!({"metadata": {"annotations": {USED_AT: now.to_string()}}});
        let name = digest.to_string();
        let patched =
            self.api().patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(failed("marked as used", digest))
    }

    async fn stored(&self) -> Result<BTreeMap<String, PartialObjectMeta<Content>>, ContentError> {
        let mut all = BTreeMap::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.api().list_metadata(&params).await.map_err(failed("listed", "*"))?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            all.extend(page.items.into_iter().filter_map(|c| Some((c.metadata.name.clone()?, c))));
            match next {
                Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    async fn named(&self) -> Result<BTreeSet<String>, ContentError> {
        let mut named = BTreeSet::new();
        let works: Api<Work> = Api::all(self.client.clone());
        let works = works.list(&ListParams::default()).await.map_err(failed("looked up", "*"))?;
        for work in works {
            named.extend(work.spec.workload_groups.into_iter().map(|group| group.digest));
        }
        let placements: Api<WorkPlacement> = Api::all(self.client.clone());
        let placements = placements.list(&ListParams::default()).await;
        for placement in placements.map_err(failed("looked up", "*"))? {
            named.insert(placement.spec.digest);
            named.extend(placement.status.and_then(|status| status.applied_digest));
        }
        Ok(named)
    }

    /// Deletes a part if nobody touched it since it was looked at; the first part goes like any
    /// other, and a later put finds it missing and stores all parts again.
    async fn delete(
        &self,
        name: &str,
        seen: &PartialObjectMeta<Content>,
    ) -> Result<bool, ContentError> {
        let preconditions = Preconditions {
            resource_version: seen.metadata.resource_version.clone(),
            uid: seen.metadata.uid.clone(),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        match self.api().delete(name, &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(failed("deleted", name)(error)),
        }
    }
}

fn part_name(digest: Digest, index: usize) -> String {
    if index == 0 { digest.to_string() } else { format!("{digest}.{index}") }
}

fn used_at(content: &PartialObjectMeta<Content>) -> Timestamp {
    let annotations = content.metadata.annotations.as_ref();
    let marked = annotations.and_then(|all| all.get(USED_AT)).and_then(|text| text.parse().ok());
    let created = content.metadata.creation_timestamp.as_ref().map(|time| time.0);
    marked.into_iter().chain(created).max().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn decode(digest: Digest, part: &Content) -> Result<Vec<u8>, ContentError> {
    STANDARD.decode(&part.spec.data).map_err(|error| damaged(digest, error))
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn failed(action: &'static str, digest: impl ToString) -> impl FnOnce(kube::Error) -> ContentError {
    let digest = digest.to_string();
    move |source| ContentError::Api { action, digest, source: Box::new(source) }
}

fn damaged(digest: Digest, cause: impl ToString) -> ContentError {
    ContentError::Damaged { digest, cause: cause.to_string() }
}
