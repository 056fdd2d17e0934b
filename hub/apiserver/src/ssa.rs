//! Server-side apply: who owns which field.
//!
//! Follows structured-merge-diff. An applier owns what it states and loses what it no longer
//! states, which is then removed unless someone else owns it; an update owns what it changed.
//! Apply fails where it would change a field of another manager, unless forced.

mod client_side;
mod managers;
mod set;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::schema::{Node, Schema};
use managers::{Manager, Managers, Operation, Owned};
use set::Set;

/// Who is said to own the fields of an object that was never tracked, once someone applies.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    /// Field manager.
    pub(crate) manager: &'a str,
    /// `v1` or `group/v1`, of the object as it is written.
    pub(crate) api_version: &'a str,
    /// Empty, or such as `status`.
    pub(crate) subresource: &'a str,
    /// RFC 3339, in seconds and UTC.
    pub(crate) now: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// `conflict with "m1"`, as a cause says it.
    pub(crate) message: String,
    /// `.spec.a`.
    pub(crate) field: String,
}

/// Why an apply was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Others own fields; `force` would take them: 409.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration is not of the schema, or leaves open what it means, such as an item
    /// without its key. A real server calls that its own failure: 500.
    #[error("{0}")]
    Invalid(String),
}

/// Checks a configuration before anything else is done with it.
pub(crate) fn check(schema: &Schema, applied: &Value) -> Result<(), ApplyError> {
    let typed = typed::check(schema.root(), applied);
    typed.and_then(|()| walk::check(Some(schema.root()), applied, "")).map_err(ApplyError::Invalid)
}

/// Merges the configuration `applied` into `live` and records ownership. With `live` absent the
/// object is made. The caller removes from `applied` what this endpoint does not write (`status`
/// of the main endpoint, all but `status` of that subresource).
pub(crate) fn apply(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    check(schema, applied)?;
    let merged = match merge(schema, live, applied, writer, force) {
        Err(ApplyError::Conflicts(mut conflicts)) => {
            let live = live.unwrap_or(&Value::Null);
            let own = client_side::unchanged_fields(Some(schema.root()), live, writer.manager);
            conflicts.retain(|conflict| !own.contains(&conflict.field));
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
            merge(schema, Some(live), applied, writer, true)
        }
        merged => merged,
    };
    let mut new = merged?;
    client_side::keep_annotation(&mut new, applied, writer.manager);
    Ok(new)
}

fn merge(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let node = Some(schema.root());
    let mut config = applied.clone();
    managers::clear(&mut config);
    let before = live.map(managers::read).unwrap_or_default();
    let mut old = live.cloned().unwrap_or_else(|| json!({}));
    managers::clear(&mut old);

    let mut owners = before.clone();
    if owners.is_empty() && live.is_some() {
        let (manager, owned) = never_tracked(node, &old, writer);
        owners.insert(manager, owned);
    }
    let me = Manager::of(writer, Operation::Apply);
    let last = owners.remove(&me).map(|owned| owned.set);
    let mine = Owned {
        // With the name: what is stated keeps `metadata` from going with the last label.
        set: walk::fields(node, &config),
        api_version: writer.api_version.to_owned(),
        time: Some(writer.now.to_owned()),
    };
    owners.insert(me.clone(), mine);

    let merged = walk::merge(node, Some(&old), &config);
    let mut new = match last {
        Some(last) if !last.is_empty() => dropped(node, merged, &last, &owners),
        _ => merged,
    };
    let difference = walk::compare(node, Some(&old), Some(&new));
    take_over(&mut owners, &difference, &me, force).map_err(ApplyError::Conflicts)?;
    if let Some(mine) = owners.get_mut(&me) {
        mine.set = managers::without_identity(std::mem::take(&mut mine.set));
    }
    owners.retain(|_, owned| !owned.set.is_empty());
    keep_times(&mut owners, &before, new == old);
    managers::write(&mut new, &owners);
    Ok(new)
}

/// Records in `new` what this write (create, update or a patch other than apply) changed
/// against `old`. `managedFields` given in `new` replace the recorded ones; `[{}]` forgets them.
pub(crate) fn track_update(
    schema: &Schema,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    let node = Some(schema.root());
    let live = old.map(managers::read).unwrap_or_default();
    let is_reset = writer.subresource.is_empty() && managers::is_reset(new);
    let given = match writer.subresource {
        "" => managers::read(new),
        // A subresource does not write metadata.
        _ => Managers::new(),
    };
    managers::clear(new);
    if is_reset && old.is_some() {
        return;
    }
    let before = if given.is_empty() { live } else { given };
    if before.is_empty() && old.is_some() {
        // Never tracked, or forgotten: tracking begins with the first apply.
        return;
    }
    let mut past = old.cloned().unwrap_or_else(|| json!({}));
    managers::clear(&mut past);
    let difference = walk::compare(node, Some(&past), Some(new));
    let me = Manager::of(writer, Operation::Update);
    let mut owners = before.clone();
    // Forced, so that it cannot fail: an update takes what it changes.
    let _ = take_over(&mut owners, &difference, &me, true);
    let was = owners.get(&me).map(|owned| owned.set.clone()).unwrap_or_default();
    let set = was.difference(&difference.removed).union(&difference.changed);
    let mine = Owned {
        set: managers::without_identity(set),
        api_version: writer.api_version.to_owned(),
        time: Some(writer.now.to_owned()),
    };
    owners.insert(me, mine);
    owners.retain(|_, owned| !owned.set.is_empty());
    keep_times(&mut owners, &before, false);
    managers::cap(&mut owners);
    managers::write(new, &owners);
}

/// The message of a whole conflict, as kubectl shows it.
fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", one.message, one.field);
    }
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.message).or_default().push(&conflict.field);
    }
    let mut lines = Vec::new();
    for (message, fields) in by_manager {
        lines.push(format!("{}:", message.replacen("conflict", "conflicts", 1)));
        lines.extend(fields.iter().map(|field| format!("- {field}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

fn never_tracked(node: Option<&Node>, old: &Value, writer: &Writer<'_>) -> (Manager, Owned) {
    let before = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
    let set = managers::without_identity(walk::compare(node, Some(&json!({})), Some(old)).changed);
    let owned = Owned {
        set,
        api_version: writer.api_version.to_owned(),
        time: Some(writer.now.to_owned()),
    };
    (Manager::of(&before, Operation::Update), owned)
}

/// Removes from `merged` what the applier stated last time and does not any more, unless
/// someone owns it.
fn dropped(node: Option<&Node>, merged: Value, last: &Set, owners: &Managers) -> Value {
    let named = |set: &Set| set.with_named_fields(node);
    let last = named(last);
    let without = |set: &Set| walk::remove(node, &merged, set);
    let all = named(&walk::fields(node, &merged));
    let owned = owners.values().fold(Set::default(), |all, owned| all.union(&owned.set));
    // What goes with the removed fields, such as the rest of a list item, stays if it is owned
    // by anyone or was never the applier's.
    let left = named(&walk::fields(node, &without(&last)));
    let kept = without(&all.difference(&left.union(&named(&owned))));
    let left = named(&walk::fields(node, &kept));
    without(&all.difference(&left).intersection(&last))
}

/// Takes the changed fields from all others; without `force` it is a conflict to change a field
/// of another.
fn take_over(
    owners: &mut Managers,
    difference: &walk::Difference,
    me: &Manager,
    force: bool,
) -> Result<(), Vec<Conflict>> {
    let disputed: Vec<(&Manager, &Owned, Set)> = owners
        .iter()
        .filter(|(manager, _)| *manager != me)
        .map(|(manager, owned)| (manager, owned, owned.set.intersection(&difference.changed)))
        .filter(|(_, _, set)| !set.is_empty())
        .collect();
    if !force && !disputed.is_empty() {
        return Err(managers::conflicts(&disputed));
    }
    for (_, owned) in owners.iter_mut().filter(|(manager, _)| *manager != me) {
        owned.set = owned.set.difference(&difference.changed).difference(&difference.removed);
    }
    Ok(())
}

/// A manager whose set did not change keeps its time; an apply that changes something else is
/// still the latest act of its manager.
fn keep_times(owners: &mut Managers, before: &Managers, unchanged: bool) {
    let same_sets = owners.len() == before.len()
        && owners.iter().all(|(manager, owned)| {
            before
                .get(manager)
                .is_some_and(|b| b.set == owned.set && b.api_version == owned.api_version)
        });
    for (manager, owned) in owners.iter_mut() {
        let Some(was) = before.get(manager) else { continue };
        let keep = match manager.operation {
            Operation::Apply => unchanged && same_sets,
            Operation::Update => was.set == owned.set && was.api_version == owned.api_version,
        };
        if keep {
            owned.time.clone_from(&was.time);
        }
    }
}
