//! A bucket of an S3 server. Objects are put side by side, lists after what they list, and removals
//! come last, so that a reader who finds a list finds all that it names.

mod address;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use md5::{Digest as _, Md5};
use muster_core::directory::{is_below, join};
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::MultipartStore,
    path::Path,
};
use sha2::Sha256;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    Drift, Entry, StateStore, Trouble, Written,
    access::{BucketAccess, BucketAuth},
    change::{Change, Files, read_list, write_list},
};

/// How many requests are under way at once: enough to hide a server's delay, few enough for its
/// limits.
const AT_ONCE: usize = 16;
/// How often all objects are looked at for what others changed: a list is cheap, but not free.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Most objects that are listed for it; a bucket with more is shared with others, and each
/// placement's directory is looked at instead.
const LOOK_MAX: usize = 200_000;
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a request is made again at once; then the store counts as not ready.
const RETRIES: usize = 2;
/// An upload of this name is begun and given up to see whether writing is allowed, as in Kratix.
const PROBE: &str = ".kratix-write-permission-check";

/// A bucket that can be written to.
pub struct BucketStore {
    access: BucketAccess,
    bucket: AmazonS3,
    state: Mutex<State>,
}

/// What is known of the bucket's objects: those of ours, and what was found beside them.
#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Known>,
    /// Directories whose every object is known.
    directories: BTreeSet<String>,
    looked: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    etag: Option<String>,
    version: Option<String>,
    /// Of what we put there.
    md5: Option<[u8; 16]>,
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
    pub fn open(access: BucketAccess) -> Result<Self, Trouble> {
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
        Ok(Self { access, bucket, state: Mutex::default() })
    }

    fn trouble(&self, error: &object_store::Error) -> Trouble {
        words::trouble(error, &self.access)
    }

    /// Learns what is below the directories that this write is about.
    async fn learn(&self, state: &mut State, entries: &[Entry]) -> Result<(), Trouble> {
        let directories = entries.iter().filter_map(|entry| match &entry.change {
            Change::Directory { path, .. } => Some(path.clone()),
            _ => None,
        });
        let unknown: BTreeSet<_> =
            directories.filter(|path| !state.directories.contains(path)).collect();
        let lists = stream::iter(unknown).map(|path| async move {
            let found = self.bucket.list(Some(&key(&path)?)).try_collect::<Vec<_>>().await;
            Ok((path, found.map_err(|error| self.trouble(&error))?))
        });
        let found: Vec<_> = lists.buffer_unordered(AT_ONCE).try_collect().await?;
        for (path, objects) in found {
            state.objects.extend(
                objects.into_iter().map(|meta| (meta.location.to_string(), Known::of(&meta))),
            );
            state.directories.insert(path);
        }
        let single = entries.iter().flat_map(|entry| match &entry.change {
            Change::Directory { .. } => Vec::new(),
            Change::File { path, .. } => vec![path.clone()],
            Change::Listed { list, files, before, .. } => {
                files.keys().chain(before).chain([list]).cloned().collect()
            }
        });
        let unknown: BTreeSet<_> =
            single.filter(|path| !state.objects.contains_key(path)).collect();
        let heads = stream::iter(unknown).map(|path| async move {
            match self.bucket.head(&key(&path)?).await {
                Ok(meta) => Ok(Some((path, Known::of(&meta)))),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.trouble(&error)),
            }
        });
        let found: Vec<_> = heads.buffer_unordered(AT_ONCE).try_collect().await?;
        state.objects.extend(found.into_iter().flatten());
        Ok(())
    }

    /// What a list of mode none says now.
    async fn stale(&self, state: &State, change: &Change) -> Result<Vec<String>, Trouble> {
        let Change::Listed { list, root, relative_to, .. } = change else { return Ok(Vec::new()) };
        if !state.objects.contains_key(list) {
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
        plan.removed.retain(|path| state.objects.contains_key(path) && !written.contains(path));
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
        fresh.iter().for_each(|(path, _)| drop(state.objects.remove(path)));
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
            state.objects.insert(path, known);
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
            state.objects.remove(&path?);
        }
        Ok(count)
    }

    async fn write(&self, entries: &[Entry]) -> Result<Written, Trouble> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        self.learn(state, entries).await?;
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
        Ok(Written { versions, changed: requests > 0, requests, drift: Drift::None })
    }

    async fn probe(&self) -> Result<Drift, Trouble> {
        let path = Path::from(PROBE);
        let begun =
            self.bucket.create_multipart(&path).await.map_err(|error| self.trouble(&error))?;
        let ended = self.bucket.abort_multipart(&path, &begun).await;
        ended.map_err(|error| self.trouble(&error))?;
        let mut state = self.state.lock().await;
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(Drift::None);
        }
        let first = state.looked.replace(Instant::now()).is_none();
        if first || state.objects.is_empty() {
            // All that is ours is about to be written, and so looked at, for the first time.
            return Ok(Drift::None);
        }
        self.look(&mut state).await
    }

    /// Compares all objects with what is known of them.
    async fn look(&self, state: &mut State) -> Result<Drift, Trouble> {
        let top = common_directory(state.objects.keys().map(String::as_str));
        let prefix = if top.is_empty() { None } else { Some(key(&top)?) };
        let listed = self.bucket.list(prefix.as_ref()).take(LOOK_MAX + 1);
        let listed: Vec<_> = listed.try_collect().await.map_err(|error| self.trouble(&error))?;
        if listed.len() > LOOK_MAX {
            state.directories.clear();
            state.objects.clear();
            return Ok(Drift::Unknown);
        }
        let found: BTreeMap<_, _> =
            listed.into_iter().map(|meta| (meta.location.to_string(), meta.e_tag)).collect();
        let changed =
            state.objects.iter().filter(|(path, known)| found.get(*path) != Some(&known.etag));
        let mut drift: Vec<_> = changed.map(|(path, _)| path.clone()).collect();
        let strange = found.keys().filter(|path| {
            !state.objects.contains_key(*path)
                && path.match_indices('/').any(|(end, _)| state.directories.contains(&path[..end]))
        });
        drift.extend(strange.cloned());
        for path in &drift {
            state.objects.remove(path);
            state.directories.retain(|directory| !is_below(path, directory));
        }
        Ok(if drift.is_empty() { Drift::None } else { Drift::Paths(drift) })
    }
}

impl Plan {
    fn add(&mut self, state: &State, change: &Change, stale: Vec<String>) {
        let mut own = Vec::new();
        match change {
            Change::Directory { path, files } => {
                let inside = format!("{path}/");
                let held = state.objects.range(inside.clone()..).map(|(path, _)| path);
                self.removed.extend(held.take_while(|path| path.starts_with(&inside)).cloned());
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

impl Known {
    fn of(meta: &ObjectMeta) -> Self {
        Self { etag: meta.e_tag.clone(), version: meta.version.clone(), md5: None }
    }
}

impl State {
    /// Whether an object is this already: by what we put, or by an ETag that is the MD5 of the bytes.
    fn holds(&self, path: &str, bytes: &[u8]) -> bool {
        let Some(known) = self.objects.get(path) else { return false };
        let md5: [u8; 16] = Md5::digest(bytes).into();
        let etag = known.etag.as_deref().map(|etag| etag.trim_matches('"'));
        known.md5 == Some(md5) || etag == Some(hex::encode(md5).as_str())
    }
}

/// One name for the versions of several objects; an object of a bucket without versions has its
/// ETag.
fn version(state: &State, paths: &[String]) -> String {
    let mut hash = Sha256::new();
    for path in paths {
        let known = state.objects.get(path);
        let version = known.and_then(|known| known.version.as_deref().or(known.etag.as_deref()));
        hash.update(format!("{path}\n{}\n", version.unwrap_or_default()));
    }
    hex::encode(hash.finalize())
}

/// The deepest directory that holds all paths; empty for the top.
fn common_directory<'a>(paths: impl IntoIterator<Item = &'a str>) -> String {
    let mut paths = paths.into_iter();
    let directory = |path: &'a str| path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut common = paths.next().map(directory).unwrap_or_default();
    for path in paths {
        while !is_below(path, common) {
            common = directory(common);
        }
    }
    common.to_owned()
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
    fn the_deepest_common_directory_is_what_is_listed() {
        for (paths, expected) in [
            (&["a/b/c", "a/b/d/e"][..], "a/b"),
            (&["a/b", "ab/c"], ""),
            (&["a/b/c"], "a/b"),
            (&["x"], ""),
            (&["farm/one/x", "farm/two/y", "farm/one/z"], "farm"),
        ] {
            assert_eq!(common_directory(paths.iter().copied()), expected);
        }
    }

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
