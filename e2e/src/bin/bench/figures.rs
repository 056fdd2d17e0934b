//! Figures, and the table of them.

use std::{fmt, time::Duration};

/// The figures so far, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

/// What the numbers of a figure are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    Seconds,
    /// Millions of bytes.
    Mb,
    /// Thousands of bytes.
    Kb,
    /// Percent of one core.
    Percent,
    /// How many.
    Count,
    /// How many for each.
    Each,
    /// How many in a second.
    PerSecond,
}

/// One figure, measured several times.
#[derive(Debug)]
struct Figure {
    what: String,
    unit: Unit,
    /// Sorted.
    runs: Vec<f64>,
    goal: &'static str,
}

impl Figures {
    /// Adds a figure; `goal` is what later work shall reach, or empty. It is told at once, because
    /// the whole takes minutes.
    pub(crate) fn add(&mut self, what: &str, unit: Unit, mut runs: Vec<f64>, goal: &'static str) {
        runs.sort_by(f64::total_cmp);
        let figure = Figure { what: what.to_owned(), unit, runs, goal };
        eprintln!("{what}: {}", figure.shown(figure.median()));
        self.0.push(figure);
    }

    /// Adds a figure of durations, in the unit given.
    pub(crate) fn add_times(
        &mut self,
        what: &str,
        unit: Unit,
        runs: &[Duration],
        goal: &'static str,
    ) {
        let scale = if matches!(unit, Unit::Ms) { 1000.0 } else { 1.0 };
        self.add(what, unit, runs.iter().map(|run| run.as_secs_f64() * scale).collect(), goal);
    }
}

impl Figure {
    fn median(&self) -> f64 {
        let n = self.runs.len();
        match n {
            0 => f64::NAN,
            _ if n % 2 == 1 => self.runs[n / 2],
            _ => f64::midpoint(self.runs[n / 2 - 1], self.runs[n / 2]),
        }
    }

    fn shown(&self, number: f64) -> String {
        match self.unit {
            Unit::Ms => format!("{number:.1} ms"),
            Unit::Seconds => format!("{number:.2} s"),
            Unit::Mb => format!("{number:.1} MB"),
            Unit::Kb => format!("{number:.1} kB"),
            Unit::Percent => format!("{number:.2} %"),
            Unit::Count => format!("{number:.0}"),
            Unit::Each => format!("{number:.2}"),
            Unit::PerSecond => format!("{number:.1} /s"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = crate::machine::profile();
        let width = self.0.iter().map(|figure| figure.what.len()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>10}  {:>10}  {:>10}  {:>4}  {:>6}  PROFILE",
            "FIGURE", "MEDIAN", "MIN", "MAX", "RUNS", "GOAL"
        )?;
        for figure in &self.0 {
            let at = |index: Option<&f64>| index.map_or("-".to_owned(), |run| figure.shown(*run));
            writeln!(
                f,
                "{:width$}  {:>10}  {:>10}  {:>10}  {:>4}  {:>6}  {profile}",
                figure.what,
                figure.shown(figure.median()),
                at(figure.runs.first()),
                at(figure.runs.last()),
                figure.runs.len(),
                figure.goal,
            )?;
        }
        Ok(())
    }
}
