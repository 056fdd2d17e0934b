//! Real programs of others, as `tests/real/parts.sh` finds or builds them.

use std::{env, path::PathBuf};

/// What a variable of `parts.sh` names. Where it is not set, a test says so and ends, except in CI,
/// which skips nothing.
pub(crate) fn part(variable: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "{variable} is not set, and CI skips nothing");
        eprintln!("SKIPPED: {variable} is not set: eval \"$(tests/real/parts.sh)\" says why");
    }
    found
}
