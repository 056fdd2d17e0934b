//! What a request asks for: which object or collection, which verb, with which options.

use std::time::Duration;

use http::Method;

use crate::{
    field::FieldError,
    selector::{Fields, Labels},
    status::Status,
};

/// An address below `/api` or `/apis`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Target {
    /// Parses a path; `None`: it is not the path of a resource.
    pub(crate) fn parse(path: &str) -> Option<Target> {
        let mut parts: Vec<String> =
            path.trim_matches('/').split('/').map(|part| decode(part, false)).collect();
        let (group, version, mut rest) = match parts.first()?.as_str() {
            "api" if parts.len() > 2 => (String::new(), parts[1].clone(), parts.split_off(2)),
            "apis" if parts.len() > 3 => (parts[1].clone(), parts[2].clone(), parts.split_off(3)),
            _ => return None,
        };
        let mut target = Target { group, version, ..Target::default() };
        let below_namespace = rest[0] == "namespaces"
            && rest.len() > 2
            && !(rest.len() == 3 && ["status", "finalize"].contains(&rest[2].as_str()));
        if below_namespace {
            target.namespace = Some(rest.remove(1));
            rest.remove(0);
        }
        let mut rest = rest.into_iter();
        target.plural = rest.next()?;
        target.name = rest.next();
        target.subresource = rest.next();
        match rest.next() {
            Some(_) => None,
            None => Some(target),
        }
    }

    /// `pods`, or `pods/log`, as RBAC names it.
    pub(crate) fn rbac_resource(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.plural),
            None => self.plural.clone(),
        }
    }
}

/// What is done, as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The verb of a method; `None`: the API has no such method.
    pub(crate) fn of(method: &Method, target: &Target, query: &Query) -> Option<Verb> {
        let named = target.name.is_some();
        Some(match *method {
            Method::GET | Method::HEAD if named => Verb::Get,
            Method::GET | Method::HEAD if query.flag("watch") => Verb::Watch,
            Method::GET | Method::HEAD => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if named => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    /// It changes nothing.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// The parameters of a query, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Query {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name, true), decode(value, true))
        };
        Query(query.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The first value of a parameter, if there is one that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.is_some_and(|(_, value)| !["false", "0"].contains(&value.as_str()))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Less than nothing is nothing, as for a real server.
        let number = value.parse::<i64>().map(|number| number.max(0).unsigned_abs());
        number.map(Some).map_err(|_| {
            Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
        })
    }

    /// All values of a parameter, which may be empty.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Percent-decoding; in queries a `+` is a space. What is not UTF-8 is replaced.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let hex = tail
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (byte, hex) {
            (_, Some(decoded)) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What to do with fields that the schema does not know, and with repeated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The options of every write.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Who is written into managedFields.
    pub manager: Option<String>,
    pub force: bool,
}

/// A manager's name is at most so long (apimachinery `FieldManagerMaxLength`).
const MANAGER_CHARS_MAX: usize = 128;

impl WriteOptions {
    /// Reads them; `options` names the kind of options in errors, e.g. `CreateOptions`.
    pub(crate) fn parse(query: &Query, options: &str) -> Result<WriteOptions, Status> {
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if dry_run.iter().any(|&value| value != "All") {
            let error = FieldError::unsupported_list("dryRun", &dry_run, &["All"]);
            return Err(Status::invalid_option(options, error));
        }
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported("fieldValidation", &other.into(), &supported);
                return Err(Status::invalid_option(options, error));
            }
        };
        let manager = query.get("fieldManager").map(str::to_owned);
        if manager.as_ref().is_some_and(|manager| manager.chars().count() > MANAGER_CHARS_MAX) {
            let error = FieldError::too_long("fieldManager", MANAGER_CHARS_MAX as u64);
            return Err(Status::invalid_option(options, error));
        }
        let force = query.flag("force");
        Ok(WriteOptions { dry_run: !dry_run.is_empty(), field_validation, manager, force })
    }
}

/// How a given resource version is meant in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Newest,
    NotOlderThan(u64),
    Exact(u64),
}

/// The options of lists and watches.
#[derive(Debug)]
pub(crate) struct ListOptions {
    pub labels: Labels,
    pub fields: Fields,
    pub limit: Option<usize>,
    pub continue_token: Option<String>,
    pub version: Option<u64>,
    pub version_match: VersionMatch,
    pub bookmarks: bool,
    pub send_initial: Option<bool>,
    pub timeout: Option<Duration>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let labels = Labels::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = Fields::parse(query.get("fieldSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let version = match query.get("resourceVersion").map(str::parse) {
            Some(Err(_)) => {
                let value = query.get("resourceVersion").unwrap_or_default();
                let detail = format!("strconv.ParseUint: parsing {value:?}: invalid syntax");
                let error = FieldError::invalid("resourceVersion", &value.into(), &detail);
                // A real server calls it its own failure.
                let code = http::StatusCode::INTERNAL_SERVER_ERROR;
                return Err(Status::new(code, "", error.to_string()));
            }
            Some(Ok(version)) => Some(version),
            None => None,
        };
        let asked = query.get("resourceVersionMatch");
        let version_match = match (asked, version) {
            (Some("Exact"), Some(version)) if version > 0 => VersionMatch::Exact(version),
            (_, Some(version)) if version > 0 => VersionMatch::NotOlderThan(version),
            _ => VersionMatch::Newest,
        };
        let send_initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        if let Some(error) = wrong_match(asked, version, send_initial.is_some(), watch) {
            return Err(Status::invalid_option("ListOptions", error));
        }
        if query.get("continue").is_some() && version.is_some_and(|version| version > 0) {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(message));
        }
        Ok(ListOptions {
            labels,
            fields,
            limit: query.number("limit")?.filter(|&limit| limit > 0).map(|limit| limit as usize),
            continue_token: query.get("continue").map(str::to_owned),
            version,
            version_match,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial,
            timeout: query.number("timeoutSeconds")?.filter(|&s| s > 0).map(Duration::from_secs),
        })
    }
}

/// What of a list's version cannot be meant (apimachinery `internalversion/validation`).
fn wrong_match(
    asked: Option<&str>,
    version: Option<u64>,
    sends_initial: bool,
    watch: bool,
) -> Option<FieldError> {
    let field = "resourceVersionMatch";
    let forbidden = |detail: &str| Some(FieldError::forbidden(field, detail));
    match (watch, sends_initial, asked) {
        (true, true, asked) if asked != Some("NotOlderThan") => {
            forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (true, false, Some(_)) => forbidden(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (false, true, _) => {
            let detail = "sendInitialEvents is forbidden for list";
            Some(FieldError::forbidden("sendInitialEvents", detail))
        }
        (false, _, Some(_)) if version.is_none() => {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        (false, _, Some("Exact")) if version == Some(0) => {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        (false, _, Some(other)) if !["Exact", "NotOlderThan"].contains(&other) => {
            let supported = ["Exact", "NotOlderThan", ""];
            Some(FieldError::not_supported(field, &other.into(), &supported))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_address_of_every_shape_of_path() {
        let target = |path| Target::parse(path).unwrap();
        let pod_log = target("/api/v1/namespaces/a/pods/p/log");
        assert_eq!(pod_log.namespace.as_deref(), Some("a"));
        assert_eq!(pod_log.rbac_resource(), "pods/log");
        let namespace = target("/api/v1/namespaces/a");
        assert_eq!(
            (namespace.plural.as_str(), namespace.name.as_deref()),
            ("namespaces", Some("a"))
        );
        assert_eq!(target("/api/v1/namespaces/a/status").subresource.as_deref(), Some("status"));
        assert_eq!(target("/api/v1/namespaces/a/pods").name, None);
        assert_eq!(target("/apis/lab.example.com/v1/widgets").group, "lab.example.com");
        assert_eq!(Target::parse("/apis/lab.example.com/v1"), None);
        assert_eq!(Target::parse("/version"), None);
    }

    #[test]
    fn decodes_what_clients_encode() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch=1&limit=");
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit").unwrap(), None);
    }
}
