//! What the destinations of a group must be, and in words why one was chosen or not.

use std::{collections::BTreeMap, fmt};

use muster_api::{Work, WorkloadGroup, labels};
use muster_core::{Selector, Waiting};

use super::is_request;
use crate::site::{Site, Sites, is_true};

/// What the destinations of a group must be. Groups with the same wants have the same matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Their labels.
    pub selector: Selector,
    /// Whether it is a dry run: those have destinations of their own.
    pub dry_run: bool,
}

impl Wanted {
    /// What a group of a Work wants. A dry run's selectors are ignored, as in Kratix.
    pub fn of(work: &Work, group: &WorkloadGroup) -> Self {
        let dry_run = is_true(work.metadata.labels.as_ref(), labels::DRY_RUN);
        let own = || BTreeMap::from([(labels::DRY_RUN.to_owned(), "true".to_owned())]);
        let selector = if dry_run { Selector::labels(own()) } else { effective_selector(group) };
        Self { selector, dry_run }
    }

    /// Why a destination cannot hold the group.
    pub fn why_not(&self, site: &Site) -> Option<WhyNot> {
        if site.leaving {
            return Some(WhyNot::Leaving);
        }
        if site.dry_run && !self.dry_run {
            return Some(WhyNot::DryRun);
        }
        if self.selector.is_empty() && site.strict && !site.labels.is_empty() {
            return Some(WhyNot::Strict);
        }
        self.selector.mismatch(&site.labels).map(WhyNot::Mismatch)
    }

    /// Whether a destination can hold the group.
    pub fn fits(&self, site: Option<&Site>) -> bool {
        site.is_some_and(|site| self.why_not(site).is_none())
    }

    /// Why a group that nothing holds is nowhere.
    pub(crate) fn nowhere(&self, work: &Work, sites: &Sites) -> Waiting {
        let fit = || sites.values().filter(|site| self.fits(Some(site)));
        let open = |site: &Site| !(site.draining && is_request(work));
        let selector = self.selector.to_string();
        match (fit().any(open), fit().next()) {
            (true, _) => Waiting::NotYetPlaced,
            (false, Some(site)) => {
                Waiting::OnlyDraining { selector, destination: site.name.clone() }
            }
            (false, None) => Waiting::NoMatchingDestination { selector },
        }
    }
}

/// A group's selectors merged. On one key the Promise's wins over its pipelines', that over the
/// request's; within one source the first wins (as in Kratix). Expressions all hold.
pub(super) fn effective_selector(group: &WorkloadGroup) -> Selector {
    let rank = |source: Option<&str>| match source {
        Some("promise") => 0,
        Some("promise-workflow") => 1,
        _ => 2,
    };
    let mut selectors: Vec<_> = group.destination_selectors.iter().collect();
    selectors.sort_by_key(|selector| rank(selector.source.as_deref()));
    let mut merged = Selector::default();
    for selector in selectors.into_iter().map(Selector::from) {
        for (key, value) in selector.match_labels {
            merged.match_labels.entry(key).or_insert(value);
        }
        for expression in selector.match_expressions {
            if !merged.match_expressions.contains(&expression) {
                merged.match_expressions.push(expression);
            }
        }
    }
    merged
}

/// Placements, for people.
pub(crate) fn counted(n: usize) -> String {
    if n == 1 { "1 placement".to_owned() } else { format!("{n} placements") }
}

/// Why a destination was not chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// It is being removed.
    Leaving,
    /// Only dry runs go there.
    DryRun,
    /// A label does not fit; in words.
    Mismatch(String),
    /// The selector is empty, and the destination wants to be named by a label.
    Strict,
    /// A request goes to one destination, and another one holds it.
    Held {
        /// The other.
        by: String,
    },
    /// Requests' placements shall leave it.
    Draining,
    /// A request goes to one destination, and another one is connected.
    Offline,
    /// A request goes to one destination, and another one's state store takes files.
    NotReady,
    /// A request goes to one destination, and another one holds fewer placements.
    Busier {
        /// How many placements it holds.
        load: usize,
    },
    /// A request goes to one destination, and of equals the first by name was taken.
    LaterName,
    /// What was there is still being removed.
    Removing,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("it is being removed"),
            Self::DryRun => f.write_str("only dry runs go there (label kratix.io/dry-run)"),
            Self::Mismatch(words) => f.write_str(words),
            Self::Strict => f.write_str("no label asks for it, and it has strictMatchLabels"),
            Self::Held { by } => write!(f, "matches, but {by} holds it already, and it stays"),
            Self::Draining => f.write_str("matches, but it is being drained"),
            Self::Offline => f.write_str("matches, but its agent is not connected"),
            Self::NotReady => f.write_str("matches, but its state store is not ready"),
            Self::Busier { load } => write!(f, "matches, but holds more ({})", counted(*load)),
            Self::LaterName => f.write_str("matches, but one is enough, and names decide"),
            Self::Removing => f.write_str("what was there is still being removed"),
        }
    }
}

/// Why a destination was chosen for a request's group, at the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WhyHere {
    pub selector: String,
    /// How many others matched and could have been chosen.
    pub others: usize,
    pub decided: Decided,
    /// Whether nothing that matched was ready.
    pub unready: bool,
    /// Where it came from, if it was moved.
    pub from: Option<String>,
}

/// What decided between destinations that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decided {
    /// There was one.
    Only,
    /// One was ready.
    Ready,
    /// It held the fewest placements.
    Load(usize),
    /// Of those with the fewest it was the first by name.
    Name(usize),
}

impl fmt::Display for WhyHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = &self.from {
            write!(f, "moved from {from}: ")?;
        }
        let all = self.others + 1;
        let selector = &self.selector;
        match self.decided {
            Decided::Only => write!(f, "the only one to match {selector}"),
            Decided::Ready => write!(f, "of {all} that match {selector}, the only one ready"),
            Decided::Load(held) => {
                let held = counted(held);
                write!(f, "of {all} that match {selector}, the least loaded ({held})")
            }
            Decided::Name(held) => {
                let (which, held) = ("the first by name of the least loaded", counted(held));
                write!(f, "of {all} that match {selector}, {which} ({held})")
            }
        }?;
        if self.unready { f.write_str("; it was not ready, and no other one was") } else { Ok(()) }
    }
}
