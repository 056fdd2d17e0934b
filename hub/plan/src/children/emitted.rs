//! Which documents of a pipeline's output are requests that the hub makes itself?
//!
//! Those of a group that selects the platform (its selectors hold for the labels of the platform, by
//! default `environment: platform`, which is the custom among Promises) and that no Destination takes.
//! What the hub made once stays the hub's while it is put out, even when a Destination comes that
//! would take it: as a placement stays where it is.

use std::collections::BTreeMap;

use muster_api::{ChildRequest, Work, WorkSpec, WorkloadGroup};
use muster_core::FileSet;
use serde_json::{Map, Value, json};

use crate::{
    promise::RequestApi,
    schedule::Wanted,
    site::Sites,
    work::Group,
    workflow::{Scope, Subject},
};

/// Most requests that one pipeline puts out: each is looked at whenever its parent is.
pub const CHILDREN_MAX: usize = 64;
/// Most bytes of all of them as JSON: they stand in one Work, far below the limit of an object.
pub const CHILDREN_LEN_MAX: usize = 256 << 10;
/// How many ancestors a request may have. What is deeper is a circle whose names grow: people offer
/// services made of services made of services.
pub const DEPTH_MAX: usize = 8;
/// Where a request without a namespace goes that a Promise's own pipeline puts out, as with kubectl.
const NAMESPACE_DEFAULT: &str = "default";
/// What files must be named to be looked into.
const DOCUMENT_ENDS: [&str; 3] = [".yaml", ".yml", ".json"];

/// All that it depends on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The labels of the platform itself.
    pub platform: &'a BTreeMap<String, String>,
    /// All destinations.
    pub sites: &'a Sites,
    /// What is offered: Promises, and their APIs.
    pub offers: &'a [(String, RequestApi)],
    /// What the hub makes already of what this pipeline put out before.
    pub held: &'a [ChildRequest],
}

/// One request, for comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; none of a Promise.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Why a result is refused: file, object, cause and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {title}: {cause}")]
pub struct ChildError {
    file: String,
    title: String,
    cause: String,
}

/// Whether anything in these groups may be for the platform: else nothing more need be known.
pub fn concerns(groups: &[Group], platform: &BTreeMap<String, String>) -> bool {
    groups.iter().any(|group| selects(group, platform))
}

/// Takes the children out of the groups. What is left of a file stays in its group, and a group of
/// which nothing is left goes.
pub fn take(
    parent: &Subject,
    groups: Vec<Group>,
    ground: &Ground<'_>,
) -> Result<(Vec<Group>, Vec<ChildRequest>), ChildError> {
    let mut children = Vec::new();
    let mut kept = Vec::with_capacity(groups.len());
    for mut group in groups {
        if selects(&group, ground.platform) {
            group.files = Taking { parent, ground, children: &mut children }.files(&group)?;
            if group.files.is_empty() {
                continue;
            }
        }
        kept.push(group);
    }
    Ok((kept, children))
}

/// Why a child may not be in this namespace; `None`: it may.
pub(super) fn misplaced(parent: &Subject, namespace: &str) -> Option<String> {
    let own = parent.namespace.as_deref();
    let is_elsewhere = parent.scope == Scope::Resource && Some(namespace) != own;
    is_elsewhere.then(|| {
        format!(
            "metadata.namespace: {namespace:?} is not the namespace of the request that it is made \
             of: leave it out, or write {:?}; only pipelines of a Promise itself may put out \
             requests for other namespaces",
            own.unwrap_or_default()
        )
    })
}

/// Refuses children that are their own ancestors, or too many generations of them. `line` begins
/// with the parent, and goes on with its parent.
pub fn check_line(children: &[ChildRequest], line: &[Identity]) -> Result<(), String> {
    let Some(first) = children.first() else { return Ok(()) };
    let title = |request: &ChildRequest| {
        let text = |pointer: &str| request.manifest.pointer(pointer).and_then(Value::as_str);
        let of = |pointer: &str| text(pointer).unwrap_or_default().to_owned();
        format!("{} {}", of("/kind"), of("/metadata/name"))
    };
    for child in children {
        if let Some(at) = line.iter().position(|ancestor| *ancestor == Identity::of(child)) {
            let what = match at {
                0 => "is the request that puts it out".to_owned(),
                _ => {
                    let steps =
                        line[..at].iter().rev().map(|it| format!("{} {}", it.kind, it.name));
                    format!(
                        "is made of {}, which puts it out",
                        steps.collect::<Vec<_>>().join(", ")
                    )
                }
            };
            return Err(format!(
                "{} {what}: a request cannot be made of itself; choose another kind or name",
                title(child)
            ));
        }
    }
    if line.len() > DEPTH_MAX {
        return Err(format!(
            "{} would be the child of a child {} times over: no more than {DEPTH_MAX} generations \
             are made",
            title(first),
            line.len()
        ));
    }
    Ok(())
}

impl Identity {
    /// Who a child is.
    pub fn of(request: &ChildRequest) -> Self {
        let text = |pointer: &str| request.manifest.pointer(pointer).and_then(Value::as_str);
        let of = |pointer: &str| text(pointer).unwrap_or_default().to_owned();
        Self {
            group: group_of(&of("/apiVersion")).to_owned(),
            kind: of("/kind"),
            namespace: Some(of("/metadata/namespace")),
            name: of("/metadata/name"),
        }
    }

    /// Who a parent is.
    pub fn of_subject(subject: &Subject) -> Self {
        Self {
            group: subject.group.clone(),
            kind: subject.kind.clone(),
            namespace: subject.namespace.clone(),
            name: subject.name.clone(),
        }
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether a group is for what has the labels of the platform. A group for everywhere is not.
fn selects(group: &Group, platform: &BTreeMap<String, String>) -> bool {
    let selector = wanted(group).selector;
    !selector.is_empty() && selector.matches(platform)
}

/// What the destinations of a group would have to be.
fn wanted(group: &Group) -> Wanted {
    let destination_selectors = group.selectors.clone();
    let group = WorkloadGroup { destination_selectors, ..WorkloadGroup::default() };
    Wanted::of(&Work::new("", WorkSpec::default()), &group)
}

/// The children of one pipeline, in the making.
struct Taking<'a> {
    parent: &'a Subject,
    ground: &'a Ground<'a>,
    children: &'a mut Vec<ChildRequest>,
}

impl Taking<'_> {
    /// The files of a group without what the hub makes of them.
    fn files(&mut self, group: &Group) -> Result<FileSet, ChildError> {
        let wanted = wanted(group);
        let is_taken = self.ground.sites.values().any(|site| wanted.fits(Some(site)));
        let mut rest = FileSet::new();
        for (path, bytes) in group.files.iter() {
            let left = match std::str::from_utf8(bytes) {
                Ok(text) if DOCUMENT_ENDS.iter().any(|end| path.ends_with(end)) => {
                    self.documents(path, text, is_taken)?
                }
                _ => Some(bytes.to_vec()),
            };
            if let Some(left) = left {
                // It is smaller than what was read, under the same path.
                rest.insert(path, left).map_err(|error| ChildError {
                    file: path.to_owned(),
                    title: "its other documents".to_owned(),
                    cause: error.to_string(),
                })?;
            }
        }
        Ok(rest)
    }

    /// What is left of a file; `None`: nothing.
    fn documents(
        &mut self,
        path: &str,
        text: &str,
        is_taken: bool,
    ) -> Result<Option<Vec<u8>>, ChildError> {
        let (mut left, mut took) = (Vec::new(), false);
        for document in documents(text) {
            match self.child(path, &document, is_taken)? {
                Some(child) => {
                    self.add(path, child)?;
                    took = true;
                }
                None if is_blank(&document) => {}
                None => left.push(document),
            }
        }
        Ok(match (took, left.is_empty()) {
            (false, _) => Some(text.as_bytes().to_vec()),
            (true, true) => None,
            (true, false) => Some(left.join("---\n").into_bytes()),
        })
    }

    /// The child that a document is, if it is one. What is not YAML is for others to judge.
    fn child(
        &self,
        file: &str,
        document: &str,
        is_taken: bool,
    ) -> Result<Option<ChildRequest>, ChildError> {
        let Ok(Value::Object(written)) = serde_saphyr::from_str::<Value>(document) else {
            return Ok(None);
        };
        let text = |key: &str| written.get(key).and_then(Value::as_str).unwrap_or_default();
        let (group, kind) = (group_of(text("apiVersion")), text("kind"));
        let offered = self.ground.offers.iter();
        let offer = offered.into_iter().find(|(_, api)| api.group == group && api.kind == kind);
        let Some((promise, api)) = offer else { return Ok(None) };
        let manifest = self.manifest(file, &written)?;
        let child =
            ChildRequest { promise: promise.clone(), resource: api.plural.clone(), manifest };
        let identity = Identity::of(&child);
        let is_held = self.ground.held.iter().any(|held| Identity::of(held) == identity);
        Ok((!is_taken || is_held).then_some(child))
    }

    /// What the hub takes of a document.
    fn manifest(&self, file: &str, written: &Map<String, Value>) -> Result<Value, ChildError> {
        let metadata = written.get("metadata").cloned().unwrap_or_default();
        let kind = written.get("kind").and_then(Value::as_str).unwrap_or_default();
        let text =
            |key: &str| metadata.get(key).and_then(Value::as_str).filter(|it| !it.is_empty());
        let refused = |name: &str, cause: String| ChildError {
            file: file.to_owned(),
            title: format!("{kind} {name}").trim_end().to_owned(),
            cause,
        };
        let Some(name) = text("name") else {
            let cause = "metadata.name: Required value: what is put out again must be the same";
            return Err(refused("", cause.to_owned()));
        };
        let own = self.parent.namespace.as_deref();
        let namespace = text("namespace").or(own).unwrap_or(NAMESPACE_DEFAULT);
        if let Some(cause) = misplaced(self.parent, namespace) {
            return Err(refused(name, cause));
        }
        let mut manifest = written.clone();
        manifest.remove("status");
        let mut taken = Map::new();
        taken.insert("name".to_owned(), json!(name));
        taken.insert("namespace".to_owned(), json!(namespace));
        for key in ["labels", "annotations"] {
            if let Some(Value::Object(map)) = metadata.get(key) {
                taken.insert(key.to_owned(), json!(map));
            }
        }
        manifest.insert("metadata".to_owned(), Value::Object(taken));
        Ok(Value::Object(manifest))
    }

    fn add(&mut self, file: &str, child: ChildRequest) -> Result<(), ChildError> {
        let identity = Identity::of(&child);
        let refused = |cause: String| ChildError {
            file: file.to_owned(),
            title: format!("{} {}", identity.kind, identity.name),
            cause,
        };
        if self.children.iter().any(|held| Identity::of(held) == identity) {
            return Err(refused(
                "the pipeline puts it out twice: leave one of them out".to_owned(),
            ));
        }
        self.children.push(child);
        let bytes: usize = self.children.iter().map(|it| it.manifest.to_string().len()).sum();
        if self.children.len() > CHILDREN_MAX || bytes > CHILDREN_LEN_MAX {
            let cause = format!(
                "a pipeline may put out {CHILDREN_MAX} requests of {CHILDREN_LEN_MAX} bytes in all: \
                 spread them over several pipelines"
            );
            return Err(refused(cause));
        }
        Ok(())
    }
}

/// The documents of a YAML stream. A line that begins with `---` always begins one: no scalar may
/// hold such a line (YAML 1.2.2, §9.1.2).
fn documents(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let rest = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        match (rest, all.last_mut()) {
            (Some(rest), _) => all.push(rest.trim_start().to_owned()),
            (None, Some(last)) => last.push_str(line),
            (None, None) => {}
        }
    }
    all
}

fn is_blank(document: &str) -> bool {
    document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}
