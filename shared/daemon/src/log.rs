//! Logs go to standard error, so that standard output stays for results. What is logged, and in which
//! form, can be changed while the process runs.

use std::{
    io::{IsTerminal, stderr},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::dynamic_filter_fn,
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

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

/// Whether each line is a JSON object. Both forms are always there and know of every span, because
/// each writes only of spans whose beginning it saw; this says which of them writes.
static STRUCTURED: AtomicBool = AtomicBool::new(false);
/// The one log of this process.
static LOG: OnceLock<Mutex<Log>> = OnceLock::new();

struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    /// As it was begun, and as it is now.
    begun: Form,
    now: Form,
    /// Whether the variable chose the filter: whoever runs the process has the last word.
    chosen: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    format: LogFormat,
    filter: String,
}

/// Begins to log, once in a process. `default` is the filter where the variable is not set.
pub fn init(format: LogFormat, default: &str) -> Result<(), LogError> {
    let variable = std::env::var(FILTER_VARIABLE).ok();
    let (chosen, given) = (variable.is_some(), variable.unwrap_or_else(|| default.to_owned()));
    let filter = EnvFilter::try_new(&given)
        .map_err(|error| LogError::Filter { given: given.clone(), cause: error.to_string() })?;
    let (filter, handle) = reload::Layer::new(filter);
    let text = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let text = text.with_target(false).with_filter(dynamic_filter_fn(|meta, _| {
        meta.is_span() || !STRUCTURED.load(Ordering::Relaxed)
    }));
    let json = fmt::layer().with_writer(stderr).json().flatten_event(true);
    let json = json.with_filter(dynamic_filter_fn(|meta, _| {
        meta.is_span() || STRUCTURED.load(Ordering::Relaxed)
    }));
    STRUCTURED.store(format == LogFormat::Json, Ordering::Relaxed);
    tracing_subscriber::registry().with(filter).with(text).with(json).try_init()?;
    let begun = Form { format, filter: given };
    let log = Log { filter: handle, now: begun.clone(), begun, chosen };
    // Only the first succeeds in beginning, and so gets here.
    let _first = LOG.set(Mutex::new(log)).is_ok();
    Ok(())
}

/// From now on logs in this form and from this level on; as it was begun where none is said. A filter
/// from [`FILTER_VARIABLE`] stays. Says whether anything changed; in a process that does not log,
/// nothing does.
pub fn change(format: Option<LogFormat>, level: Option<&str>) -> bool {
    let Some(log) = LOG.get() else { return false };
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let filter = match level {
        Some(level) if !log.chosen => of_level(level),
        _ => log.begun.filter.clone(),
    };
    let wanted = Form { format: format.unwrap_or(log.begun.format), filter };
    if wanted == log.now {
        return false;
    }
    let Ok(filter) = EnvFilter::try_new(&wanted.filter) else { return false };
    if log.filter.reload(filter).is_err() {
        return false;
    }
    STRUCTURED.store(wanted.format == LogFormat::Json, Ordering::Relaxed);
    log.now = wanted;
    true
}

/// This level for our own parts; of libraries no more than what needs a look.
fn of_level(level: &str) -> String {
    match level {
        "warn" | "error" => level.to_owned(),
        level => format!("warn,muster={level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_changes_within_a_span() {
        assert!(!change(Some(LogFormat::Json), None), "nothing is logged yet");
        init(LogFormat::Text, "info").unwrap();
        let span = tracing::info_span!("task", name = "one");
        let _inside = span.enter();
        tracing::info!("as text");
        assert!(change(Some(LogFormat::Json), Some("debug")));
        tracing::info!("as an object");
        assert!(!change(Some(LogFormat::Json), Some("debug")), "it is so already");
        assert!(change(None, None));
        tracing::info!("as text again");
    }
}
