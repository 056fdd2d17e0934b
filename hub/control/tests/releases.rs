//! PromiseReleases against the embedded API and an HTTP server on loopback.

#[path = "offers/home.rs"]
mod home;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use home::{Home, Play, condition, promise};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Answers by path; `/private` only with the right header, and `/signed` by a new address at each
/// time, as object stores do. Each connection answers once.
#[derive(Clone, Default)]
struct Site(Arc<Mutex<BTreeMap<String, (u16, String)>>>, Arc<AtomicUsize>);

impl Site {
    async fn open(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, site) = (listener.local_addr().unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let site = site.clone();
                tokio::spawn(async move {
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") && asked.len() < 16_384 {
                        match stream.read_u8().await {
                            Ok(byte) => asked.push(byte),
                            Err(_) => return,
                        }
                    }
                    let answer = site.answer(&String::from_utf8_lossy(&asked));
                    let _closed = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        address
    }

    fn put(&self, path: &str, code: u16, text: &str) {
        self.0.lock().unwrap().insert(path.to_owned(), (code, text.to_owned()));
    }

    fn answer(&self, asked: &str) -> String {
        let path = asked.split(' ').nth(1).unwrap_or_default();
        let allowed = asked.to_lowercase().contains("authorization: bearer open-sesame");
        let found = self.0.lock().unwrap().get(path).cloned();
        let (code, text) = match found {
            _ if path == "/signed" => {
                let times = self.1.fetch_add(1, Ordering::SeqCst);
                (302, format!("/gone/{times}?signature=s3cret"))
            }
            _ if path == "/private" && !allowed => (401, String::new()),
            Some(found) => found,
            None => (404, String::new()),
        };
        let (location, text) = match code {
            302 => (format!("location: {text}\r\n"), String::new()),
            _ => (String::new(), text),
        };
        let length = text.len();
        format!(
            "HTTP/1.1 {code} X\r\n{location}content-length: {length}\r\nconnection: close\r\n\r\n{text}"
        )
    }
}

fn nothing() -> Play {
    Arc::new(|_, _| Ok(home::files(&[])))
}

fn document(version: &str) -> String {
    let mut promise = promise("cache", "Cache", &[]);
    promise["metadata"]["labels"] = json!({ "kratix.io/promise-version": version });
    promise.to_string()
}

fn release(url: &str, version: &str) -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "PromiseRelease",
        "metadata": { "name": "cache" },
        "spec": { "version": version, "sourceRef": { "type": "http", "url": url } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_installs_its_promise_moves_it_on_and_takes_it_away() {
    let (home, site) = (Home::open(nothing()).await, Site::default());
    let address = site.open().await;
    let url = |path: &str| format!("http://{address}{path}");
    site.put("/v1", 200, &document("v1"));
    site.put("/v2", 302, "/moved");
    site.put("/moved", 200, &document("v2"));

    let wanted = release(&url("/v1"), "");
    home.apply(&wanted).await.unwrap();
    let releases = home.of(&wanted);
    let seen = home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;
    assert!(condition(&seen, "Installed").starts_with("True/InstalledSuccessfully"), "{seen:#}");
    home.until(&releases, "cache", |r| r["spec"]["version"] == "v1").await;
    let promises = home.of(&promise("cache", "Cache", &[]));
    let installed =
        home.until(&promises, "cache", |p| condition(p, "Available").starts_with("True")).await;
    assert_eq!(installed["metadata"]["labels"]["kratix.io/promise-release-name"], "cache");

    home.apply(&release(&url("/v2"), "v2")).await.unwrap();
    home.until(&promises, "cache", |p| {
        p["metadata"]["labels"]["kratix.io/promise-version"] == "v2"
    })
    .await;
    home.until(&releases, "cache", |r| condition(r, "Installed").starts_with("True")).await;

    releases.delete("cache", &DeleteParams::default()).await.unwrap();
    home.until_gone(&releases, "cache").await;
    assert!(promises.get_opt("cache").await.unwrap().is_none(), "the Promise goes first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_is_told_and_tried_again() {
    let (home, site) = (Home::open(nothing()).await, Site::default());
    let address = site.open().await;
    let url = |path: &str| format!("http://{address}{path}");
    let wanted = release(&url("/late"), "v1");
    home.apply(&wanted).await.unwrap();
    let releases = home.of(&wanted);
    let said = |text: &'static str| move |r: &Value| condition(r, "Installed").contains(text);
    let seen = home.until(&releases, "cache", said("FailedToFetchPromise")).await;
    assert!(condition(&seen, "Installed").contains("/late answered 404"), "{seen:#}");
    assert_eq!(seen["status"]["status"], "Error installing");

    site.put("/late", 200, &document("v7"));
    home.clock.skip(Duration::from_secs(61));
    let seen = home.until(&releases, "cache", said("VersionNotMatching")).await;
    assert!(condition(&seen, "Installed").contains("found: v7, expected: v1"), "{seen:#}");
    site.put("/late", 200, &document("v1"));
    home.clock.skip(Duration::from_secs(61));
    home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;

    // A second release of the same Promise does not take it over.
    let mut second = release(&url("/late"), "v1");
    second["metadata"]["name"] = json!("second");
    home.apply(&second).await.unwrap();
    let seen = home.until(&releases, "second", said("FailedToCreateOrUpdatePromise")).await;
    assert!(
        condition(&seen, "Installed").contains("is of PromiseRelease cache: delete"),
        "{seen:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_of_nobodys_release_is_not_taken_over_unless_handed_over() {
    let (home, site) = (Home::open(nothing()).await, Site::default());
    let address = site.open().await;
    site.put("/v1", 200, &document("v1"));
    let own = promise("cache", "Cache", &[]);
    home.apply(&own).await.unwrap();
    let promises = home.of(&own);
    let wanted = release(&format!("http://{address}/v1"), "v1");
    home.apply(&wanted).await.unwrap();
    let releases = home.of(&wanted);
    let refused =
        |r: &Value| condition(r, "Installed").contains("is there already and of no release");
    let seen = home.until(&releases, "cache", refused).await;
    assert!(condition(&seen, "Installed").contains("FailedToCreateOrUpdatePromise"), "{seen:#}");
    // The release goes, and leaves what was never its own.
    releases.delete("cache", &DeleteParams::default()).await.unwrap();
    home.until_gone(&releases, "cache").await;
    assert!(promises.get_opt("cache").await.unwrap().is_some());

    let handed = json!({ "metadata": { "labels": { "kratix.io/promise-release-name": "cache" } } });
    promises.patch("cache", &PatchParams::default(), &Patch::Merge(&handed)).await.unwrap();
    home.apply(&wanted).await.unwrap();
    home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_that_an_earlier_document_named_is_told_and_goes_with_the_release() {
    let (home, site) = (Home::open(nothing()).await, Site::default());
    let address = site.open().await;
    let url = |path: &str| format!("http://{address}{path}");
    let mut renamed = promise("store", "Store", &[]);
    renamed["metadata"]["labels"] = json!({ "kratix.io/promise-version": "v2" });
    site.put("/v1", 200, &document("v1"));
    site.put("/v2", 200, &renamed.to_string());
    let wanted = release(&url("/v1"), "v1");
    home.apply(&wanted).await.unwrap();
    let (releases, promises) = (home.of(&wanted), home.of(&renamed));
    home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;
    home.apply(&release(&url("/v2"), "v2")).await.unwrap();
    let told = |r: &Value| condition(r, "Installed").contains("an earlier document named cache");
    home.until(&releases, "cache", told).await;
    assert!(promises.get_opt("cache").await.unwrap().is_some(), "its requests are not lost");
    releases.delete("cache", &DeleteParams::default()).await.unwrap();
    home.until_gone(&releases, "cache").await;
    for name in ["cache", "store"] {
        assert!(promises.get_opt(name).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fetched_has_limits() {
    let (home, site) = (Home::open(nothing()).await, Site::default());
    let address = site.open().await;
    let url = |path: &str| format!("http://{address}{path}");
    // As much as may be is not too much; it is no Promise only because of what it says.
    let full = format!("# {}\nkind: Other\n", "x".repeat((8 << 20) - 16));
    assert_eq!(full.len(), (8 << 20) - 1);
    site.put("/full", 200, &full);
    site.put("/over", 200, &format!("{full}\n\n"));
    for hop in 0..6 {
        site.put(&format!("/hop/{hop}"), 302, &format!("/hop/{}", hop + 1));
    }
    site.put("/hop/6", 200, &document("v1"));
    let releases = home.of(&release(&url("/"), "v1"));
    for (path, told) in [
        ("/full", "of kind \"Other\", not Promise"),
        ("/over", "/over is larger than 8388608 bytes"),
        ("/hop/0", "/hop/0 redirects more than 5 times"),
    ] {
        home.apply(&release(&url(path), "v1")).await.unwrap();
        home.until(&releases, "cache", |r| condition(r, "Installed").contains(told)).await;
    }
    home.apply(&release(&url("/hop/1"), "v1")).await.unwrap();
    home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_is_not_believed() {
    if !muster_e2e::has_part("MUSTER_GIT_SERVER") {
        return;
    }
    let (home, scratch) = (Home::open(nothing()).await, muster_e2e::scratch());
    let server = muster_e2e::GitServer::start(scratch.path());
    let wanted = release(&server.url("fleet"), "v1");
    home.apply(&wanted).await.unwrap();
    let said = |r: &Value| condition(r, "Installed").contains("certificate");
    home.until(&home.of(&wanted), "cache", said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_reads_differently_each_time_is_tried_once_a_minute() {
    let (home, site) = (Home::open(nothing()).await, Site::default());
    let address = site.open().await;
    let wanted = release(&format!("http://{address}/signed"), "v1");
    home.apply(&wanted).await.unwrap();
    let releases = home.of(&wanted);
    let told = |time: usize| {
        move |r: &Value| condition(r, "Installed").contains(&format!("/gone/{time} answered 404"))
    };
    for time in 0..3 {
        let seen = home.until(&releases, "cache", told(time)).await;
        assert!(!seen.to_string().contains("s3cret"), "{seen:#}");
        // What wakes it does not bring the next try forward.
        for label in ["a", "b", "c"] {
            let touched = json!({ "metadata": { "labels": { "touched": label } } });
            let patch = Patch::Merge(&touched);
            releases.patch("cache", &PatchParams::default(), &patch).await.unwrap();
        }
        // Another release that is answered says that those looks are over.
        let mut other = release(&format!("http://{address}/absent"), "v1");
        other["metadata"]["name"] = json!(format!("other-{time}"));
        home.apply(&other).await.unwrap();
        let name = format!("other-{time}");
        home.until(&releases, &name, |r| condition(r, "Installed").contains("404")).await;
        assert_eq!(site.1.load(Ordering::SeqCst), time + 1);
        home.clock.skip(Duration::from_secs(61));
    }
    // A change is tried at once.
    home.until(&releases, "cache", told(3)).await;
    site.put("/v1", 200, &document("v1"));
    home.apply(&release(&format!("http://{address}/v1"), "v1")).await.unwrap();
    home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_sent_along_to_the_host_that_it_is_for() {
    let (home, site, other) = (Home::open(nothing()).await, Site::default(), Site::default());
    let (address, foreign) = (site.open().await, other.open().await);
    site.put("/private", 200, &document("v1"));
    site.put("/away", 302, &format!("http://{foreign}/private"));
    other.put("/private", 200, &document("v1"));
    let mut wanted = release(&format!("http://{address}/private"), "v1");
    wanted["spec"]["sourceRef"]["secretRef"] = json!({ "name": "door" });
    home.apply(&wanted).await.unwrap();
    let releases = home.of(&wanted);
    let said = |text: &'static str| move |r: &Value| condition(r, "Installed").contains(text);
    home.until(&releases, "cache", said("failed to fetch data from secretRef")).await;

    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "door", "namespace": "default" },
        "stringData": { "authorizationHeader": "Bearer open-sesame" },
    });
    home.apply(&secret).await.unwrap();
    home.clock.skip(Duration::from_secs(61));
    home.until(&releases, "cache", |r| r["status"]["status"] == "Installed").await;

    // Elsewhere the header does not go.
    wanted["spec"]["sourceRef"]["url"] = json!(format!("http://{address}/away"));
    home.apply(&wanted).await.unwrap();
    let seen = home.until(&releases, "cache", said("answered 401")).await;
    assert!(condition(&seen, "Installed").contains(&foreign.to_string()), "{seen:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_without_an_address_is_refused() {
    let home = Home::open(nothing()).await;
    for (url, told) in [
        ("", "sourceRef.url must be set"),
        ("ftp://example.com/a", "must begin with https:// or http://"),
    ] {
        let refused = home.apply(&release(url, "v1")).await.unwrap_err().to_string();
        assert!(refused.contains("vpromiserelease.kb.io") && refused.contains(told), "{refused}");
    }
}
