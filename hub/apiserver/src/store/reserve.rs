//! A file of nothing: room that is given up when the disk is full, so that there is some for
//! removals and for a clean end, and taken again when the disk has room.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

/// Room for thousands of removals.
pub(super) const RESERVE_BYTES: u64 = 16 << 20;

/// The reserve is taken where so much is free, so that taking it does not fill the disk.
const TAKE_ABOVE_BYTES: u64 = 2 * RESERVE_BYTES;

/// What is free on the file system of a file.
pub(super) fn free_bytes(path: &Path) -> u64 {
    let dir = path.parent().unwrap_or(Path::new("."));
    // A file system that does not say is asked by writing to it.
    statvfs(dir).map_or(u64::MAX, |about| about.f_bavail.saturating_mul(about.f_frsize))
}

/// The reserve beside a database.
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Takes it, if there is room, or finds it taken.
    pub(super) fn beside(database: &Path) -> Reserve {
        let path = database.with_extension("reserve");
        let held = fs::metadata(&path).is_ok_and(|about| about.len() == RESERVE_BYTES);
        let mut reserve = Reserve { path, held };
        if !reserve.is_held() {
            reserve.give_up();
        }
        reserve
    }

    /// Whether there is room to spare; takes the reserve where there is again.
    pub(super) fn is_held(&mut self) -> bool {
        if !self.held && free_bytes(&self.path) >= TAKE_ABOVE_BYTES {
            match self.take() {
                Ok(()) => {
                    self.held = true;
                    tracing::debug!(path = %self.path.display(), "room is kept for a full disk");
                }
                Err(_) => drop(fs::remove_file(&self.path)),
            }
        }
        self.held
    }

    /// Gives the room to whoever needs it. Whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        // Its absence is what is wanted.
        let _ = fs::remove_file(&self.path);
        let path = self.path.display();
        tracing::error!(%path, "the disk is full: writes are refused until there is room");
        held
    }

    fn take(&self) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            Err(Errno::OPNOTSUPP) => {}
            allocated => return Ok(allocated?),
        }
        let block = vec![0; 1 << 20];
        for _ in 0..RESERVE_BYTES / block.len() as u64 {
            file.write_all(&block)?;
        }
        Ok(())
    }
}
