//! The fuzzer's program: all parsers of the API server in one binary, so that it is linked once.
//! The environment says which of them runs; `run.sh` builds and starts it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster_apiserver::fuzz::{TARGETS, Target};

/// Names the target.
const TARGET: &str = "MUSTER_FUZZ_TARGET";

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var(TARGET).unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    *TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("{TARGET} must be one of {}", names.join(", ")))
});

fuzz_target!(|input: &[u8]| (CHOSEN.run)(input));
