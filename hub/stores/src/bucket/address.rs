//! Where a bucket is: its URL and region.

use crate::{Trouble, access::BucketAccess};

/// The region of servers that have none.
const REGION: &str = "us-east-1";
/// Where Amazon's hosts are.
const AMAZON: &str = ".amazonaws.com";

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Scheme and host.
    pub url: String,
    /// The region that signatures name.
    pub region: String,
}

/// Where requests for this bucket go. The bucket is the first part of the path: so it works with any
/// server and any name.
pub(super) fn place(access: &BucketAccess) -> Result<Place, Trouble> {
    let endpoint = access.endpoint.trim().trim_end_matches('/');
    if endpoint.is_empty() || endpoint.contains(['/', '@', ' ', '?', '#']) {
        let message = format!(
            "spec.endpoint {endpoint:?}: give a host, with a port if it is not the usual one, and no \
             scheme or path, such as s3.eu-west-1.amazonaws.com"
        );
        return Err(Trouble::store("ErrorInitialisingWriter", message));
    }
    let scheme = if access.insecure { "http" } else { "https" };
    let Some(service) = endpoint.strip_suffix(AMAZON) else {
        let region = std::env::var("AWS_REGION").unwrap_or_else(|_| REGION.to_owned());
        return Ok(Place { url: format!("{scheme}://{endpoint}"), region });
    };
    let own = service.strip_prefix("s3").unwrap_or(service);
    let own = own.trim_start_matches(['.', '-']);
    let region = own.strip_prefix("dualstack.").unwrap_or(own);
    let region = if region.is_empty() { REGION } else { region };
    let host = if access.dual_stack {
        format!("s3.dualstack.{region}{AMAZON}")
    } else {
        endpoint.to_owned()
    };
    Ok(Place { url: format!("{scheme}://{host}"), region: region.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::BucketAuth;

    #[test]
    fn amazons_hosts_name_their_region_and_answer_by_both_protocols_if_asked() {
        for (endpoint, dual_stack, url, region) in [
            ("s3.amazonaws.com", false, "https://s3.amazonaws.com", "us-east-1"),
            (
                "s3.eu-west-1.amazonaws.com",
                false,
                "https://s3.eu-west-1.amazonaws.com",
                "eu-west-1",
            ),
            (
                "s3.eu-west-1.amazonaws.com",
                true,
                "https://s3.dualstack.eu-west-1.amazonaws.com",
                "eu-west-1",
            ),
            (
                "s3.dualstack.eu-west-1.amazonaws.com",
                true,
                "https://s3.dualstack.eu-west-1.amazonaws.com",
                "eu-west-1",
            ),
            ("s3.amazonaws.com", true, "https://s3.dualstack.us-east-1.amazonaws.com", "us-east-1"),
        ] {
            let access = BucketAccess {
                bucket: "b".into(),
                endpoint: endpoint.into(),
                insecure: false,
                dual_stack,
                auth: BucketAuth::Ambient,
                authorities: None,
                secret: String::new(),
            };
            let expected = Place { url: url.into(), region: region.into() };
            assert_eq!(place(&access).unwrap(), expected, "{endpoint}");
        }
    }
}
