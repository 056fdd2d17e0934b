//! The protobuf wire format: numbered fields of four types.

use super::DecodeError;

/// The value of a field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// 32 or 64 bits; no field of a built-in kind is of this type.
    Fixed,
}

/// Reads the fields of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field with its number, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, DecodeError> {
        let Some(tag) = self.next_varint()? else { return Ok(None) };
        let number = u32::try_from(tag >> 3)
            .map_err(|_| DecodeError::Malformed("field number out of range".to_owned()))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.next_varint()?.ok_or_else(ends_early)?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = self.next_varint()?.ok_or_else(ends_early)?;
                let length = usize::try_from(length).map_err(|_| ends_early())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            other => return Err(DecodeError::Malformed(format!("wire type {other}"))),
        };
        Ok(Some((number, wire)))
    }

    /// The next number of a run of numbers, `None` at the end.
    pub(super) fn next_varint(&mut self) -> Result<Option<u64>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(ends_early)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(DecodeError::Malformed("a number has more than 64 bits".to_owned()))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn ends_early() -> DecodeError {
    DecodeError::Malformed("the message ends early".to_owned())
}
