//! The one byte encoding: every field is length-prefixed, every number is big-endian.
//!
//! A text or byte string is a `u32` length and its bytes; a list is a `u32` count and its items; a
//! map is a list of key, value in ascending key order. A document begins with its magic, itself a
//! text. There is exactly one encoding of a value, so digests of documents can be compared.

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The document ends inside `0`.
    #[error("the document ends inside {0}")]
    Truncated(&'static str),
    /// Another document, or another version of it.
    #[error("expected a document {expected:?}")]
    Magic {
        /// The magic that this reader knows.
        expected: &'static str,
    },
    /// A value that the encoder never writes.
    #[error("{field}: {cause}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// Bytes after the end.
    #[error("{0} bytes follow the end of the document")]
    Trailing(usize),
}

/// Writes a canonical document.
#[derive(Debug)]
pub struct Encoder(Vec<u8>);

/// Reads a canonical document.
#[derive(Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl Encoder {
    /// Begins a document with its magic.
    pub fn new(magic: &'static str) -> Self {
        let mut encoder = Self(Vec::new());
        encoder.text(magic);
        encoder
    }

    /// Appends a length-prefixed text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Appends length-prefixed bytes.
    ///
    /// Lengths fit `u32` because every document has a limit far below 4 GiB.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends the number of items of a list.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.0.extend_from_slice(&(count as u32).to_be_bytes());
        self
    }

    /// Appends a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a fixed tag.
    pub fn tag(&mut self, tag: u8) -> &mut Self {
        self.0.push(tag);
        self
    }

    /// The document.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'a> Decoder<'a> {
    /// Begins to read a document that must open with `magic`.
    pub fn new(document: &'a [u8], magic: &'static str) -> Result<Self, DecodeError> {
        let mut decoder = Self(document);
        match decoder.bytes("magic") {
            Ok(found) if found == magic.as_bytes() => Ok(decoder),
            _ => Err(DecodeError::Magic { expected: magic }),
        }
    }

    /// Reads a text.
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?)
            .map_err(|_| DecodeError::Field { field, cause: "is not UTF-8".to_owned() })
    }

    /// Reads bytes.
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(field)?;
        self.take(len, field)
    }

    /// Reads the number of items of a list; never more than there are bytes left.
    pub fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let bytes = self.take(4, field)?;
        let count = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if count > self.0.len() { Err(DecodeError::Truncated(field)) } else { Ok(count) }
    }

    /// Reads a number.
    pub fn number(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let bytes = self.take(8, field)?;
        let mut number = [0; 8];
        number.copy_from_slice(bytes);
        Ok(u64::from_be_bytes(number))
    }

    /// Reads a tag.
    pub fn tag(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(1, field)?[0])
    }

    /// Ends the document: nothing may follow.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }

    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated(field))?;
        self.0 = tail;
        Ok(head)
    }
}
