//! Which kinds are served, and which one does a user mean? Read from aggregated discovery.

use serde_json::Value;

/// Aggregated discovery (KEP-3352), as of Kubernetes 1.30 and before it.
pub(super) const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;\
     as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;\
     as=APIGroupDiscoveryList";

/// A kind in the version that its group prefers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(crate) kind: String,
    pub(super) plural: String,
    singular: String,
    short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) namespaced: bool,
    verbs: Vec<String>,
}

impl Kind {
    /// `group/version`, or `version` of the core group.
    pub(super) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `plural.group`, as kubectl names a resource.
    pub(super) fn resource(&self) -> String {
        self.with_group(&self.plural)
    }

    /// `singular.group/name`, as kubectl names an object.
    pub(super) fn object(&self, name: &str) -> String {
        let singular = match self.singular.as_str() {
            "" => self.kind.to_lowercase(),
            singular => singular.to_owned(),
        };
        format!("{}/{name}", self.with_group(&singular))
    }

    /// The path of all its objects; in one namespace if it has namespaces and one is given.
    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => {
                format!("{root}/{}/namespaces/{namespace}/{}", self.api_version(), self.plural)
            }
            None => format!("{root}/{}/{}", self.api_version(), self.plural),
        }
    }

    /// The path of one object.
    pub(super) fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.path(Some(namespace)))
    }

    fn with_group(&self, name: &str) -> String {
        if self.group.is_empty() { name.to_owned() } else { format!("{name}.{}", self.group) }
    }

    fn is_named(&self, name: &str) -> bool {
        let equals = |own: &str| own.eq_ignore_ascii_case(name);
        equals(&self.plural)
            || equals(&self.singular)
            || equals(&self.kind)
            || self.short_names.iter().any(|short| short == name)
    }
}

/// The kinds of an `APIGroupDiscoveryList`.
pub(super) fn read(document: &Value) -> Vec<Kind> {
    let mut found: Vec<Kind> = Vec::new();
    for group in items(document, "/items") {
        let name = text(group, "/metadata/name");
        for version in items(group, "/versions") {
            for resource in items(version, "/resources") {
                let kind = read_kind(&name, &text(version, "/version"), resource);
                let older = |k: &Kind| k.group == kind.group && k.plural == kind.plural;
                // The first version is the preferred one.
                if kind.verbs.iter().any(|verb| verb == "get" || verb == "list")
                    && !found.iter().any(older)
                {
                    found.push(kind);
                }
            }
        }
    }
    found
}

/// The first kind of that name: `pods`, `Pod`, `po`, `pods.GROUP`, `pods.VERSION.GROUP`.
pub(super) fn find<'a>(kinds: &'a [Kind], name: &str) -> Option<&'a Kind> {
    let plain = kinds.iter().find(|kind| kind.is_named(name));
    plain.or_else(|| {
        let (resource, group) = name.split_once('.')?;
        kinds.iter().find(|kind| {
            let in_version = group.strip_prefix(kind.version.as_str());
            let rest = in_version.and_then(|rest| rest.strip_prefix('.'));
            kind.is_named(resource) && (kind.group == group || rest == Some(kind.group.as_str()))
        })
    })
}

/// ` (do you mean …?)` where a served name is near.
pub(super) fn similar(kinds: &[Kind], name: &str) -> String {
    let start: String = name.to_lowercase().chars().take(4).collect();
    let near = kinds.iter().find(|kind| kind.plural.starts_with(&start));
    near.map(|kind| format!(" (do you mean {}?)", kind.resource())).unwrap_or_default()
}

fn read_kind(group: &str, version: &str, resource: &Value) -> Kind {
    let words = |path: &str| {
        items(resource, path).filter_map(|word| Some(word.as_str()?.to_owned())).collect()
    };
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: text(resource, "/responseKind/kind"),
        plural: text(resource, "/resource"),
        singular: text(resource, "/singularResource"),
        short_names: words("/shortNames"),
        categories: words("/categories"),
        namespaced: text(resource, "/scope") == "Namespaced",
        verbs: words("/verbs"),
    }
}

fn items<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn served() -> Vec<Kind> {
        let resource = |plural: &str, kind: &str, short: &str| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced",
                   "singularResource": kind.to_lowercase(), "shortNames": [short], "verbs": ["get"]})
        };
        let core = json!({"items": [{"metadata": {}, "versions": [
            {"version": "v1", "resources": [resource("pods", "Pod", "po")]}]}]});
        let others = json!({"items": [{"metadata": {"name": "metrics.example.com"}, "versions": [
            {"version": "v2", "resources": [resource("pods", "Pod", "pm")]},
            {"version": "v1", "resources": [resource("pods", "Pod", "pm")]}]}]});
        [read(&core), read(&others)].concat()
    }

    #[test]
    fn a_kind_is_found_by_each_of_its_names() {
        let kinds = served();
        for name in ["pods", "pod", "Pod", "po"] {
            assert_eq!(find(&kinds, name).unwrap().group, "", "{name}");
        }
        for name in ["pm", "pods.metrics.example.com", "Pod.v2.metrics.example.com"] {
            assert_eq!(find(&kinds, name).unwrap().group, "metrics.example.com", "{name}");
        }
        assert_eq!(find(&kinds, "pods.example.com"), None);
        assert_eq!(find(&kinds, "pm").unwrap().version, "v2");
    }

    #[test]
    fn paths_follow_group_and_namespace() {
        let kinds = served();
        assert_eq!(kinds[0].object_path("a", "x"), "/api/v1/namespaces/a/pods/x");
        assert_eq!(kinds[1].path(None), "/apis/metrics.example.com/v2/pods");
    }
}
