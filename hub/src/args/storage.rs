//! The flags about what is stored, how much of it, for how long, and with which keys.

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use jiff::SignedDuration;
use muster_apiserver::{EncryptionKey, Storage};

/// What is kept.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StorageArgs {
    /// The bytes that all objects together may have; beyond it nothing is created, and deletions
    /// still work
    #[arg(long, default_value = "2GiB", value_name = "SIZE")]
    quota: Size,
    /// How long Events are kept
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    keep_events: SignedDuration,
    /// How long finished Jobs are kept, with their pods and logs, unless they say so themselves
    /// (ttlSecondsAfterFinished)
    #[arg(long, default_value = "168h", value_name = "DURATION")]
    keep_jobs: SignedDuration,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Keys of Secrets.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// Encrypt Secrets on disk with the key in this file: 32 bytes or their base64, mode 0600. May
    /// be repeated: the first encrypts, the others open what was encrypted before
    #[arg(long = "encryption-key-file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Turn encryption off: the keys only open, and what is encrypted is written anew without
    #[arg(long, requires = "files")]
    decrypt_secrets: bool,
}

impl StorageArgs {
    /// What they say, with the keys read.
    pub(crate) fn read(&self) -> anyhow::Result<Storage> {
        let mut storage = self.keys.read()?;
        storage.quota_bytes = self.quota.0;
        storage.keep_events = positive("--keep-events", self.keep_events)?;
        storage.keep_jobs = Some(positive("--keep-jobs", self.keep_jobs)?);
        Ok(storage)
    }
}

impl KeyArgs {
    /// The default storage with these keys.
    pub(crate) fn read(&self) -> anyhow::Result<Storage> {
        let keys = self.files.iter().map(|path| EncryptionKey::read(path));
        let keys = keys.collect::<Result<_, _>>().context("--encryption-key-file")?;
        Ok(Storage { keys, decrypt: self.decrypt_secrets, ..Storage::default() })
    }
}

fn positive(flag: &str, duration: SignedDuration) -> anyhow::Result<Duration> {
    match Duration::try_from(duration) {
        Ok(duration) => Ok(duration),
        Err(_) => bail!("{flag} {duration:#}: use no negative duration"),
    }
}

/// A number of bytes, such as `500MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let factor = match unit.trim() {
            "" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1_u64 << 30),
            _ => None,
        };
        let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        bytes.map(Size).ok_or_else(|| "write it as bytes, or as 512MiB or 2GiB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        assert_eq!("2GiB".parse(), Ok(Size(2 << 30)));
        assert_eq!("512 MiB".parse(), Ok(Size(512 << 20)));
        assert_eq!("77".parse(), Ok(Size(77)));
        for wrong in ["", "2GB", "GiB", "-1", "99999999999999GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
