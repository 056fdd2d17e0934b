//! Names that cross crates, checked once at the door.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest object name, as in Kubernetes (RFC 1123 subdomain).
pub const NAME_LEN_MAX: usize = 253;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is not an RFC 1123 subdomain.
    #[error(
        "{0:?} is not a name: use at most 253 lower-case letters, digits, '-' or '.', \
         and begin and end with a letter or digit"
    )]
    NotSubdomain(String),
    /// The text is not `namespace/name`.
    #[error("{0:?} does not name a placement: write namespace/name")]
    NotKey(String),
}

/// The name of a Destination, and so of the Agent that feeds it (the two are always equal).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DestinationName(String);

/// Where a WorkPlacement is found: its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlacementKey {
    namespace: String,
    name: String,
}

// === impl DestinationName ===

impl DestinationName {
    /// Parses a destination's name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        subdomain(text).map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DestinationName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<DestinationName> for String {
    fn from(name: DestinationName) -> Self {
        name.0
    }
}

// === impl PlacementKey ===

impl PlacementKey {
    /// The key of the WorkPlacement `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self { namespace: subdomain(namespace)?, name: subdomain(name)? })
    }

    /// Parses `namespace/name`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| NameError::NotKey(text.to_owned()))?;
        Self::new(namespace, name)
    }

    /// The namespace of the WorkPlacement.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the WorkPlacement.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PlacementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl TryFrom<String> for PlacementKey {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<PlacementKey> for String {
    fn from(key: PlacementKey) -> Self {
        key.to_string()
    }
}

fn subdomain(text: &str) -> Result<String, NameError> {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |l: &str| {
        let b = l.as_bytes();
        b.first().is_some_and(|c| alnum(*c))
            && b.last().is_some_and(|c| alnum(*c))
            && b.iter().all(|c| alnum(*c) || *c == b'-')
    };
    if text.len() <= NAME_LEN_MAX && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(NameError::NotSubdomain(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_kubernetes_refuses() {
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", "../x", "a/b", &"a".repeat(254)] {
            assert!(DestinationName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "vm-1", "eu.west-1", "0"] {
            assert_eq!(DestinationName::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn placement_key_reads_what_it_writes() {
        let key = PlacementKey::new("default", "web-main-abcde.vm-1-5058f").unwrap();
        assert_eq!(PlacementKey::parse(&key.to_string()).unwrap(), key);
        assert!(PlacementKey::parse("no-namespace").is_err());
    }
}
