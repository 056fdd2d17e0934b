//! Logs go to standard error, so that standard output stays for results.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt, util::TryInitError};

/// The variable that chooses what is logged: `info`, `debug`, `muster_gateway=trace,info` …
pub const FILTER_VARIABLE: &str = "MUSTER_LOG";

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not understood.
    #[error("{FILTER_VARIABLE}={given:?}: {cause}; write for example {FILTER_VARIABLE}=info")]
    Filter {
        /// The variable's value.
        given: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Logging was begun twice.
    #[error("cannot begin to log: {0}")]
    Begin(#[from] TryInitError),
}

/// Begins to log, once in a process. `default` is the filter where the variable is not set.
pub fn init(format: LogFormat, default: &str) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let given = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&given)
        .map_err(|error| LogError::Filter { given, cause: error.to_string() })?;
    let lines = fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => {
            lines.with_ansi(stderr().is_terminal()).with_target(false).finish().try_init()?;
        }
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
