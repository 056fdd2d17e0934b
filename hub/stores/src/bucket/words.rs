//! What an S3 server answers → a reason, and words that a user can act on.

use object_store::Error;

use crate::{
    Trouble,
    access::{BucketAccess, BucketAuth},
    secret::redact,
    trouble_chain,
};

/// Longest part of an answer that is repeated.
const SAID_LEN_MAX: usize = 400;

/// An error in words.
pub(super) fn trouble(error: &Error, access: &BucketAccess) -> Trouble {
    let secrets = match &access.auth {
        BucketAuth::Key { secret, .. } => Some(secret),
        BucketAuth::Ambient => None,
    };
    let said = redact(&trouble_chain(error), secrets);
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let short: String = said.chars().filter(|c| !c.is_control()).take(SAID_LEN_MAX).collect();
    let (bucket, endpoint) = (&access.bucket, &access.endpoint);
    let key = match access.auth {
        BucketAuth::Key { .. } => {
            format!("accessKeyID and secretAccessKey of Secret {}", access.secret)
        }
        BucketAuth::Ambient => "the role of the machine or pod that the hub runs on".to_owned(),
    };
    let store = |reason, text: String| Trouble::store(reason, format!("{text} ({short})"));
    if has(&["NoSuchBucket", "BucketNotFound"]) {
        let text = format!(
            "there is no bucket {bucket} at {endpoint}: create it, or correct spec.bucketName"
        );
        return store("BucketNotFound", text);
    }
    if has(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"])
        || matches!(error, Error::Unauthenticated { .. })
    {
        let cure = match access.auth {
            BucketAuth::Key { .. } => format!("put valid ones into {key}"),
            BucketAuth::Ambient => format!("correct {key}"),
        };
        return store("AuthenticationFailed", format!("{endpoint} does not know the hub: {cure}"));
    }
    if has(&["AccessDenied", "Forbidden"]) || matches!(error, Error::PermissionDenied { .. }) {
        let text = format!(
            "{endpoint} does not let the hub write to bucket {bucket}: give {key} the right to \
                            list, read, put and delete its objects"
        );
        return store("PermissionDenied", text);
    }
    if has(&["RequestTimeTooSkewed"]) {
        return store(
            "ClockSkewed",
            format!("the clocks of the hub and {endpoint} differ too much: set them"),
        );
    }
    if let Some((reason, text)) = of_the_way(&said, access) {
        return store(reason, text);
    }
    let text = format!("{endpoint} does not take an object of bucket {bucket}: {short}");
    Trouble::batch("StateStoreError", text)
}

/// A server that says nothing.
pub(super) fn silent(access: &BucketAccess) -> Trouble {
    Trouble::store("StoreUnreachable", no_answer(access))
}

fn no_answer(access: &BucketAccess) -> String {
    format!(
        "{} does not answer: it is tried again; check the server and the way there, and \
         spec.insecure if it speaks plain http",
        access.endpoint
    )
}

/// A trouble on the way to the server, or of the server itself.
fn of_the_way(said: &str, access: &BucketAccess) -> Option<(&'static str, String)> {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let endpoint = &access.endpoint;
    if has(&["certificate", "UnknownIssuer"]) {
        let text = format!(
            "the certificate of {endpoint} is signed by nobody whom the hub trusts: put its \
                            authority (PEM) into caFile of Secret {}",
            access.secret
        );
        return Some(("CertificateNotTrusted", text));
    }
    if has(&["dns error", "failed to lookup"]) {
        return Some(("HostNotFound", format!("{endpoint} has no address: correct spec.endpoint")));
    }
    if has(&["No space left", "XMinioStorageFull", "InsufficientStorage", "QuotaExceeded"]) {
        return Some(("DiskFull", format!("{endpoint} has no room left: make some")));
    }
    if has(&[
        "error sending request",
        "connect",
        "timed out",
        "timeout",
        "503",
        "502",
        "504",
        "HTTP error",
    ]) {
        return Some(("StoreUnreachable", no_answer(access)));
    }
    None
}
