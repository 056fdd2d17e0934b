//! `muster restore`: a data directory made from a backup, whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use muster_apiserver::{ApiServer, Config, UserInfo};
use muster_daemon::durable;

use crate::{
    args::{KeyArgs, RestoreArgs},
    data_dir,
};

pub(crate) async fn run(args: RestoreArgs) -> Result<()> {
    let RestoreArgs { file, data_dir, keys } = args;
    let target = data_dir::chosen(data_dir)?;
    refuse_used(&target)?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent)
        .with_context(|| format!("cannot make the directory {}", parent.display()))?;
    // Beside its place, which it takes at once when it is complete.
    let made = tempfile::Builder::new()
        .prefix(".muster-restore-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot write to {}", parent.display()))?;
    let root = made.path().to_owned();
    let restored = tokio::task::spawn_blocking(move || muster_apiserver::restore(&file, &root));
    let summary = restored.await??;
    raise_epoch(made.path(), &keys).await?;
    fs::rename(made.path(), &target).with_context(|| {
        format!("cannot put the data directory in its place, {}: name a new one", target.display())
    })?;
    // It has moved: there is nothing to remove.
    let _ = made.keep();
    durable::sync_dir(&parent)?;
    println!(
        "{}: restored from revision {}, {} rows; start it with: muster hub --data-dir {0}",
        target.display(),
        summary.revision,
        summary.rows
    );
    Ok(())
}

fn refuse_used(target: &Path) -> Result<()> {
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => bail!(
                "{} is not empty: name a new directory, or move away what is there",
                target.display()
            ),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", target.display())),
    }
}

/// Agents must take the restored hub's orders for newer than those of starts after the backup.
async fn raise_epoch(root: &Path, keys: &KeyArgs) -> Result<()> {
    let mut config = Config::new(root.join(data_dir::API));
    config.storage = keys.read()?;
    let api = ApiServer::open(config).await?;
    let client = Client::new(api.service(UserInfo::admin()), "default");
    let raised = muster_control::raise_after_restore(&client).await;
    api.close().await;
    raised.context("cannot raise the epoch of the restored hub")?;
    Ok(())
}
