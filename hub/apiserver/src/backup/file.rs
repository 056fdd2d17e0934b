//! The format of a backup: records one after the other, and a digest of all of them at the end.
//!
//! `muster backup\n`, the format (u32), then records: a tag (1 byte) and what belongs to it.
//! Lengths are u32, integers little-endian. The last record is followed by the SHA-256 of
//! everything before, and then by nothing.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 14] = b"muster backup\n";
/// The format written here. Others are refused.
pub(super) const FORMAT: u32 = 1;

const FILE: u8 = 1;
const DATABASE: u8 = 2;
const ROW: u8 = 3;
const END: u8 = 4;

/// The longest path, file or row that is believed: objects are at most 3 MiB, and what the server
/// adds to them is far less than as much again.
const LENGTH_MAX: u32 = 16 << 20;

/// One part of a backup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A file of its own.
    File {
        path: String,
        bytes: Vec<u8>,
    },
    /// The database to which the following rows belong.
    Database {
        path: String,
    },
    Row {
        revision: u64,
        row: Vec<u8>,
    },
    /// Nothing follows.
    End {
        revision: u64,
        rows: u64,
    },
}

/// Writes a backup into memory, from where it is taken piece by piece.
#[derive(Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
    hashed: usize,
    hasher: Sha256,
}

impl Encoder {
    pub(super) fn begin() -> Encoder {
        let mut encoder = Encoder::default();
        encoder.bytes.extend_from_slice(MAGIC);
        encoder.bytes.extend_from_slice(&FORMAT.to_le_bytes());
        encoder
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.bytes.push(FILE);
        self.chunk(path.as_bytes());
        self.chunk(bytes);
    }

    pub(super) fn database(&mut self, path: &str) {
        self.bytes.push(DATABASE);
        self.chunk(path.as_bytes());
    }

    pub(super) fn row(&mut self, revision: u64, row: &[u8]) {
        self.bytes.push(ROW);
        self.bytes.extend_from_slice(&revision.to_le_bytes());
        self.chunk(row);
    }

    pub(super) fn end(&mut self, revision: u64, rows: u64) {
        self.bytes.push(END);
        self.bytes.extend_from_slice(&revision.to_le_bytes());
        self.bytes.extend_from_slice(&rows.to_le_bytes());
        self.hash();
        let digest = std::mem::take(&mut self.hasher).finalize();
        self.bytes.extend_from_slice(&digest);
    }

    /// What has been written since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        if self.hashed < self.bytes.len() {
            self.hash();
        }
        self.hashed = 0;
        std::mem::take(&mut self.bytes)
    }

    fn hash(&mut self) {
        self.hasher.update(&self.bytes[self.hashed..]);
        self.hashed = self.bytes.len();
    }

    fn chunk(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Why a backup cannot be decoded.
#[derive(Debug)]
pub(super) enum DecodeError {
    Read(io::Error),
    Foreign,
    Newer(u32),
    Damaged(&'static str),
}

impl From<io::Error> for DecodeError {
    fn from(error: io::Error) -> DecodeError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DecodeError::Damaged("it ends too early"),
            _ => DecodeError::Read(error),
        }
    }
}

/// Reads a backup, record by record.
pub(super) struct Decoder<R> {
    from: R,
    hasher: Sha256,
    rows: u64,
}

impl<R: Read> Decoder<R> {
    pub(super) fn begin(from: R) -> Result<Decoder<R>, DecodeError> {
        let mut decoder = Decoder { from, hasher: Sha256::default(), rows: 0 };
        let mut magic = [0; MAGIC.len()];
        match decoder.fill(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) | Err(DecodeError::Damaged(_)) => return Err(DecodeError::Foreign),
            Err(error) => return Err(error),
        }
        match decoder.u32()? {
            FORMAT => Ok(decoder),
            other => Err(DecodeError::Newer(other)),
        }
    }

    /// The next record; after [`Record::End`] the digest has been checked, too.
    pub(super) fn next(&mut self) -> Result<Record, DecodeError> {
        let mut tag = [0];
        self.fill(&mut tag)?;
        match tag[0] {
            FILE => Ok(Record::File { path: self.text()?, bytes: self.chunk()? }),
            DATABASE => Ok(Record::Database { path: self.text()? }),
            ROW => {
                self.rows += 1;
                Ok(Record::Row { revision: self.u64()?, row: self.chunk()? })
            }
            END => {
                let (revision, rows) = (self.u64()?, self.u64()?);
                self.check_end(rows)?;
                Ok(Record::End { revision, rows })
            }
            _ => Err(DecodeError::Damaged("it holds an unknown record")),
        }
    }

    fn check_end(&mut self, rows: u64) -> Result<(), DecodeError> {
        let expected = std::mem::take(&mut self.hasher).finalize();
        let mut found = [0; 32];
        self.from.read_exact(&mut found)?;
        if found != expected[..] || rows != self.rows {
            return Err(DecodeError::Damaged("its checksum does not match"));
        }
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(DecodeError::Damaged("something follows its end")),
        }
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        String::from_utf8(self.chunk()?).map_err(|_| DecodeError::Damaged("a name is no text"))
    }

    fn chunk(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = self.u32()?;
        if length > LENGTH_MAX {
            return Err(DecodeError::Damaged("a length is beyond what is possible"));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        self.from.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut encoder = Encoder::begin();
        encoder.file("api/pki/ca.key", b"key");
        let mut all = encoder.take();
        encoder.database("api/api.redb");
        encoder.row(7, b"row");
        all.extend(encoder.take());
        encoder.end(9, 1);
        all.extend(encoder.take());
        all
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
        let mut decoder = Decoder::begin(bytes)?;
        let mut records = Vec::new();
        loop {
            records.push(decoder.next()?);
            if matches!(records.last(), Some(Record::End { .. })) {
                return Ok(records);
            }
        }
    }

    #[test]
    fn gives_back_what_was_written() {
        let text = str::to_owned;
        let expected = [
            Record::File { path: text("api/pki/ca.key"), bytes: b"key".to_vec() },
            Record::Database { path: text("api/api.redb") },
            Record::Row { revision: 7, row: b"row".to_vec() },
            Record::End { revision: 9, rows: 1 },
        ];
        assert_eq!(read(&sample()).unwrap(), expected);
    }

    #[test]
    fn refuses_every_cut_and_every_changed_byte() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed).is_err(), "changed at {at}");
        }
        assert!(read(&[whole, vec![0]].concat()).is_err(), "something follows");
    }

    #[test]
    fn says_when_it_is_newer_or_something_else() {
        let mut newer = sample();
        newer[MAGIC.len()] = 9;
        assert!(matches!(read(&newer), Err(DecodeError::Newer(9))));
        assert!(matches!(read(b"PK\x03\x04 something else"), Err(DecodeError::Foreign)));
        assert!(matches!(read(b""), Err(DecodeError::Foreign)));
    }
}
