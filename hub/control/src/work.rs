//! Makes a Work be what a pipeline, or a Promise's dependencies, came to.

use kube::{Api, Client, api::PostParams};
use muster_api::{ChildRequest, Work};
use muster_core::Digest;
use muster_plan::{
    work::{Group, work},
    workflow::Subject,
};

use crate::{
    content::{ContentError, ContentStore},
    fleet::Observer,
    objects::{Failed, is_conflict},
};

/// Why a Work could not be written. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// Its bytes could not be stored.
    #[error("failed to store the files of a group")]
    Content(#[from] ContentError),
    /// It could not be read or written.
    #[error(transparent)]
    Api(#[from] Failed),
}

/// Stores the groups' files and creates or updates the Work that names them; a Work that says the
/// same already is not written. What is written is observed at once: it waits for no watch. Returns the
/// Work if there was none before.
pub(crate) async fn put(
    client: &Client,
    (content, observer): (&ContentStore, &Observer),
    subject: &Subject,
    pipeline: Option<&str>,
    (groups, children): (Vec<Group>, Vec<ChildRequest>),
) -> Result<Option<Work>, WorkError> {
    let mut stored: Vec<(Group, Digest)> = Vec::with_capacity(groups.len());
    for group in groups {
        let digest = content.put(&group.files).await?;
        stored.push((group, digest));
    }
    let mut wanted = work(subject, pipeline, &stored);
    wanted.spec.children = children;
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let api: Api<Work> = Api::namespaced(client.clone(), &subject.job_namespace);
    let live = api.get_opt(&name).await.map_err(Failed::to(format!("read Work {name}")))?;
    let params = PostParams::default();
    match live {
        None => match api.create(&params, &wanted).await {
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => Err(Failed::to(format!("create Work {name}"))(error).into()),
            Ok(made) => {
                observer.saw(made.clone()).await;
                Ok(Some(made))
            }
        },
        Some(live)
            if live.spec == wanted.spec && live.metadata.labels == wanted.metadata.labels =>
        {
            Ok(None)
        }
        Some(live) => {
            wanted.metadata.resource_version = live.metadata.resource_version;
            wanted.metadata.finalizers = live.metadata.finalizers;
            wanted.metadata.owner_references = live.metadata.owner_references;
            let mut annotations = live.metadata.annotations.unwrap_or_default();
            annotations.extend(wanted.metadata.annotations.take().unwrap_or_default());
            wanted.metadata.annotations = Some(annotations);
            let replaced = api.replace(&name, &params, &wanted).await;
            observer.saw(replaced.map_err(Failed::to(format!("update Work {name}")))?).await;
            Ok(None)
        }
    }
}
