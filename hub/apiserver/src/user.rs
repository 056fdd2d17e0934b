//! Who makes a request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Members may do everything; it cannot be taken away by deleting a role (Kubernetes' own rule).
pub(crate) const MASTERS: &str = "system:masters";

/// Everyone who proved who they are.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";

/// Who did not, and their group. Nobody is served as such; it can be asked what they may.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";

/// What names of ServiceAccounts begin with.
const ACCOUNT: &str = "system:serviceaccount:";

/// The pod that a token is bound to, in [`UserInfo::extra`].
pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// The uid of the pod that a token is bound to, in [`UserInfo::extra`].
pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// An identity, as Kubernetes' `authentication.k8s.io/v1` `UserInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The server's operator: may do everything.
    pub fn admin() -> UserInfo {
        UserInfo::with_groups("system:admin", &[MASTERS, AUTHENTICATED])
    }

    /// A ServiceAccount, as its token would say.
    pub fn service_account(namespace: &str, name: &str) -> UserInfo {
        let mut user = UserInfo::with_groups("", &["system:serviceaccounts", "", AUTHENTICATED]);
        user.name = format!("{ACCOUNT}{namespace}:{name}");
        user.groups[1] = format!("system:serviceaccounts:{namespace}");
        user
    }

    /// A user of that name in those groups.
    pub fn with_groups(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut json = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            json["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            json["extra"] = json!(self.extra);
        }
        json
    }

    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// Namespace and name of the ServiceAccount that a user's name stands for.
pub(crate) fn account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(ACCOUNT)?.split_once(':')
}
