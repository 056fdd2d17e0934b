//! Fetches the document of a release.
//!
//! The address is named by who may create PromiseReleases, the platform team; the hub still asks it
//! with care: http and https alone, link-local addresses (where clouds keep credentials of the
//! machine) never, each redirection looked at like the first address and none from https to http,
//! nothing without a limit. The authorization header goes to the host that it was meant for and to no
//! other. Loopback may be asked, as in Kratix. What is told of an address leaves out who asks and its
//! query, where redirections sign themselves: both may be secret.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use muster_plan::release::Fault;
use reqwest::{Client, Response, Url, header, redirect::Policy};
use tokio::{net::lookup_host, time::timeout};

/// How long all of it may take, as in Kratix.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a document: what the API takes of one object, and room for comments.
const DOCUMENT_MAX: usize = 8 << 20;
/// Most redirections that are followed.
const REDIRECTIONS_MAX: usize = 5;

/// The document at an address.
pub(super) async fn document(url: &str, authorization: Option<&str>) -> Result<String, Fault> {
    let first = Url::parse(url).map_err(|error| {
        Fault::fetch(format!("spec.sourceRef.url is no address ({error}): correct it"))
    })?;
    let fetched = timeout(FETCH_MAX, follow(allowed(first.clone())?, authorization)).await;
    fetched.unwrap_or_else(|_| {
        let (first, limit) = (told(&first), FETCH_MAX.as_secs());
        Err(Fault::fetch(format!("{first} has not answered in {limit} s")))
    })
}

async fn follow(first: Url, authorization: Option<&str>) -> Result<String, Fault> {
    let mut next = first.clone();
    for _ in 0..=REDIRECTIONS_MAX {
        let authorization = authorization.filter(|_| next.origin() == first.origin());
        let answer = ask(&next, authorization).await?;
        if !answer.status().is_redirection() {
            return body(&next, answer).await;
        }
        let location = answer.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
        next = redirected(&next, location)?;
    }
    let first = told(&first);
    Err(Fault::fetch(format!("{first} redirects more than {REDIRECTIONS_MAX} times")))
}

/// Where an answer leads.
fn redirected(from: &Url, location: Option<&str>) -> Result<Url, Fault> {
    let here = told(from);
    let Some(next) = location.and_then(|location| from.join(location).ok()) else {
        return Err(Fault::fetch(format!("{here} redirects to nowhere")));
    };
    if from.scheme() == "https" && next.scheme() == "http" {
        let cure = "name an address that stays at https";
        return Err(Fault::fetch(format!(
            "{here} redirects to {}, which anybody on the way could change: {cure}",
            told(&next)
        )));
    }
    allowed(next)
}

/// An address as faults name it.
fn told(url: &Url) -> Url {
    let mut told = url.clone();
    told.set_query(None);
    told.set_fragment(None);
    // Refused only where there is neither.
    let _ = (told.set_username(""), told.set_password(None));
    told
}

fn allowed(url: Url) -> Result<Url, Fault> {
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => {
            let url = told(&url);
            Err(Fault::fetch(format!("{url}: {other} is not fetched, only http and https")))
        }
    }
}

async fn ask(url: &Url, authorization: Option<&str>) -> Result<Response, Fault> {
    let failed = |error: &dyn std::error::Error| {
        Fault::fetch(format!("{}: {}", told(url), crate::queue::chain(error)))
    };
    let (host, addresses) = resolve(url).await?;
    let client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .resolve_to_addrs(&host, &addresses)
        .build()
        .map_err(|error| failed(&error))?;
    let mut request = client.get(url.clone()).header(header::USER_AGENT, "muster");
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    request.send().await.map_err(|error| failed(&error.without_url()))
}

/// The addresses of a host, all of which may be asked; they are the ones that are asked then.
async fn resolve(url: &Url) -> Result<(String, Vec<SocketAddr>), Fault> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = lookup_host((bare, port)).await;
    let found: Vec<_> =
        found.map_err(|error| Fault::fetch(format!("{host} has no address: {error}")))?.collect();
    match found.iter().find(|address| is_link_local(address.ip())) {
        Some(address) => {
            Err(Fault::fetch(format!("{host} is {}, and link-local is not fetched", address.ip())))
        }
        None => Ok((host, found)),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

async fn body(url: &Url, mut answer: Response) -> Result<String, Fault> {
    let url = told(url);
    if !answer.status().is_success() {
        return Err(Fault::fetch(format!("{url} answered {}", answer.status())));
    }
    let mut bytes = Vec::new();
    loop {
        let chunk = answer.chunk().await;
        match chunk.map_err(|error| Fault::fetch(format!("{url}: {}", error.without_url())))? {
            None => break,
            Some(chunk) if bytes.len() + chunk.len() > DOCUMENT_MAX => {
                return Err(Fault::fetch(format!("{url} is larger than {DOCUMENT_MAX} bytes")));
            }
            Some(chunk) => bytes.extend_from_slice(&chunk),
        }
    }
    String::from_utf8(bytes).map_err(|_| Fault::fetch(format!("{url} is no text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_must_not_be_asked_is_not() {
        for (url, told) in [
            ("file:///etc/passwd", "only http and https"),
            ("http://169.254.169.254/latest", "link-local is not fetched"),
            ("http://[fe80::1]/", "link-local is not fetched"),
            ("http://[::ffff:169.254.169.254]/", "link-local is not fetched"),
            ("nonsense", "spec.sourceRef.url is no address"),
        ] {
            let fault = document(url, None).await.unwrap_err();
            assert!(fault.message.contains(told), "{url}: {}", fault.message);
            assert_eq!(fault.reason, "FailedToFetchPromise");
        }
    }

    #[tokio::test]
    async fn no_fault_tells_who_asks() {
        for url in ["http://me:s3cret@127.0.0.1:1/a?token=s3cret#s3cret", "ftp://me:s3cret@a.b/"] {
            let fault = document(url, None).await.unwrap_err();
            assert!(!fault.message.contains("s3cret"), "{}", fault.message);
        }
    }

    #[test]
    fn a_redirection_leads_on_but_never_from_https_to_http() {
        let next = |from: &str, to| redirected(&Url::parse(from).unwrap(), to);
        let led = |from, to| next(from, Some(to)).unwrap().to_string();
        let refused = |from, to| next(from, to).unwrap_err().message;
        assert_eq!(led("https://a.b/c/d", "e"), "https://a.b/c/e");
        assert_eq!(led("http://a.b/", "https://c.d/"), "https://c.d/");
        assert!(refused("https://a.b/", Some("http://a.b/")).contains("stays at https"));
        assert!(
            refused("https://a.b/", Some("file:///etc/passwd")).contains("only http and https")
        );
        assert!(refused("https://a.b/", None).contains("to nowhere"));
    }
}
