//! Entries → one commit, as `git fast-import` reads it. Removals come first, so that what one
//! placement gives up another may take in the same commit.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_core::directory::join;

use crate::{
    access::Author,
    change::{Change, Entry, Files, write_list},
};

/// What lists named before, by the position of their entry.
pub(super) type Stale = BTreeMap<usize, Vec<String>>;

/// Most owners that a message names: it is for people.
const NAMED_MAX: usize = 1000;

/// The message: who is written, who is removed.
pub(super) fn message(entries: &[Entry]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in entries {
        let verb = if entry.change.removes() { "Delete" } else { "Update" };
        if seen.insert((verb, &entry.owner)) {
            lines.push(format!("{verb} from: {}", entry.owner));
        }
    }
    if lines.len() <= 1 {
        return lines.concat();
    }
    let all = lines.len();
    let owners: BTreeSet<_> = entries.iter().map(|entry| &entry.owner).collect();
    lines.truncate(NAMED_MAX);
    if all > NAMED_MAX {
        lines.push(format!("(and {} more)", all - NAMED_MAX));
    }
    format!("Update {} placements\n\n{}", owners.len(), lines.join("\n"))
}

/// The whole input of `fast-import`. Bytes of files are shared, not copied.
pub(super) fn stream(
    entries: &[Entry],
    stale: &Stale,
    parent: Option<&str>,
    message: &str,
    author: &Author,
    seconds: i64,
) -> Vec<Bytes> {
    let clean = |text: &str| text.replace(['<', '>', '\n', '\0'], "");
    let mut head = format!(
        "commit refs/muster/next\ncommitter {} <{}> {seconds} +0000\ndata {}\n{message}\n",
        clean(&author.name),
        clean(&author.email),
        message.len()
    );
    if let Some(parent) = parent {
        head.push_str(&format!("from {parent}\n"));
    }
    let (removed, written) = plan(entries, stale);
    for path in removed {
        head.push_str(&format!("D {}\n", quote(&path)));
    }
    let mut stream = vec![Bytes::from(head)];
    for (path, bytes) in written {
        let header = format!("M 100644 inline {}\ndata {}\n", quote(&path), bytes.len());
        stream.extend([Bytes::from(header), bytes, Bytes::from_static(b"\n")]);
    }
    stream.push(Bytes::from_static(b"\ndone\n"));
    stream
}

/// What goes, and what is then written.
fn plan(entries: &[Entry], stale: &Stale) -> (BTreeSet<String>, Files) {
    let (mut removed, mut written) = (BTreeSet::new(), Files::new());
    for (index, entry) in entries.iter().enumerate() {
        match &entry.change {
            Change::Directory { path, files } => {
                removed.insert(path.clone());
                let files = files.iter().map(|(name, bytes)| (join(path, name), bytes.clone()));
                written.extend(files);
            }
            Change::File { path, bytes } => match bytes {
                Some(bytes) => drop(written.insert(path.clone(), bytes.clone())),
                None => drop(removed.insert(path.clone())),
            },
            Change::Listed { list, relative_to, files, before, .. } => {
                removed.extend(stale.get(&index).into_iter().flatten().cloned());
                removed.insert(list.clone());
                if files.is_empty() {
                    removed.extend(before.iter().cloned());
                } else {
                    let text = write_list(files.keys().map(String::as_str), relative_to);
                    written.insert(list.clone(), text);
                    written.extend(files.iter().map(|(path, bytes)| (path.clone(), bytes.clone())));
                }
            }
        }
    }
    (removed, written)
}

/// The blobs of an answer of `git cat-file --batch`, in the order asked; none where there is none.
pub(super) fn blobs(mut told: &[u8]) -> Vec<Option<&[u8]>> {
    let mut found = Vec::new();
    while let Some(end) = told.iter().position(|byte| *byte == b'\n') {
        let header = String::from_utf8_lossy(&told[..end]);
        told = &told[end + 1..];
        let size = match header.rsplit_once(' ') {
            Some((_, "missing" | "ambiguous")) => None,
            Some((_, size)) => size.parse::<usize>().ok(),
            None => None,
        };
        let blob = size.and_then(|size| told.get(..size));
        // After the bytes there is one more line's end.
        told = blob.and_then(|blob| told.get(blob.len() + 1..)).unwrap_or(told);
        found.push(blob);
    }
    found
}

/// A path in quotes, as `fast-import` reads any.
fn quote(path: &str) -> String {
    let escaped = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(owner: &str, path: &str, files: &[(&str, &str)]) -> Entry {
        let files =
            files.iter().map(|(path, text)| ((*path).to_owned(), Bytes::from((*text).to_owned())));
        let change = Change::Directory { path: path.to_owned(), files: files.collect() };
        Entry { owner: owner.to_owned(), change }
    }

    #[test]
    fn one_placement_is_named_as_kratix_names_it_and_many_are_listed() {
        assert_eq!(message(&[entry("a", "x", &[("f", "1")])]), "Update from: a");
        assert_eq!(message(&[entry("a", "x", &[])]), "Delete from: a");
        let many = message(&[entry("a", "x", &[("f", "1")]), entry("b", "y", &[])]);
        assert_eq!(many, "Update 2 placements\n\nUpdate from: a\nDelete from: b");
    }

    #[test]
    fn what_one_gives_up_another_takes_in_the_same_commit() {
        let file = |path: &str, text: Option<&'static str>| Entry {
            owner: "a".to_owned(),
            change: Change::File {
                path: path.to_owned(),
                bytes: text.map(|text| Bytes::from_static(text.as_bytes())),
            },
        };
        let (removed, written) = plan(
            &[file("x", Some("new")), entry("b", "dir", &[("f", "1")]), file("y", None)],
            &Stale::new(),
        );
        assert_eq!(removed.into_iter().collect::<Vec<_>>(), ["dir", "y"]);
        assert_eq!(written.into_keys().collect::<Vec<_>>(), ["dir/f", "x"]);
    }

    #[test]
    fn blobs_are_told_apart_by_their_sizes() {
        let told = b"abc blob 4\na\nb\n\nHEAD:x y missing\ndef blob 0\n\n";
        assert_eq!(blobs(told), [Some(&b"a\nb\n"[..]), None, Some(&b""[..])]);
    }

    #[test]
    fn names_in_a_commit_cannot_end_its_header() {
        let author = Author { name: "a\ncommitter b <c>".to_owned(), email: "x>".to_owned() };
        let stream = stream(&[], &Stale::new(), None, "m", &author, 1);
        let text = String::from_utf8(stream.concat()).unwrap();
        assert!(text.contains("\ncommitter acommitter b c <x> 1 +0000\n"), "{text}");
        assert_eq!(quote("a\"b\\c"), r#""a\"b\\c""#);
    }
}
