//! A row of the log: what happened to which object, and the object itself, maybe encrypted.
//!
//! Flags (1 byte), where the resource version stands (u32), kind, namespace and name (each u16
//! length and bytes), then the object's JSON, or what [`Sealing`] made of it. Little-endian.

use std::{borrow::Cow, sync::Arc};

use super::{
    object::{Key, Meta, Object},
    seal::{KeyId, OpenError, Sealing},
    table::{Event, EventKind, State},
};

/// The object was removed.
const DELETED: u8 = 1;
/// The JSON is encrypted. Programs that know format 1 alone would not understand it.
const SEALED: u8 = 2;

/// Why a row cannot be read or made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged,
    /// Encrypted with a key that is not at hand.
    Key(KeyId),
    /// It cannot be encrypted.
    Seal,
}

impl From<OpenError> for Unreadable {
    fn from(error: OpenError) -> Unreadable {
        match error {
            OpenError::Damaged => Unreadable::Damaged,
            OpenError::Key(id) => Unreadable::Key(id),
        }
    }
}

pub(super) fn encode(event: &Event, sealing: &Sealing) -> Result<Vec<u8>, Unreadable> {
    let object = &event.object;
    let sealed = sealing.wants(&object.key.kind);
    let mut row = Vec::with_capacity(object.bytes.len() + 96);
    let deleted = if event.kind == EventKind::Deleted { DELETED } else { 0 };
    row.push(deleted | if sealed.is_some() { SEALED } else { 0 });
    row.extend_from_slice(&(object.version_at.start as u32).to_le_bytes());
    for text in [&*object.key.kind, &object.key.namespace, &object.key.name] {
        row.extend_from_slice(&(text.len() as u16).to_le_bytes());
        row.extend_from_slice(text.as_bytes());
    }
    match sealed {
        None => row.extend_from_slice(&object.bytes),
        Some(key) => {
            let bound = bound_to(object.revision, &row);
            row.extend(key.seal(&bound, &object.bytes).ok_or(Unreadable::Seal)?);
        }
    }
    Ok(row)
}

/// Reads the row of a revision, on top of the rows before it.
pub(super) fn decode(
    revision: u64,
    row: &[u8],
    state: &State,
    sealing: &Sealing,
) -> Result<Event, Unreadable> {
    let Parts { flags, start, key, header, payload } = split(row).ok_or(Unreadable::Damaged)?;
    let json = open(revision, (flags, header, payload), sealing)?;
    let meta = Meta::of_bytes(&json).map_err(|_| Unreadable::Damaged)?;
    let version_at = start..start + revision.to_string().len();
    if json.get(version_at.clone()) != Some(revision.to_string().as_bytes()) {
        return Err(Unreadable::Damaged);
    }
    let prev = state.get(&key).cloned();
    let kind = match (flags & DELETED != 0, &prev) {
        (true, _) => EventKind::Deleted,
        (false, None) => EventKind::Added,
        (false, Some(_)) => EventKind::Modified,
    };
    let bytes = bytes::Bytes::copy_from_slice(&json);
    let object = Object { key, revision, bytes, meta, version_at, line: None };
    Ok(Event::new(kind, Arc::new(object), prev))
}

/// The same row as it would be written now; `None`: it is so already.
pub(super) fn reseal(
    revision: u64,
    row: &[u8],
    sealing: &Sealing,
) -> Result<Option<Vec<u8>>, Unreadable> {
    if is_sealed_as_wanted(row, sealing) {
        return Ok(None);
    }
    let Parts { flags, key, header, payload, .. } = split(row).ok_or(Unreadable::Damaged)?;
    let json = open(revision, (flags, header, payload), sealing)?;
    let mut row = header.to_vec();
    match sealing.wants(&key.kind) {
        None => {
            row[0] = flags & !SEALED;
            row.extend_from_slice(&json);
        }
        Some(key) => {
            row[0] = flags | SEALED;
            let bound = bound_to(revision, &row);
            row.extend(key.seal(&bound, &json).ok_or(Unreadable::Seal)?);
        }
    }
    Ok(Some(row))
}

/// Whether a row would be written so now.
pub(super) fn is_sealed_as_wanted(row: &[u8], sealing: &Sealing) -> bool {
    split(row).is_some_and(|Parts { flags, key, payload, .. }| {
        let sealed = (flags & SEALED != 0).then(|| KeyId::of_sealed(payload)).flatten();
        sealed == sealing.wants(&key.kind).map(|key| key.id())
    })
}

/// The kind of a row's object.
pub(super) fn kind_of(row: &[u8]) -> Option<Arc<str>> {
    split(row).map(|parts| parts.key.kind)
}

struct Parts<'r> {
    flags: u8,
    /// Where the resource version stands in the JSON.
    start: usize,
    key: Key,
    header: &'r [u8],
    payload: &'r [u8],
}

fn split(row: &[u8]) -> Option<Parts<'_>> {
    let (flags, rest) = row.split_first()?;
    let (start, mut rest) = rest.split_first_chunk::<4>()?;
    let start = u32::from_le_bytes(*start) as usize;
    let mut text = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
        rest = after;
        String::from_utf8(text.to_vec()).ok()
    };
    let key = Key { kind: text()?.into(), namespace: text()?, name: text()? };
    if flags & !(DELETED | SEALED) != 0 {
        return None;
    }
    let (header, payload) = row.split_at(row.len() - rest.len());
    Some(Parts { flags: *flags, start, key, header, payload })
}

fn open<'r>(
    revision: u64,
    (flags, header, payload): (u8, &[u8], &'r [u8]),
    sealing: &Sealing,
) -> Result<Cow<'r, [u8]>, Unreadable> {
    if flags & SEALED == 0 {
        return Ok(Cow::Borrowed(payload));
    }
    Ok(Cow::Owned(sealing.open(&bound_to(revision, header), payload)?))
}

/// What an encrypted object is bound to: it opens in its own row alone, so that nobody who can
/// write the file can give one Secret the content of another, or of an older one.
fn bound_to(revision: u64, header: &[u8]) -> Vec<u8> {
    let mut bound = b"muster row".to_vec();
    bound.extend_from_slice(&revision.to_le_bytes());
    bound.extend_from_slice(header);
    bound
}
