//! The table that is printed: a row for each figure, a column for each server.

use std::{fmt::Write as _, fs, time::Duration};

use crate::load::Times;

/// One figure of one server.
pub(crate) struct Figure {
    what: String,
    value: f64,
    shown: String,
    more_is_better: bool,
}

/// The figures of one server.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) figures: Vec<Figure>,
}

impl Figure {
    pub(crate) fn time(what: &str, time: Duration) -> Figure {
        let shown = milliseconds(time);
        Figure { what: what.to_owned(), value: time.as_secs_f64(), shown, more_is_better: false }
    }

    pub(crate) fn memory(what: &str, bytes: u64) -> Figure {
        let shown = format!("{:.1} MB", bytes as f64 / 1e6);
        Figure { what: what.to_owned(), value: bytes as f64, shown, more_is_better: false }
    }

    pub(crate) fn rate(what: &str, times: &Times) -> Figure {
        let value = times.per_second();
        let shown = format!("{value:.0}/s ({})", quantiles(times));
        Figure { what: what.to_owned(), value, shown, more_is_better: true }
    }

    /// Of changes that so many watchers were told.
    pub(crate) fn events(what: &str, watchers: usize, times: &Times) -> Figure {
        let value = times.per_second() * watchers as f64;
        let shown = format!("{value:.0}/s ({})", quantiles(times));
        Figure { what: what.to_owned(), value, shown, more_is_better: true }
    }
}

fn quantiles(times: &Times) -> String {
    let [p50, p99] = [0.5, 0.99].map(|part| milliseconds(times.quantile(part)));
    format!("p50 {p50}, p99 {p99}")
}

fn milliseconds(time: Duration) -> String {
    let value = time.as_secs_f64() * 1e3;
    match value {
        100.0.. => format!("{value:.0} ms"),
        10.0.. => format!("{value:.1} ms"),
        _ => format!("{value:.2} ms"),
    }
}

/// The first column's figures in order, the others' beside them; the ratio is the second's
/// disadvantage.
pub(crate) fn render(columns: &[Column]) -> String {
    let Some((first, others)) = columns.split_first() else { return String::new() };
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut text = format!("profile {profile}; {}\n", machine());
    let mut row = |cells: &[&str]| {
        let (what, shown) = cells.split_first().unwrap_or((&"", &[]));
        let shown: String = shown.iter().map(|cell| format!("{cell:<42}")).collect();
        let _ = writeln!(text, "{what:<34}{}", shown.trim_end());
    };
    let names = columns.iter().map(|column| column.name);
    row(&[""].into_iter().chain(names).chain(["ratio"]).collect::<Vec<_>>());
    for (at, figure) in first.figures.iter().enumerate() {
        let mut cells = vec![figure.what.clone(), figure.shown.clone()];
        let mut ratio = String::new();
        for (index, other) in others.iter().enumerate() {
            // The same phases ran, in the same order; only a label may tell other bytes. The hub
            // runs the first of them only.
            let Some(other) = other.figures.get(at) else {
                cells.push(String::new());
                continue;
            };
            cells.push(other.shown.clone());
            if index == 0 {
                let times = match figure.more_is_better {
                    true => figure.value / other.value,
                    false => other.value / figure.value,
                };
                ratio = format!("{times:.1}x");
            }
        }
        cells.push(ratio);
        row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{cores} cores, {}; load {load}", model.map_or("unknown", |(_, name)| name))
}
