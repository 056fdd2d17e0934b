//! How a process ends, in the words of `sysexits.h` where it has one.

use std::process::ExitCode;

/// It did what was asked.
pub const OK: u8 = 0;
/// It failed; the last line on standard error says why.
pub const FAILED: u8 = 1;
/// The command line cannot be understood (EX_USAGE); asking again in the same way is useless.
pub const USAGE: u8 = 64;
/// Another process holds what it needs: a data directory, a port (EX_TEMPFAIL).
pub const IN_USE: u8 = 75;
/// The other side refused for good (EX_NOPERM): a service manager should not restart at once.
pub const REFUSED: u8 = 77;

/// Prints an error with its causes on one line and gives the code to end with.
pub fn report(program: &str, error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("{program}: {error:#}");
    ExitCode::from(code)
}
