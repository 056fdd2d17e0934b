//! Runs real containers with each executor that this machine has, and tries to break out of them.
//!
//! As root, every test of the process executor runs a second time as an ordinary user.

#[path = "executors/cases.rs"]
mod cases;
#[path = "executors/engine.rs"]
mod engine;
#[path = "executors/rig.rs"]
mod rig;

use std::{os::unix::process::CommandExt, process::ExitCode};

/// An ordinary user that owns nothing.
const ORDINARY_USER: u32 = 54_321;
const MADE_UP: &str = "MUSTER_TEST_MADE_UP_USER";

fn main() -> ExitCode {
    if let Some(code) = muster_runner::sandbox_entry() {
        return code;
    }
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let as_user = !rustix::process::geteuid().is_root();
    let mut failed = runtime.block_on(cases::run(&filter));
    // An ordinary user made up by this test has no subordinate users for podman.
    if std::env::var_os(MADE_UP).is_none() {
        failed += runtime.block_on(engine::run(&filter));
    }
    if as_user {
        return ExitCode::from(u8::from(failed > 0));
    }
    println!("as an ordinary user:");
    let dir = tempfile::tempdir().unwrap();
    let exe = rig::shared_copy_of_self(dir.path());
    let status = std::process::Command::new(exe)
        .args(std::env::args().skip(1))
        .uid(ORDINARY_USER)
        .gid(ORDINARY_USER)
        .env("HOME", "/nonexistent")
        .env(MADE_UP, "1")
        .current_dir("/")
        .status()
        .unwrap();
    ExitCode::from(u8::from(failed > 0 || !status.success()))
}
