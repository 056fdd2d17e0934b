//! The API beside a real one: requests with the answers that a kube-apiserver 1.32.13 gave, replayed
//! against the embedded server over TLS. The cases are in `golden/cases`.
//!
//! Recorded again, or checked against a real server, with a kube-apiserver 1.32.13 and an etcd:
//!
//! ```sh
//! MUSTER_KUBE_APISERVER=… MUSTER_ETCD=… MUSTER_GOLDEN=record \
//!     cargo test --workspace --test golden -- --ignored
//! ```
//!
//! `MUSTER_GOLDEN=here` writes what the embedded server answers into the `--- here` parts that are
//! there, and removes those that it no longer needs; the reasons are for people to write.

#[path = "golden/case.rs"]
mod case;
#[path = "../../../agent/appliers/tests/real/cluster.rs"]
mod cluster;
#[path = "shared/home.rs"]
mod home;
#[path = "golden/normal.rs"]
mod normal;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Request;
use http_body_util::BodyExt as _;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use muster_apiserver::ApiServer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use case::{Answer, Case, Content};
use home::Home;
use normal::Kept;

/// An answer that must come some time is asked for so often, a tenth of a second apart.
const TRIES_MAX: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_a_real_server_does() {
    let home = Home::new().await;
    let kubeconfig = serve(&home.api, &home).await;
    let clients = Clients::of(&kubeconfig).await;
    let rewrite = mode() == "here";
    let mut wrong = Vec::new();
    let (mut count, mut differ) = (0, 0);
    for file in files() {
        let (preface, mut cases) = case::parse(&fs::read_to_string(&file).unwrap());
        let mut kept = Kept::new();
        for case in &mut cases {
            let answer = clients.ask(case, &mut kept).await;
            if rewrite && let Some((_, here)) = &mut case.here {
                *here = answer.clone();
                case.here.take_if(|(_, here)| case.recorded.as_ref() == Some(here));
            }
            wrong.extend(judge(&file, case, &answer));
            count += 1;
            differ += usize::from(case.here.is_some());
        }
        if rewrite {
            fs::write(&file, case::print(&preface, &cases)).unwrap();
        }
    }
    println!("{count} cases, {differ} of them answered otherwise on purpose");
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "compares the recordings with a real kube-apiserver 1.32.13, or makes them"]
async fn recordings_are_what_a_real_server_answers() {
    let cluster = cluster::Cluster::get().await.expect("MUSTER_KUBE_APISERVER and MUSTER_ETCD");
    let clients = Clients::of(&cluster.kubeconfig).await;
    let record = mode() == "record";
    let mut wrong = Vec::new();
    for file in files() {
        let (preface, mut cases) = case::parse(&fs::read_to_string(&file).unwrap());
        let mut kept = Kept::new();
        for case in &mut cases {
            let answer = clients.ask(case, &mut kept).await;
            if record {
                case.recorded = Some(answer);
                continue;
            }
            let expected = case.recorded.as_ref().unwrap();
            let differences = normal::differences(expected, &answer);
            wrong.extend(report(&file, case, "the real server", &differences));
        }
        if record {
            fs::write(&file, case::print(&preface, &cases)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with an answer of the embedded server.
fn judge(file: &Path, case: &Case, answer: &Answer) -> Option<String> {
    let Some(recorded) = &case.recorded else {
        return report(file, case, "", &["nothing is recorded".to_owned()]);
    };
    let Some((_, here)) = &case.here else {
        return report(file, case, "here", &normal::differences(recorded, answer));
    };
    if recorded == answer {
        let same = "it is answered as recorded now: remove its `--- here` part".to_owned();
        return report(file, case, "here", &[same]);
    }
    report(file, case, "here (a known difference)", &normal::differences(here, answer))
}

fn report(file: &Path, case: &Case, who: &str, differences: &[String]) -> Option<String> {
    if differences.is_empty() {
        return None;
    }
    let file = file.file_stem().unwrap_or_default().display();
    Some(format!("{file}: {} ({who})\n    {}", case.title, differences.join("\n    ")))
}

fn mode() -> String {
    std::env::var("MUSTER_GOLDEN").unwrap_or_default()
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

async fn serve(api: &ApiServer, home: &Home) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubeconfig = home.dir.path().join("admin.kubeconfig");
    api.write_admin_kubeconfig(&kubeconfig, listener.local_addr().unwrap()).unwrap();
    let api = api.clone();
    tokio::spawn(async move { api.serve(listener, CancellationToken::new()).await });
    kubeconfig
}

/// An administrator's connection to a server, and one of nobody.
struct Clients {
    admin: Client,
    nobody: Client,
}

impl Clients {
    async fn of(kubeconfig: &Path) -> Clients {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        // Each answer counts, also that one may come again later.
        config.default_retry = false;
        let mut nobody = config.clone();
        nobody.auth_info = Default::default();
        Clients {
            admin: Client::try_from(config).unwrap(),
            nobody: Client::try_from(nobody).unwrap(),
        }
    }

    /// Asks what a case asks, remembers what it keeps, and makes the answer comparable.
    async fn ask(&self, case: &Case, kept: &mut Kept) -> Answer {
        let client = if case.anonymous { &self.nobody } else { &self.admin };
        let mut raw = send(client, case, kept).await;
        for _ in 0..TRIES_MAX {
            if case.until.is_none_or(|code| code == raw.code) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            raw = send(client, case, kept).await;
        }
        if let Content::Json(values) = &raw.body {
            for (name, pointer) in &case.keep {
                if let Value::String(value) = normal::find(&values[0], pointer) {
                    kept.insert(name.clone(), value);
                }
            }
        }
        normal::answer(raw, kept, &case.only)
    }
}

async fn send(client: &Client, case: &Case, kept: &Kept) -> Answer {
    let mut body = normal::substitute(&case.body, kept);
    while body.len() < case.pad {
        body.push(' ');
    }
    let path = normal::substitute(&case.path, kept);
    let mut request = Request::builder().method(case.method.as_str()).uri(path);
    request = request.header("user-agent", "golden/1");
    for (name, value) in &case.headers {
        request = request.header(name, normal::substitute(value, kept));
    }
    let typed = case.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !typed && !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Body::from(body.into_bytes())).unwrap();
    let response = client.send(request).await;
    let response = response.unwrap_or_else(|error| panic!("{}: {error:?}", case.title));
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers: Vec<(String, String)> = parts.headers.iter().map(header).collect();
    let text = String::from_utf8_lossy(&bytes);
    let yaml =
        headers.iter().any(|(name, value)| name == "content-type" && value.ends_with("yaml"));
    let body = match yaml {
        true => Content::Json(vec![serde_saphyr::from_str(&text).unwrap()]),
        false => case::content(&text),
    };
    Answer { code: parts.status.as_u16(), headers, body }
}
