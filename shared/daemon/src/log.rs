//! Logs go to standard error, so that standard output stays for results. What is logged, and in which
//! form, can be changed while the process runs.

use std::{
    io::{IsTerminal, stderr},
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt,
    layer::{Layered, SubscriberExt},
    reload,
    util::{SubscriberInitExt, TryInitError},
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

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// The one log of this process.
static LOG: OnceLock<Mutex<Log>> = OnceLock::new();

struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
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
    let (filter, filter_handle) = reload::Layer::new(filter);
    let (lines, lines_handle) = reload::Layer::new(lines(format));
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    let begun = Form { format, filter: given };
    let log = Log { filter: filter_handle, lines: lines_handle, now: begun.clone(), begun, chosen };
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
    let changed = log.filter.reload(filter).is_ok()
        && (wanted.format == log.now.format || log.lines.reload(lines(wanted.format)).is_ok());
    if changed {
        log.now = wanted;
    }
    changed
}

/// This level for our own parts; of libraries no more than what needs a look.
fn of_level(level: &str) -> String {
    match level {
        "warn" | "error" => level.to_owned(),
        level => format!("warn,muster={level}"),
    }
}

fn lines(format: LogFormat) -> Lines {
    let lines = fmt::layer().with_writer(stderr);
    match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}
