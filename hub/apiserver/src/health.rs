//! Health: `/livez`, `/readyz` and the older `/healthz`, as a whole or one check at a time.

use http::{HeaderValue, Response, StatusCode, header::X_CONTENT_TYPE_OPTIONS};

use crate::{
    body::Body,
    request::Query,
    respond::{page_not_found, text},
    server::Inner,
};

/// A question about the server's health, and at which endpoints it is asked.
struct Check {
    name: &'static str,
    at: &'static [&'static str],
    holds: fn(&Inner) -> bool,
}

const CHECKS: [Check; 3] = [
    Check { name: "ping", at: &["healthz", "livez", "readyz"], holds: |_| true },
    // Without its writer the server can tell what is, but change nothing.
    Check {
        name: "store",
        at: &["healthz", "livez", "readyz"],
        holds: |server| server.store.is_open(),
    },
    // Who balances load has to look elsewhere before the server is gone.
    Check { name: "shutdown", at: &["readyz"], holds: |server| !server.shutdown.is_cancelled() },
];

/// All paths below which health is told.
pub(crate) fn paths() -> Vec<String> {
    let endpoints = ["healthz", "livez", "readyz"];
    let of = |endpoint: &str| {
        let checks = checks(endpoint).map(move |check| format!("/{endpoint}/{}", check.name));
        [format!("/{endpoint}")].into_iter().chain(checks).collect::<Vec<_>>()
    };
    endpoints.into_iter().flat_map(of).collect()
}

/// The answer to a path about health; `None`: it is about something else.
pub(crate) fn answer(server: &Inner, path: &str, query: &str) -> Option<Response<Body>> {
    let path = path.trim_matches('/');
    let (endpoint, one) = path.split_once('/').unwrap_or((path, ""));
    checks(endpoint).next()?;
    let query = Query::parse(query);
    let mut response = match one {
        "" => whole(server, endpoint, &query),
        name => match checks(endpoint).find(|check| check.name == name) {
            Some(check) if (check.holds)(server) => text(StatusCode::OK, "ok"),
            Some(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: withheld\n"),
            None => page_not_found(),
        },
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

fn checks(endpoint: &str) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(move |check| check.at.contains(&endpoint))
}

/// All checks of an endpoint; which ones are told if that is asked for, or if one fails.
fn whole(server: &Inner, endpoint: &str, query: &Query) -> Response<Body> {
    let mut unknown: Vec<&str> = query.all("exclude").collect();
    let (mut report, mut healthy) = (String::new(), true);
    for check in checks(endpoint) {
        let excluded = unknown.contains(&check.name);
        unknown.retain(|name| *name != check.name);
        let line = match excluded || (check.holds)(server) {
            true if excluded => format!("[+]{} excluded: ok\n", check.name),
            true => format!("[+]{} ok\n", check.name),
            false => {
                healthy = false;
                format!("[-]{} failed: reason withheld\n", check.name)
            }
        };
        report.push_str(&line);
    }
    if !unknown.is_empty() {
        let quoted: Vec<String> = unknown.iter().map(|name| format!("{name:?}")).collect();
        let names = quoted.join(", ");
        report.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {names}\n"
        ));
    }
    match (healthy, query.all("verbose").next().is_some()) {
        (false, _) => {
            report.push_str(&format!("{endpoint} check failed\n"));
            text(StatusCode::INTERNAL_SERVER_ERROR, report)
        }
        (true, true) => {
            report.push_str(&format!("{endpoint} check passed\n"));
            text(StatusCode::OK, report)
        }
        (true, false) => text(StatusCode::OK, "ok"),
    }
}
