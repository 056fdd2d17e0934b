//! The rules on Destinations; those on Promises are shown through the API (hub/control).

use super::*;

#[test]
fn a_destination_needs_an_agent_until_state_stores_are_served() {
    let mut destination = Destination::new("vm-1", muster_api::DestinationSpec::default());
    assert!(self::destination(&destination, true).is_ok());
    let alone = self::destination(&destination, false).unwrap_err();
    assert!(alone.message.contains("stateStoreRef field is required"), "{alone}");
    destination.spec.state_store_ref = Some(muster_api::destination::StateStoreRef::default());
    let stored = self::destination(&destination, true).unwrap_err();
    assert!(stored.message.contains("state stores are not served yet"), "{stored}");
}
