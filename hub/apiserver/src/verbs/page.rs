//! Where the next page of a list begins: the continue token (apiserver `storage/continue.go`).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Path of an object within its kind, namespace and name, as tables are ordered.
pub(crate) type Path = (String, String);

/// The form of the token that is written and read.
const VERSION: &str = "meta.k8s.io/v1";

/// The rest of a list of which the first pages were sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The revision of the whole list.
    pub(crate) revision: u64,
    /// The last object that was sent.
    pub(crate) after: Path,
}

/// The token as JSON.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    /// `namespace/name\0`: after that object.
    start: String,
}

impl Page {
    pub(crate) fn parse(token: &str) -> Result<Page, Status> {
        let json = URL_SAFE_NO_PAD.decode(token.trim_end_matches('='));
        let json = json.map_err(|error| invalid(&error.to_string()))?;
        let token: Token =
            serde_json::from_slice(&json).map_err(|error| invalid(&error.to_string()))?;
        if token.v != VERSION {
            return Err(invalid(&format!("the version {:?} is not known", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion"));
        }
        let after = token.start.strip_suffix('\0').and_then(|path| path.split_once('/'));
        let (namespace, name) = after.ok_or_else(|| invalid("it does not say where to begin"))?;
        let after = (namespace.to_owned(), name.to_owned());
        Ok(Page { revision: token.rv, after })
    }

    pub(crate) fn print(&self) -> String {
        let (namespace, name) = &self.after;
        let start = format!("{namespace}/{name}\0");
        let token = Token { v: VERSION.to_owned(), rv: self.revision, start };
        // Texts and numbers always become JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }
}

/// The refusal of a token.
pub(crate) fn invalid(why: &str) -> Status {
    Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
}
