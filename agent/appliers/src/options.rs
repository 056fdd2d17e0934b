//! What programs are told about the placement that they serve.

use std::collections::BTreeMap;

use muster_core::{PlacementKey, assignment::option};

/// The `MUSTER_*` variables of a placement; absent options give no variable.
pub(crate) fn environment(
    key: &PlacementKey,
    destination: &str,
    options: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let named = [
        ("MUSTER_PROMISE", option::PROMISE),
        ("MUSTER_RESOURCE", option::RESOURCE),
        ("MUSTER_NAMESPACE", option::NAMESPACE),
        ("MUSTER_PIPELINE", option::PIPELINE),
        ("MUSTER_KIND", option::KIND),
    ];
    let known = named
        .into_iter()
        .filter_map(|(variable, option)| Some((variable.to_owned(), options.get(option)?.clone())));
    let own = [("MUSTER_PLACEMENT", key.to_string()), ("MUSTER_DESTINATION", destination.into())];
    own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(known).collect()
}
