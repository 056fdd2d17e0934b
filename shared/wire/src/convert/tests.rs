//! What crosses the door unchanged, and what is refused at it.

use prost::Message;

use super::*;

fn report() -> PlacementReport {
    PlacementReport {
        placement: PlacementKey::new("default", "web-1").unwrap(),
        revision: Revision { epoch: 3, n: 7 },
        desired: Digest::of(b"new"),
        applied: Some(Digest::of(b"old")),
        phase: Phase::Failed,
        reason: "ApplyFailed".to_owned(),
        message: "Deployment web: spec.replicas is not a number".to_owned(),
        health: Health::Degraded,
        health_message: "0 of 1 ready".to_owned(),
        outputs: BTreeMap::from([("url".to_owned(), serde_json::json!({"port": 80}))]),
        unapplied_files: vec!["notes.txt".to_owned()],
    }
}

#[test]
fn a_report_crosses_unchanged() {
    let message = to_report(&report());
    let read = v1::PlacementReport::decode(&*message.encode_to_vec()).unwrap();
    assert_eq!(from_report(read), Ok(report()));
}

#[test]
fn every_phase_and_health_crosses_unchanged() {
    use Phase::{Applied, Applying, Failed, Pending, Refused, Removed, Removing};
    for phase in [Pending, Applying, Applied, Failed, Refused, Removing, Removed] {
        assert_eq!(from_phase(to_phase(phase)), Ok(phase));
    }
    for health in [Health::Healthy, Health::Unknown, Health::Progressing, Health::Degraded] {
        assert_eq!(from_health(to_health(health)), health);
    }
}

#[test]
fn the_encoding_of_a_report_is_the_committed_one() {
    let mut small = report();
    small.outputs.clear();
    small.unapplied_files.clear();
    (small.message, small.health_message) = ("m".to_owned(), String::new());
    let vector = "0a0d64656661756c742f7765622d31120408031007\
                  1a2011507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437\
                  2220cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4\
                  2804320b4170706c794661696c65643a016d4004";
    assert_eq!(hex::encode(to_report(&small).encode_to_vec()), vector);
}

#[test]
fn what_breaks_a_rule_is_refused_by_field() {
    let refused = |change: fn(&mut v1::PlacementReport)| {
        let mut message = to_report(&report());
        change(&mut message);
        from_report(message).unwrap_err().field
    };
    assert_eq!(refused(|m| m.placement = "web".to_owned()), "placement");
    assert_eq!(refused(|m| m.placement = "../a/b".to_owned()), "placement");
    assert_eq!(refused(|m| m.desired.clear()), "desired");
    assert_eq!(refused(|m| m.applied.truncate(31)), "applied");
    assert_eq!(refused(|m| m.phase = 99), "phase");
    assert_eq!(refused(|m| m.message = "x".repeat(MESSAGE_LEN_MAX + 1)), "message");
    assert_eq!(refused(|m| m.outputs = b"[]".to_vec()), "outputs");
    assert_eq!(refused(|m| m.outputs = vec![b' '; OUTPUTS_LEN_MAX + 1]), "outputs");
    assert_eq!(refused(|m| m.unapplied_files = vec![String::new(); 21]), "unapplied_files");
}

#[test]
fn a_verdict_of_a_newer_agent_is_unknown() {
    let mut message = to_report(&report());
    message.health = 99;
    assert_eq!(from_report(message).unwrap().health, Health::Unknown);
}

#[test]
fn a_message_of_a_newer_peer_is_read_as_none() {
    // Field 15, length-delimited: an arm of the oneof that does not exist yet.
    let newer = [0x7a, 0x02, 0x08, 0x01];
    assert_eq!(v1::FromHub::decode(&newer[..]).unwrap().message, None);
    assert_eq!(v1::FromAgent::decode(&newer[..]).unwrap().message, None);
}

#[test]
fn the_largest_report_fits_a_message() {
    let mut large = report();
    large.message = "x".repeat(MESSAGE_LEN_MAX);
    large.health_message = "x".repeat(MESSAGE_LEN_MAX);
    large.outputs =
        BTreeMap::from([("o".to_owned(), serde_json::json!("x".repeat(OUTPUTS_LEN_MAX - 8)))]);
    large.unapplied_files = vec!["x".repeat(PATH_LEN_MAX); UNAPPLIED_FILES_MAX];
    let message = to_report(&large);
    let size = message.encoded_len();
    assert!(size + crate::limits::REPORTS_BYTES_TARGET < crate::limits::FROM_AGENT_MESSAGE_MAX);
    from_report(message).unwrap();
}
