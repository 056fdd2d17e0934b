//! A bucket of an S3 server. Objects are put side by side, lists after what they list, and removals
//! come last, so that a reader who finds a list finds all that it names.

mod address;
mod known;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use md5::{Digest as _, Md5};
use muster_core::directory::join;
use muster_daemon::Clock;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::MultipartStore,
    path::Path,
};
use sha2::Sha256;
use tokio::{sync::Mutex, time::timeout};

use crate::{
    Drift, Entry, StateStore, Trouble, Written,
    access::{BucketAccess, BucketAuth},
    change::{Change, Files, read_list, write_list},
};
use known::{Asked, Found, Known, State};

/// How many requests are under way at once: enough to hide a server's delay, few enough for its
/// limits.
const AT_ONCE: usize = 16;
/// How often all objects are looked at for what others changed: a list is cheap, but not free.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Most objects that are listed for it; a bucket with more is shared with others, and each
/// placement's directory is looked at instead.
const LOOK_MAX: usize = 200_000;
/// How many objects an answer to a list names.
const LIST_LEN: usize = 1000;
/// How many lists are no more work than a write: then all that others changed is seen at each.
const FEW_LISTS: usize = 4;
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the store may take to say whether it takes files: a user should hear within half a
/// minute that it does not answer.
const PROBE_MAX: Duration = Duration::from_secs(15);
/// How often a request is made again at once; then the store counts as not ready.
const RETRIES: usize = 2;
/// An upload of this name is begun and given up to see whether writing is allowed, as in Kratix.
const PROBE: &str = ".kratix-write-permission-check";

/// A bucket that can be written to.
pub struct BucketStore {
    access: BucketAccess,
    bucket: AmazonS3,
    state: Mutex<State>,
    clock: Clock,
}

/// What one write has to do.
#[derive(Debug, Default)]
struct Plan {
    /// Objects that are no lists.
    files: Files,
    /// Lists: what they shall say at the end, and what is still there until then.
    lists: BTreeMap<String, (Bytes, Option<Bytes>)>,
    /// What goes.
    removed: BTreeSet<String>,
    /// For each entry, the objects that make its version.
    of_entry: Vec<Vec<String>>,
}

impl BucketStore {
    /// Prepares the client.
    pub fn open(access: BucketAccess, clock: &Clock) -> Result<Self, Trouble> {
        let wrong = |error: object_store::Error| {
            let cause = crate::trouble_chain(&error);
            Trouble::store("ErrorInitialisingWriter", format!("bucket {}: {cause}", access.bucket))
        };
        let mut options = ClientOptions::new()
            .with_allow_http(access.insecure)
            .with_timeout(REQUEST_MAX)
            .with_connect_timeout(CONNECT_MAX);
        if let Some(pem) = &access.authorities {
            for certificate in object_store::Certificate::from_pem_bundle(pem).map_err(wrong)? {
                options = options.with_root_certificate(certificate);
            }
        }
        let place = address::place(&access)?;
        let builder = match &access.auth {
            BucketAuth::Key { id, secret } => AmazonS3Builder::new()
                .with_access_key_id(id)
                .with_secret_access_key(secret.text().unwrap_or_default().trim()),
            BucketAuth::Ambient => AmazonS3Builder::from_env(),
        };
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let bucket = builder
            .with_bucket_name(&access.bucket)
            .with_endpoint(place.url)
            .with_region(place.region)
            .with_virtual_hosted_style_request(false)
            .with_client_options(options)
            .with_allow_http(access.insecure)
            .with_retry(retry)
            .with_disable_bulk_delete(true)
            .build()
            .map_err(wrong)?;
        Ok(Self { access, bucket, state: Mutex::default(), clock: clock.clone() })
    }

    fn trouble(&self, error: &object_store::Error) -> Trouble {
        words::trouble(error, &self.access)
    }

    /// Looks at what this write is about, as it is now: others may have changed it since. Where
    /// everything can be listed for little more, it is; then all that others changed is told.
    async fn learn(&self, state: &mut State, entries: &[Entry]) -> Result<Drift, Trouble> {
        let asked = Asked::of(entries);
        let lists = 1 + state.len() / LIST_LEN;
        if lists <= asked.len().max(FEW_LISTS)
            && let Some(found) = self.list_all(state.top(&asked)).await?
        {
            let drift = state.compare(&found);
            state.learn(asked, found);
            return Ok(drift);
        }
        let lists = stream::iter(asked.directories.clone()).map(|path| async move {
            let found = self.bucket.list(Some(&key(&path)?)).try_collect::<Vec<_>>().await;
            found.map_err(|error| self.trouble(&error))
        });
        let lists: Vec<_> = lists.buffer_unordered(AT_ONCE).try_collect().await?;
        let heads = stream::iter(asked.objects.clone()).map(|path| async move {
            match self.bucket.head(&key(&path)?).await {
                Ok(meta) => Ok(Some(meta)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.trouble(&error)),
            }
        });
        let heads: Vec<_> = heads.buffer_unordered(AT_ONCE).try_collect().await?;
        let found = lists.into_iter().flatten().chain(heads.into_iter().flatten());
        state.learn(asked, found.map(|meta| (meta.location.to_string(), meta)).collect());
        Ok(Drift::None)
    }

    /// All objects below a directory, unless they are too many.
    async fn list_all(&self, top: String) -> Result<Option<Found>, Trouble> {
        let prefix = if top.is_empty() { None } else { Some(key(&top)?) };
        let listed = self.bucket.list(prefix.as_ref()).take(LOOK_MAX + 1);
        let listed = listed.map_ok(|meta| (meta.location.to_string(), meta));
        let listed: Found = listed.try_collect().await.map_err(|error| self.trouble(&error))?;
        Ok((listed.len() <= LOOK_MAX).then_some(listed))
    }

    /// What a list of mode none says now.
    async fn stale(&self, state: &State, change: &Change) -> Result<Vec<String>, Trouble> {
        let Change::Listed { list, root, relative_to, .. } = change else { return Ok(Vec::new()) };
        if !state.has(list) {
            return Ok(Vec::new());
        }
        match self.bucket.get(&key(list)?).await {
            Ok(found) => {
                let text = found.bytes().await.map_err(|error| self.trouble(&error))?;
                Ok(read_list(&text, root, relative_to))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(self.trouble(&error)),
        }
    }

    async fn plan(&self, state: &State, entries: &[Entry]) -> Result<Plan, Trouble> {
        let mut plan = Plan::default();
        for entry in entries {
            let stale = self.stale(state, &entry.change).await?;
            plan.add(state, &entry.change, stale);
        }
        let written: BTreeSet<_> = plan.files.keys().chain(plan.lists.keys()).cloned().collect();
        plan.removed.retain(|path| state.has(path) && !written.contains(path));
        Ok(plan)
    }

    /// Puts what is not there yet; says how many that were.
    async fn put(
        &self,
        state: &mut State,
        files: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<usize, Trouble> {
        let fresh: Vec<_> =
            files.into_iter().filter(|(path, bytes)| !state.holds(path, bytes)).collect();
        // What is being written is not known until it is answered.
        fresh.iter().for_each(|(path, _)| state.forget(path));
        let count = fresh.len();
        let puts = stream::iter(fresh).map(|(path, bytes)| async move {
            let md5 = Some(Md5::digest(&bytes).into());
            let put = self.bucket.put(&key(&path)?, PutPayload::from(bytes)).await;
            let put = put.map_err(|error| self.trouble(&error))?;
            Ok::<_, Trouble>((path, Known { etag: put.e_tag, version: put.version, md5 }))
        });
        let mut puts = puts.buffer_unordered(AT_ONCE);
        while let Some(put) = puts.next().await {
            let (path, known) = put?;
            state.know(path, known);
        }
        Ok(count)
    }

    async fn remove(&self, state: &mut State, paths: BTreeSet<String>) -> Result<usize, Trouble> {
        let count = paths.len();
        let removals = stream::iter(paths).map(|path| async move {
            match self.bucket.delete(&key(&path)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(path),
                Err(error) => Err(self.trouble(&error)),
            }
        });
        let mut removals = removals.buffer_unordered(AT_ONCE);
        while let Some(path) = removals.next().await {
            state.forget(&path?);
        }
        Ok(count)
    }

    async fn write(&self, entries: &[Entry]) -> Result<Written, Trouble> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let drift = self.learn(state, entries).await?;
        let mut plan = self.plan(state, entries).await?;
        let mut requests = self.put(state, std::mem::take(&mut plan.files)).await?;
        let until = plan.lists.iter().map(|(path, (last, until))| {
            (path.clone(), until.clone().unwrap_or_else(|| last.clone()))
        });
        let until: Vec<_> = until.collect();
        requests += self.put(state, until).await?;
        requests += self.remove(state, std::mem::take(&mut plan.removed)).await?;
        let last: Vec<_> = plan.lists.into_iter().map(|(path, (last, _))| (path, last)).collect();
        requests += self.put(state, last).await?;
        let versions = plan.of_entry.iter().map(|paths| version(state, paths)).collect();
        Ok(Written { versions, changed: requests > 0, requests, drift })
    }

    async fn probe(&self) -> Result<Drift, Trouble> {
        let allowed = timeout(PROBE_MAX, self.try_writing()).await;
        allowed.unwrap_or_else(|_| Err(words::silent(&self.access)))?;
        let mut state = self.state.lock().await;
        let now = self.clock.instant();
        if state.looked.is_some_and(|looked| now - looked < LOOK_EVERY) {
            return Ok(Drift::None);
        }
        let drift = self.look(&mut state).await?;
        state.looked = Some(now);
        Ok(drift)
    }

    /// Begins to write, and gives it up.
    async fn try_writing(&self) -> Result<(), Trouble> {
        let path = Path::from(PROBE);
        let begun = self.bucket.create_multipart(&path).await;
        let begun = begun.map_err(|error| self.trouble(&error))?;
        let ended = self.bucket.abort_multipart(&path, &begun).await;
        ended.map_err(|error| self.trouble(&error))
    }

    /// Compares all objects with what is known of them.
    async fn look(&self, state: &mut State) -> Result<Drift, Trouble> {
        if state.len() == 0 {
            // All that is ours is about to be written, and so looked at, for the first time.
            return Ok(Drift::None);
        }
        match self.list_all(state.top(&Asked::default())).await? {
            Some(found) => Ok(state.compare(&found)),
            None => {
                *state = State::default();
                Ok(Drift::Unknown)
            }
        }
    }
}

impl Plan {
    fn add(&mut self, state: &State, change: &Change, stale: Vec<String>) {
        let mut own = Vec::new();
        match change {
            Change::Directory { path, files } => {
                self.removed.extend(state.below(path).cloned());
                let files = files.iter().map(|(name, bytes)| (join(path, name), bytes.clone()));
                own.extend(files);
            }
            Change::File { path, bytes: Some(bytes) } => own.push((path.clone(), bytes.clone())),
            Change::File { path, bytes: None } => drop(self.removed.insert(path.clone())),
            Change::Listed { list, relative_to, files, before, .. } => {
                let gone: Vec<_> =
                    stale.into_iter().filter(|path| !files.contains_key(path)).collect();
                if files.is_empty() {
                    self.removed.extend(before.iter().cloned());
                    self.removed.insert(list.clone());
                } else {
                    let all = files.keys().chain(&gone).map(String::as_str);
                    let until = (!gone.is_empty()).then(|| write_list(all, relative_to));
                    let last = write_list(files.keys().map(String::as_str), relative_to);
                    self.lists.insert(list.clone(), (last, until));
                    own.extend(files.iter().map(|(path, bytes)| (path.clone(), bytes.clone())));
                }
                self.removed.extend(gone);
            }
        }
        self.of_entry.push(own.iter().map(|(path, _)| path.clone()).collect());
        self.files.extend(own);
    }
}

/// One name for the versions of several objects; an object of a bucket without versions has its
/// ETag.
fn version(state: &State, paths: &[String]) -> String {
    let mut hash = Sha256::new();
    for path in paths {
        let known = state.get(path);
        let version = known.and_then(|known| known.version.as_deref().or(known.etag.as_deref()));
        hash.update(format!("{path}\n{}\n", version.unwrap_or_default()));
    }
    hex::encode(hash.finalize())
}

fn key(path: &str) -> Result<Path, Trouble> {
    Path::parse(path).map_err(|error| {
        let message =
            format!("{path:?} cannot be the name of an object ({error}): rename the file");
        Trouble::batch("InvalidPath", message)
    })
}

impl StateStore for BucketStore {
    fn probe(&self) -> BoxFuture<'_, Result<Drift, Trouble>> {
        self.probe().boxed()
    }

    fn write<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<Written, Trouble>> {
        self.write(entries).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_what_still_has_to_go_until_it_is_gone() {
        let change = Change::Listed {
            list: "d/.kratix/x.yaml".into(),
            root: "d".into(),
            relative_to: String::new(),
            files: Files::from([("d/new".to_owned(), Bytes::from_static(b"1"))]),
            before: vec!["d/new".into()],
        };
        let mut plan = Plan::default();
        plan.add(&State::default(), &change, vec!["d/old".into(), "d/new".into()]);
        let (last, until) = &plan.lists["d/.kratix/x.yaml"];
        assert_eq!(last, "files:\n- d/new\n");
        assert_eq!(until.as_ref().unwrap(), "files:\n- d/new\n- d/old\n");
        assert_eq!(plan.removed.iter().collect::<Vec<_>>(), ["d/old"]);
    }
}
