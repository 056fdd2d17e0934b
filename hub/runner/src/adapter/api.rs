//! The pod's way to the API and to the hub's results endpoint, with the pod's own token.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use futures::AsyncReadExt as _;
use http::{HeaderValue, Method, Request, header::InvalidHeaderValue};
use kube::{Client, Config, config::AuthInfo};
use muster_core::FileSet;
use serde_json::Value;

/// How often a call is made before the container fails (and the Job tries again): enough for the
/// hub to be restarted meanwhile.
const ATTEMPTS: u32 = 4;
/// The first wait; it doubles.
const ATTEMPT_WAIT: Duration = Duration::from_millis(500);
/// Most bytes of an answer: an object has at most 3 MiB, and what the hub tells of children at most 8.
const ANSWER_LEN_MAX: u64 = 16 << 20;
/// Output of a pipeline is mostly YAML; more effort than this takes longer than it saves.
const COMPRESSION_LEVEL: i32 = 3;

/// Why a call to the hub failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The token or the certificate authority is not where Kubernetes puts it.
    #[error("cannot read the pod's ServiceAccount file {path}")]
    Account {
        /// Which file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The client could not be made from address, token and certificate authority.
    #[error("cannot set up a client for the API at {address}: {cause}")]
    Client {
        /// The API's address.
        address: String,
        /// What is wrong.
        cause: String,
    },
    /// The hub answered, and said no.
    #[error("the hub refused {what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// The hub's words.
        message: String,
    },
    /// No answer.
    #[error("the hub could not be reached for {what}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// The last failure.
        #[source]
        source: Box<kube::Error>,
    },
    /// The output could not be compressed.
    #[error("cannot compress the output")]
    Compress(#[source] io::Error),
}

pub(super) struct Api {
    client: Client,
    /// For the results endpoint, if that is elsewhere.
    results: Option<Client>,
    namespace: String,
    /// `Bearer …`, where the client does not add it by itself.
    authorization: Option<HeaderValue>,
}

impl Api {
    /// The API at `address`, and the results endpoint at `results` if it is not there, with the
    /// ServiceAccount files (`token`, `ca.crt`, `namespace`) of `account`.
    pub(super) fn at(
        address: &str,
        results: Option<&str>,
        account: &Path,
    ) -> Result<Self, CallError> {
        let client = connect(address, account)?;
        let results = results.map(|base| connect(base, account)).transpose()?;
        let namespace = read(account, "namespace")?;
        Ok(Self { client, results, namespace, authorization: None })
    }

    /// The API in this process, which serves the results endpoint too, with the token of `account`.
    pub(super) fn through(door: Client, account: &Path) -> Result<Self, CallError> {
        let bearer = format!("Bearer {}", read(account, "token")?.trim());
        let failed = |error: InvalidHeaderValue| CallError::Client {
            address: "this process".to_owned(),
            cause: error.to_string(),
        };
        let mut authorization = HeaderValue::try_from(bearer).map_err(failed)?;
        authorization.set_sensitive(true);
        let namespace = read(account, "namespace")?;
        Ok(Self { client: door, results: None, namespace, authorization: Some(authorization) })
    }

    /// GETs an object.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CallError> {
        let what = format!("GET {path}");
        let request = self.request(Method::GET, path, Vec::new(), &what)?;
        let text = call(&self.client, request, &what).await?;
        serde_json::from_str(&text)
            .map_err(|error| CallError::Refused { what, message: error.to_string() })
    }

    /// The children of the object that a Job runs for: the path and text of each.
    pub(super) async fn get_children(
        &self,
        job: &str,
    ) -> Result<BTreeMap<String, String>, CallError> {
        let path = format!("/muster/results/{}/{job}/children", self.namespace);
        let what = "the requests of earlier pipelines".to_owned();
        let request = self.request(Method::GET, &path, Vec::new(), &what)?;
        let text = call(self.results.as_ref().unwrap_or(&self.client), request, &what).await?;
        serde_json::from_str(&text)
            .map_err(|error| CallError::Refused { what, message: error.to_string() })
    }

    /// Hands files to the results endpoint.
    pub(super) async fn post_results(
        &self,
        job: &str,
        part: &str,
        files: &FileSet,
    ) -> Result<(), CallError> {
        let body = zstd::bulk::compress(&files.encode(), COMPRESSION_LEVEL)
            .map_err(CallError::Compress)?;
        let path = format!("/muster/results/{}/{job}/{part}", self.namespace);
        let what = format!("the pipeline's {part}");
        let request = self.request(Method::POST, &path, body, &what)?;
        call(self.results.as_ref().unwrap_or(&self.client), request, &what).await.map(drop)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        what: &str,
    ) -> Result<Request<Vec<u8>>, CallError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/zstd");
        if let Some(authorization) = &self.authorization {
            request = request.header(http::header::AUTHORIZATION, authorization);
        }
        request.body(body).map_err(|error| CallError::Refused {
            what: what.to_owned(),
            message: error.to_string(),
        })
    }
}

fn read(account: &Path, name: &str) -> Result<String, CallError> {
    let path = account.join(name);
    fs::read_to_string(&path)
        .map_err(|source| CallError::Account { path: path.display().to_string(), source })
}

fn connect(address: &str, account: &Path) -> Result<Client, CallError> {
    let failed = |cause: String| CallError::Client { address: address.to_owned(), cause };
    let url: http::Uri =
        address.parse().map_err(|e: http::uri::InvalidUri| failed(e.to_string()))?;
    let mut config = Config::new(url);
    config.root_cert_file = Some(account.join("ca.crt"));
    let token_file = account.join("token").display().to_string();
    config.auth_info = AuthInfo { token_file: Some(token_file), ..AuthInfo::default() };
    Client::try_from(config).map_err(|error| failed(error.to_string()))
}

/// All calls of the adapter may be repeated: some read, the other is idempotent by the Job's uid.
async fn call(client: &Client, request: Request<Vec<u8>>, what: &str) -> Result<String, CallError> {
    let mut wait = ATTEMPT_WAIT;
    let mut attempt = 1;
    loop {
        match answer(client, request.clone()).await {
            Ok(text) if text.len() as u64 > ANSWER_LEN_MAX => {
                let message = format!("it is longer than {ANSWER_LEN_MAX} bytes");
                return Err(CallError::Refused { what: what.to_owned(), message });
            }
            Ok(text) => return Ok(text),
            Err(kube::Error::Api(status)) if status.code < 500 => {
                let message = status.message.clone();
                return Err(CallError::Refused { what: what.to_owned(), message });
            }
            Err(error) if attempt == ATTEMPTS => {
                return Err(CallError::Unreachable {
                    what: what.to_owned(),
                    source: Box::new(error),
                });
            }
            Err(_) => tokio::time::sleep(wait).await,
        }
        attempt += 1;
        wait *= 2;
    }
}

/// One answer; of one that is too long, the beginning.
async fn answer(client: &Client, request: Request<Vec<u8>>) -> Result<String, kube::Error> {
    let body = client.request_stream(request).await?;
    let mut bytes = Vec::new();
    body.take(ANSWER_LEN_MAX + 1).read_to_end(&mut bytes).await.map_err(kube::Error::ReadEvents)?;
    String::from_utf8(bytes).map_err(kube::Error::FromUtf8)
}
