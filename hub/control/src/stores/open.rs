//! A state store's object and its Secret → what is needed to enter it.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::{Api, Client, Resource};
use muster_api::{
    BucketStateStoreSpec, GitStateStoreSpec, bucket_state_store::BucketAuthMethod,
    git_state_store::GitAuthMethod, state_store::SecretRef,
};
use muster_stores::{
    Access, BucketAccess, BucketAuth, GitAccess, GitAuth, Trouble,
    access::{Author, Opened, SecretData},
};

use crate::{queue::chain, world::Store};

/// The mail address of commits whose store gives none: one that nobody can have.
const EMAIL: &str = "kratix@kratix.invalid";

/// A store as its objects describe it at one moment.
pub(super) struct Described {
    /// What is needed to enter it.
    pub access: Access,
    /// What changes when any of it does: what was opened with another mark is out of date.
    pub mark: String,
}

/// Reads a store's Secret and puts all together.
pub(super) async fn describe(client: &Client, store: &Store) -> Result<Described, Trouble> {
    let (meta, reference, secret_is_needed) = match store {
        Store::Git(store) => (store.meta(), &store.spec.secret_ref, true),
        Store::Bucket(store) => {
            let needed = store.spec.auth_method == BucketAuthMethod::AccessKey;
            (store.meta(), &store.spec.secret_ref, needed)
        }
    };
    let reference = reference.as_ref().filter(|reference| !reference.name.is_empty());
    let (name, version, data) = match reference {
        Some(reference) => read(client, reference).await?,
        None if secret_is_needed => {
            let message =
                "spec.secretRef: Required value: the Secret that the store is entered with";
            return Err(Trouble::store("ErrorInitialisingWriter", message));
        }
        None => Default::default(),
    };
    let secret = Opened { name: &name, data: &data };
    let access = match store {
        Store::Git(store) => Access::Git(git(&store.spec, secret)?),
        Store::Bucket(store) => Access::Bucket(bucket(&store.spec, secret)?),
    };
    let uid = meta.uid.as_deref().unwrap_or_default();
    let mark = format!("{uid} {} {version}", meta.generation.unwrap_or_default());
    Ok(Described { access, mark })
}

/// Which repository and branch, or which bucket: two stores of one are one place.
pub(super) fn place(store: &Store) -> String {
    match store {
        Store::Git(store) => {
            let url = store.spec.url.trim_end_matches('/').trim_end_matches(".git");
            format!("git {url} {}", store.spec.branch)
        }
        Store::Bucket(store) => {
            format!("bucket {} {}", store.spec.endpoint, store.spec.bucket_name)
        }
    }
}

/// A store's own directory.
pub(super) fn prefix(store: &Store) -> &str {
    let path = match store {
        Store::Git(store) => &store.spec.path,
        Store::Bucket(store) => &store.spec.path,
    };
    path.as_deref().unwrap_or_default()
}

async fn read(
    client: &Client,
    reference: &SecretRef,
) -> Result<(String, String, SecretData), Trouble> {
    let SecretRef { name, namespace } = reference;
    let api: Api<SecretObject> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(|error| {
        let cause = chain(&error);
        let message = format!("Secret {name} in namespace {namespace} cannot be read: {cause}");
        Trouble::store("StateStoreError", message)
    })?;
    let Some(secret) = found else {
        let message = format!("Secret {name} not found in namespace {namespace}: create it");
        return Err(Trouble::store("SecretNotFound", message));
    };
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
    let version = secret.metadata.resource_version.unwrap_or_default();
    Ok((format!("{namespace}/{name}"), version, data.collect()))
}

fn git(spec: &GitStateStoreSpec, secret: Opened<'_>) -> Result<GitAccess, Trouble> {
    let auth = match spec.auth_method {
        GitAuthMethod::BasicAuth => GitAuth::basic(&spec.url, secret)?,
        GitAuthMethod::Ssh => GitAuth::ssh(&spec.url, secret)?,
        GitAuthMethod::GithubApp => GitAuth::app(&spec.url, secret)?,
    };
    let email = spec.git_author.email.clone().filter(|email| !email.is_empty());
    Ok(GitAccess {
        url: spec.url.clone(),
        branch: spec.branch.clone(),
        auth,
        authorities: secret.authorities(),
        author: Author {
            name: spec.git_author.name.clone(),
            email: email.unwrap_or_else(|| EMAIL.to_owned()),
        },
        signing_key: secret.optional("signingKey"),
        secret: secret.name.to_owned(),
    })
}

fn bucket(spec: &BucketStateStoreSpec, secret: Opened<'_>) -> Result<BucketAccess, Trouble> {
    let auth = match spec.auth_method {
        BucketAuthMethod::AccessKey => BucketAuth::Key {
            id: secret.text("accessKeyID")?,
            secret: secret.required("secretAccessKey")?,
        },
        BucketAuthMethod::Iam => BucketAuth::Ambient,
    };
    Ok(BucketAccess {
        bucket: spec.bucket_name.clone(),
        endpoint: spec.endpoint.clone(),
        insecure: spec.insecure.unwrap_or_default(),
        dual_stack: spec.use_dual_stack,
        auth,
        authorities: secret.authorities(),
        secret: secret.name.to_owned(),
    })
}
