//! What is served, as documents: aggregated discovery (KEP-3352) and the older lists.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Value, json};

/// One served version of one kind, as clients discover it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindInfo {
    /// Empty for core.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    /// It comes of a definition.
    pub(crate) custom: bool,
    /// A deletion is answered with the object.
    pub(crate) returns_deleted: bool,
    pub(crate) subresources: Vec<Subresource>,
}

/// One subresource of a kind, such as `status`, with the kind that it speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subresource {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) verbs: Vec<String>,
}

/// `APIGroupDiscoveryList` (v2): of the core group for `/api`, else of all named groups.
pub(crate) fn aggregated(kinds: &[KindInfo], core: bool) -> Value {
    let groups: Vec<Value> = by_group(kinds, core)
        .into_iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, kinds)| {
                    let resources: Vec<Value> =
                        kinds.into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = match name {
                "" => json!({"creationTimestamp": null}),
                name => json!({"name": name, "creationTimestamp": null}),
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": groups,
    })
}

/// `APIVersions`, the answer of `/api` to clients that know no aggregated discovery.
pub(crate) fn versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `APIGroupList`, the answer of `/apis`.
pub(crate) fn groups(kinds: &[KindInfo]) -> Value {
    let groups: Vec<Value> =
        by_group(kinds, false).into_iter().map(|(name, v)| group_entry(name, &v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `APIGroup`, the answer of `/apis/GROUP`; `None` if nothing of the group is served.
pub(crate) fn group(kinds: &[KindInfo], name: &str) -> Option<Value> {
    let groups = by_group(kinds, false);
    let mut entry = group_entry(name, groups.get(name)?);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

/// `APIResourceList`, the answer of `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(kinds: &[KindInfo], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.iter().filter(|k| k.group == group && k.version == version) {
        let mut entry = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        set_names(&mut entry, kind);
        resources.push(entry);
        for sub in &kind.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub.kind,
                "verbs": sub.verbs,
            });
            if (&sub.group, &sub.version) != (&kind.group, &kind.version) {
                entry["group"] = sub.group.as_str().into();
                entry["version"] = sub.version.as_str().into();
            }
            resources.push(entry);
        }
    }
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version(group, version),
            "resources": resources,
        })
    })
}

/// Sort key that puts versions in Kubernetes' order of preference: `v2`, `v1`, `v2beta1`,
/// `v1beta2`, `v1alpha1`, then anything else by name.
pub(crate) fn version_rank(version: &str) -> (Reverse<(u8, u32, u32)>, String) {
    let parsed = || {
        let digits = version.strip_prefix('v')?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let (major, rest) = digits.split_at(end);
        let major = major.parse().ok()?;
        let (stability, minor) = match rest {
            "" => (3, "0"),
            rest if rest.starts_with("beta") => (2, &rest[4..]),
            rest if rest.starts_with("alpha") => (1, &rest[5..]),
            _ => return None,
        };
        Some((stability, major, minor.parse().ok()?))
    };
    (Reverse(parsed().unwrap_or_default()), version.to_owned())
}

/// Groups of kinds, their versions in order of preference.
type Versions<'a> = Vec<(&'a str, Vec<&'a KindInfo>)>;

fn by_group(kinds: &[KindInfo], core: bool) -> BTreeMap<&str, Versions<'_>> {
    let mut groups: BTreeMap<&str, Versions<'_>> = BTreeMap::new();
    for kind in kinds.iter().filter(|kind| kind.group.is_empty() == core) {
        let versions = groups.entry(&kind.group).or_default();
        match versions.iter_mut().find(|(version, _)| *version == kind.version) {
            Some((_, kinds)) => kinds.push(kind),
            None => versions.push((&kind.version, vec![kind])),
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_cached_key(|(version, _)| version_rank(version));
    }
    groups
}

fn group_entry(name: &str, versions: &Versions<'_>) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": group_version(name, version), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn aggregated_resource(kind: &KindInfo) -> Value {
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    set_names(&mut entry, kind);
    if !kind.subresources.is_empty() {
        let subresources: Vec<Value> = kind
            .subresources
            .iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name,
                    "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                    "verbs": sub.verbs,
                })
            })
            .collect();
        entry["subresources"] = subresources.into();
    }
    entry
}

fn set_names(entry: &mut Value, kind: &KindInfo) {
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
}

fn group_version(group: &str, version: &str) -> String {
    match group.is_empty() {
        true => version.to_owned(),
        false => format!("{group}/{version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, version: &str, kind: &str) -> KindInfo {
        let plural = format!("{}s", kind.to_lowercase());
        KindInfo {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            singular: kind.to_lowercase(),
            plural,
            namespaced: true,
            verbs: vec!["get".to_owned(), "list".to_owned()],
            subresources: vec![Subresource {
                name: "scale".to_owned(),
                group: "autoscaling".to_owned(),
                version: "v1".to_owned(),
                kind: "Scale".to_owned(),
                verbs: vec!["get".to_owned()],
            }],
            ..KindInfo::default()
        }
    }

    #[test]
    fn versions_are_ordered_by_stability() {
        let mut versions = ["foo", "v1alpha1", "v1", "v2beta1", "v10", "v1beta2", "v2"];
        versions.sort_by_cached_key(|v| version_rank(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn lists_groups_versions_and_subresources() {
        let kinds = [kind("", "v1", "Pod"), kind("g.io", "v1beta1", "W"), kind("g.io", "v1", "W")];
        let list = aggregated(&kinds, false);
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        assert_eq!(list["items"][0]["metadata"]["name"], "g.io");
        assert_eq!(list["items"][0]["versions"][0]["version"], "v1");
        let resource = &list["items"][0]["versions"][0]["resources"][0];
        assert_eq!(
            resource["responseKind"],
            json!({"group": "g.io", "version": "v1", "kind": "W"})
        );
        assert_eq!(resource["subresources"][0]["subresource"], "scale");
        assert_eq!(
            aggregated(&kinds, true)["items"][0]["versions"][0]["resources"][0]["resource"],
            "pods"
        );
        assert_eq!(groups(&kinds)["groups"][0]["preferredVersion"]["groupVersion"], "g.io/v1");
        assert_eq!(group(&kinds, "g.io").unwrap()["kind"], "APIGroup");
        assert!(group(&kinds, "x").is_none());
        let list = resources(&kinds, "", "v1").unwrap();
        assert_eq!(list["groupVersion"], "v1");
        assert_eq!(list["resources"][1]["name"], "pods/scale");
        assert_eq!(list["resources"][1]["group"], "autoscaling");
        assert!(resources(&kinds, "g.io", "v3").is_none());
    }
}
