//! What is a placement to its destination's agent? One order of its assignment.

use std::collections::BTreeMap;

use muster_api::{WorkPlacement, labels};
use muster_core::{
    DestinationName, Intent, Lane, Order, PlacementKey,
    assignment::{ORDERS_MAX, option},
};

/// The annotation of a Work or placement that names the request's kind, for messages.
pub const REQUEST_KIND: &str = "fleet.muster.dev/request-kind";

/// A placement, put as an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// To whom.
    pub destination: DestinationName,
    /// Which placement.
    pub placement: PlacementKey,
    /// What to do.
    pub order: Order,
}

/// Why a placement cannot be given to an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// A field does not hold what it must.
    #[error("WorkPlacement {placement}: {field}: {cause}")]
    Field {
        /// The placement.
        placement: String,
        /// The field.
        field: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// The destination has as many as an assignment holds.
    #[error(
        "destination {0} has {ORDERS_MAX} placements, the most of one assignment: \
         give some of its requests another destination by label"
    )]
    Full(DestinationName),
}

/// The order that a placement is. Deleted means: remove, then say so.
pub fn assign(placement: &WorkPlacement) -> Result<Assigned, AssignError> {
    let meta = &placement.metadata;
    let spec = &placement.spec;
    let name = meta.name.as_deref().unwrap_or_default();
    let refuse =
        |field, cause: String| AssignError::Field { placement: name.to_owned(), field, cause };
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let key = PlacementKey::new(namespace, name)
        .map_err(|error| refuse("metadata.name", error.to_string()))?;
    let destination = DestinationName::parse(&spec.target_destination_name)
        .map_err(|error| refuse("spec.targetDestinationName", error.to_string()))?;
    let digest = spec.digest.parse();
    let digest = digest.map_err(|error| refuse("spec.digest", format!("{error}")))?;
    let lane = if spec.resource_name.is_some() { Lane::App } else { Lane::Platform };
    let gone = meta.deletion_timestamp.is_some();
    let intent = if gone { Intent::Absent } else { Intent::Present };
    let order = Order { lane, digest, intent, options: options(placement) };
    Ok(Assigned { destination, placement: key, order })
}

fn options(placement: &WorkPlacement) -> BTreeMap<String, String> {
    let spec = &placement.spec;
    let labels = placement.metadata.labels.as_ref();
    let annotations = placement.metadata.annotations.as_ref();
    let pipeline = labels.and_then(|all| all.get(labels::PIPELINE_NAME));
    let pipeline = pipeline.filter(|name| !name.is_empty());
    let kind = annotations.and_then(|all| all.get(REQUEST_KIND));
    let given = [
        (option::PROMISE, Some(&spec.promise_name).filter(|name| !name.is_empty())),
        (option::RESOURCE, spec.resource_name.as_ref()),
        (option::NAMESPACE, spec.resource_namespace.as_ref()),
        (option::PIPELINE, pipeline),
        (option::KIND, kind),
    ];
    let given = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.clone())));
    given.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use muster_api::WorkPlacementSpec;
    use muster_core::Digest;

    fn placement() -> WorkPlacement {
        let mut placement = WorkPlacement::new(
            "web-main-abcde.vm-1-5058f",
            WorkPlacementSpec {
                target_destination_name: "vm-1".into(),
                digest: Digest::of(b"files").to_string(),
                promise_name: "web".into(),
                ..Default::default()
            },
        );
        placement.metadata.namespace = Some("default".into());
        placement
    }

    #[test]
    fn dependencies_and_requests_stand_in_separate_lanes() {
        let mut placement = placement();
        assert_eq!(assign(&placement).unwrap().order.lane, Lane::Platform);
        placement.spec.resource_name = Some("shop".into());
        placement.spec.resource_namespace = Some("team".into());
        let order = assign(&placement).unwrap().order;
        assert_eq!(order.lane, Lane::App);
        assert_eq!(order.options[option::RESOURCE], "shop");
        assert_eq!(order.options[option::NAMESPACE], "team");
        assert_eq!(order.options[option::PROMISE], "web");
    }

    #[test]
    fn a_deleted_placement_is_an_order_to_remove() {
        let mut placement = placement();
        assert_eq!(assign(&placement).unwrap().order.intent, Intent::Present);
        placement.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(assign(&placement).unwrap().order.intent, Intent::Absent);
    }

    #[test]
    fn a_placement_without_a_digest_is_refused_by_field() {
        let mut placement = placement();
        placement.spec.digest = "latest".into();
        let error = assign(&placement).unwrap_err().to_string();
        assert!(error.contains("spec.digest") && error.contains("web-main-abcde"), "{error}");
    }
}
