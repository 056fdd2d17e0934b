//! `muster backup`: a running hub's backup into a file, whole or not at all.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use futures::{AsyncBufRead, AsyncBufReadExt as _};
use http::Request;
use muster_daemon::durable;
use tempfile::NamedTempFile;

use crate::{
    args::{BackupArgs, ClientArgs},
    client,
    data_dir::BACKUP_PATH,
};

pub(crate) async fn run(args: &BackupArgs, client: &ClientArgs) -> Result<()> {
    let path = &args.file;
    if path.exists() {
        bail!("{} exists: name another file, or remove it", path.display());
    }
    let api = client::connect(client).await?;
    let request = Request::get(BACKUP_PATH).body(Vec::new())?;
    let stream = api.request_stream(request).await.context("the hub hands out no backup")?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    // Made readable by its owner alone, and removed unless it is put in its place.
    let file = NamedTempFile::with_prefix_in(".muster-backup-", &dir)
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    receive(Box::pin(stream), &file).await?;
    let summary = muster_apiserver::check(file.path())
        .context("what the hub sent is not whole: its log says why")?;
    put_in_place(file, path, &dir)?;
    println!(
        "{}: {} bytes, the hub at revision {}; keep it as you would keep a key",
        path.display(),
        summary.bytes,
        summary.revision
    );
    Ok(())
}

async fn receive(mut stream: impl AsyncBufRead + Unpin, file: &NamedTempFile) -> Result<()> {
    let mut out = file.as_file();
    loop {
        let piece = stream.fill_buf().await.context("the connection to the hub broke")?;
        if piece.is_empty() {
            return out.sync_all().context("cannot write the backup");
        }
        out.write_all(piece).context("cannot write the backup")?;
        let taken = piece.len();
        stream.consume_unpin(taken);
    }
}

fn put_in_place(file: NamedTempFile, path: &Path, dir: &Path) -> Result<()> {
    let placed = file.persist_noclobber(path);
    placed.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(durable::sync_dir(dir)?)
}
