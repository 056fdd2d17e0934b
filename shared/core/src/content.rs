//! A group of files as one immutable value, named by the digest of its one encoding.

use std::collections::BTreeMap;

use crate::{
    Digest,
    encode::{DecodeError, Decoder, Encoder},
};

/// Most bytes that one pipeline may put out, before compression: 32 MiB.
pub const OUTPUT_BYTES_MAX: usize = 32 << 20;
/// Most files that one pipeline may put out: an inventory of them must still be readable.
pub const OUTPUT_FILES_MAX: usize = 10_000;
/// Longest path of a file: what Linux allows in one path component, several deep.
pub const PATH_LEN_MAX: usize = 1024;

const MAGIC: &str = "muster.fileset.v1";

/// Files by path, in ascending order of path.
///
/// Paths are relative, use `/`, and have no empty, `.` or `..` component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSet {
    files: BTreeMap<String, Vec<u8>>,
    /// Sum of the lengths, kept so that each insertion costs the same.
    size: usize,
}

/// Why a file cannot be part of a file set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The path is empty, absolute, climbs out, or cannot be a file name.
    #[error("{path:?} is not a path inside the output directory: {cause}")]
    Path {
        /// The offending path.
        path: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The same path twice.
    #[error("{0:?} is given twice")]
    Twice(String),
    /// One path is a file and a directory at once.
    #[error("{0:?} is a file, and also a directory of another file")]
    FileAndDirectory(String),
    /// The set would be larger than [`OUTPUT_BYTES_MAX`].
    #[error("{path:?} ({size} bytes) takes the output over the limit of {OUTPUT_BYTES_MAX} bytes")]
    TooLarge {
        /// The file that passed the limit.
        path: String,
        /// Its size in bytes.
        size: usize,
    },
    /// The set would hold more than [`OUTPUT_FILES_MAX`] files.
    #[error("{0:?} takes the output over the limit of {OUTPUT_FILES_MAX} files")]
    TooMany(String),
}

impl FileSet {
    /// A set of no files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    pub fn insert(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), FileError> {
        check_path(path)?;
        if self.files.contains_key(path) {
            return Err(FileError::Twice(path.to_owned()));
        }
        if self.files.len() >= OUTPUT_FILES_MAX {
            return Err(FileError::TooMany(path.to_owned()));
        }
        if self.size + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(FileError::TooLarge { path: path.to_owned(), size: bytes.len() });
        }
        self.check_directories(path)?;
        self.size += bytes.len();
        self.files.insert(path.to_owned(), bytes);
        Ok(())
    }

    /// The files in order of path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// One file's bytes.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// How many files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Total size of the files in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(MAGIC);
        encoder.count(self.files.len());
        for (path, bytes) in &self.files {
            encoder.text(path).bytes(bytes);
        }
        encoder.finish()
    }

    /// Reads canonical bytes; refuses any other encoding of the same files.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes, MAGIC)?;
        let count = decoder.count("files")?;
        let mut set = Self::new();
        for _ in 0..count {
            let path = decoder.text("path")?;
            let refuse = |cause: String| DecodeError::Field { field: "path", cause };
            if set.files.last_key_value().is_some_and(|(last, _)| last.as_str() >= path) {
                return Err(refuse(format!("{path:?} is out of order")));
            }
            let bytes = decoder.bytes("bytes")?.to_vec();
            set.insert(path, bytes).map_err(|error| refuse(error.to_string()))?;
        }
        decoder.finish()?;
        Ok(set)
    }

    /// The name of this set: the digest of its canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    fn check_directories(&self, path: &str) -> Result<(), FileError> {
        let clash = |at: &str| Err(FileError::FileAndDirectory(at.to_owned()));
        for (end, _) in path.match_indices('/') {
            if self.files.contains_key(&path[..end]) {
                return clash(&path[..end]);
            }
        }
        let inside = format!("{path}/");
        match self.files.range(inside.clone()..).next() {
            Some((next, _)) if next.starts_with(&inside) => clash(path),
            _ => Ok(()),
        }
    }
}

/// Checks that `path` names a file inside the directory that it is relative to.
pub fn check_path(path: &str) -> Result<(), FileError> {
    let refuse = |cause| Err(FileError::Path { path: path.chars().take(200).collect(), cause });
    if path.is_empty() {
        return refuse("it is empty");
    }
    if path.len() > PATH_LEN_MAX {
        return refuse("it is longer than 1024 bytes");
    }
    if path.starts_with('/') {
        return refuse("it is absolute");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return refuse("it holds a control character or a backslash");
    }
    for component in path.split('/') {
        match component {
            "" => return refuse("it has an empty component"),
            "." | ".." => return refuse("it has a '.' or '..' component"),
            name if name.len() > 255 => return refuse("a component is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> FileSet {
        let mut set = FileSet::new();
        for (path, text) in files {
            set.insert(path, text.as_bytes().to_vec()).unwrap();
        }
        set
    }

    #[test]
    fn encoding_is_the_committed_one() {
        assert_eq!(
            set(&[]).digest().to_string(),
            "ebedc587fceb7c7a250f9a1963e240cf918cf810b1b123f7259fae3b7cd9d8b4"
        );
        assert_eq!(
            hex::encode(set(&[("b", "2"), ("a/x.yaml", "1\n")]).encode()),
            "000000116d75737465722e66696c657365742e7631000000020000000\
             8612f782e79616d6c00000002310a000000016200000001\
             32"
        );
    }

    #[test]
    fn order_of_insertion_does_not_matter() {
        assert_eq!(
            set(&[("a", "1"), ("b/c", "2")]).digest(),
            set(&[("b/c", "2"), ("a", "1")]).digest()
        );
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let files = set(&[("a", "1"), ("b/c", ""), ("b/d", "22")]);
        let bytes = files.encode();
        assert_eq!(FileSet::decode(&bytes).unwrap(), files);
        for cut in 0..bytes.len() {
            assert!(FileSet::decode(&bytes[..cut]).is_err(), "accepted {cut} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(FileSet::decode(&longer), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn refuses_paths_that_leave_the_directory() {
        for bad in ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a/", "a\0b", "a\\b"] {
            assert!(FileSet::new().insert(bad, vec![]).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn refuses_a_file_that_is_also_a_directory() {
        let mut files = set(&[("a/b", "1")]);
        assert_eq!(files.insert("a", vec![]), Err(FileError::FileAndDirectory("a".into())));
        let mut files = set(&[("a", "1"), ("a-b", "")]);
        assert_eq!(files.insert("a/b", vec![]), Err(FileError::FileAndDirectory("a".into())));
    }

    #[test]
    fn refuses_more_than_the_limit_by_name() {
        let mut files = set(&[("a", "1")]);
        let error = files.insert("big.bin", vec![0; OUTPUT_BYTES_MAX]).unwrap_err();
        assert!(error.to_string().contains("big.bin"), "{error}");
    }
}
