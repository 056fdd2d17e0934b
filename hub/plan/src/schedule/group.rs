//! One group's placing: what is kept, what is given up, what is new.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{Work, WorkPlacement, WorkloadGroup};
use muster_core::Waiting;

use super::{
    GroupSchedule, Schedule, Update, WhyNot, asks_to_move, holds, is_misplaced, is_request,
    leaving, name_of,
    placement::{self, same_files, spec_of},
    wanted::{Decided, Wanted, WhyHere},
};
use crate::site::{Link, Site, Sites};

/// One group's placing.
pub(super) struct Placing<'a, 'p> {
    pub work: &'a Work,
    pub group: &'a WorkloadGroup,
    pub sites: &'a Sites,
    pub own: Vec<&'a WorkPlacement>,
    pub plan: &'p mut Schedule,
}

/// A destination to be taken, and why, where there was a choice.
type Fresh<'a> = (&'a Site, Option<String>);

impl<'a> Placing<'a, '_> {
    /// Plans the group; returns the destinations of what is created.
    pub(super) fn place(&mut self, load: &dyn Fn(&str) -> usize) -> Vec<&'a str> {
        let wanted = Wanted::of(self.work, self.group);
        let mut outcome = GroupSchedule {
            id: self.group.id.clone(),
            directory: self.group.directory.clone(),
            chosen: BTreeSet::new(),
            misplaced: BTreeSet::new(),
            moving: BTreeSet::new(),
            passed_over: BTreeMap::new(),
            waiting: None,
            selector: wanted.selector.clone(),
        };
        let mut fit = Vec::new();
        for site in self.sites.values() {
            match wanted.why_not(site) {
                None => fit.push(site),
                Some(why) => drop(outcome.passed_over.insert(site.name.clone(), why)),
            }
        }
        self.keep(&fit, &mut outcome);
        let fresh = if is_request(self.work) {
            self.one(fit, load, &mut outcome).into_iter().collect()
        } else {
            self.all(fit, &mut outcome)
        };
        for (site, why) in &fresh {
            outcome.chosen.insert(site.name.clone());
            let made = placement::new(self.work, self.group, site, why.clone());
            self.plan.create.push(made);
        }
        if outcome.chosen.is_empty() && outcome.waiting.is_none() {
            outcome.waiting = Some(wanted.nowhere(self.work, self.sites));
        }
        self.plan.groups.push(outcome);
        fresh.iter().map(|(site, _)| site.name.as_str()).collect()
    }

    /// Keeps what is placed already: up to date, and marked where its labels no longer match.
    fn keep(&mut self, fit: &[&Site], outcome: &mut GroupSchedule) {
        self.own.sort_by_key(|placement| &placement.metadata.name);
        let given_up = self.given_up(fit);
        for placement in self.own.iter().filter(|p| !leaving(p)) {
            let name = name_of(placement);
            if given_up.contains(&name) {
                self.plan.delete.push(name);
                continue;
            }
            let target = &placement.spec.target_destination_name;
            let misplaced = !is_among(fit, target);
            let mut spec = spec_of(self.work, self.group, target);
            if same_files(&spec, &placement.spec) {
                spec.generation = placement.spec.generation;
            }
            if spec != placement.spec || misplaced != is_misplaced(placement) {
                let marks = misplaced && !is_misplaced(placement);
                self.plan.update.push(Update { name, spec, misplaced, marks });
            }
            outcome.passed_over.remove(target);
            outcome.chosen.insert(target.clone());
            if misplaced {
                outcome.misplaced.insert(target.clone());
            }
            if self.moves(placement, fit) {
                outcome.moving.insert(target.clone());
            }
        }
    }

    /// Names of placements to delete: those whose destination is gone, those that a request has
    /// beside the one that stays, and those that shall move once what takes their place holds it.
    fn given_up(&self, fit: &[&Site]) -> BTreeSet<String> {
        let live = self.own.iter().copied().filter(|p| !leaving(p));
        let (known, lost): (Vec<_>, Vec<_>) =
            live.partition(|p| self.sites.contains_key(&p.spec.target_destination_name));
        let (movers, mut stay): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|p| self.moves(p, fit));
        let holds = |p: &WorkPlacement| p.spec.digest == self.group.digest && holds(p);
        let mut given_up = lost;
        if is_request(self.work) {
            // Who holds the files stays, then who is older: a move that was called back ends where
            // it began.
            stay.sort_by_key(|p| {
                let created = p.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (!holds(p), created.is_none(), created)
            });
            if stay.first().is_some_and(|p| holds(p)) {
                given_up.extend(movers);
            }
            given_up.extend(stay.into_iter().skip(1));
        } else {
            let held = |site: &&Site| {
                stay.iter().any(|p| p.spec.target_destination_name == site.name && holds(p))
            };
            if !fit.is_empty() && fit.iter().all(held) {
                given_up.extend(movers);
            }
        }
        given_up.into_iter().map(name_of).collect()
    }

    /// Whether a placement shall move. Dependencies belong on every destination that matches.
    fn moves(&self, placement: &WorkPlacement, fit: &[&Site]) -> bool {
        let elsewhere = !is_among(fit, &placement.spec.target_destination_name);
        asks_to_move(placement, self.sites, elsewhere)
    }

    /// Dependencies: every destination that fits and does not hold the group.
    fn all(&self, fit: Vec<&'a Site>, outcome: &mut GroupSchedule) -> Vec<Fresh<'a>> {
        let mut fresh = Vec::new();
        for site in fit {
            if outcome.chosen.contains(&site.name) {
                continue;
            }
            if self.own.iter().any(|p| p.spec.target_destination_name == site.name) {
                outcome.passed_over.insert(site.name.clone(), WhyNot::Removing);
                let destination = site.name.clone();
                outcome.waiting.get_or_insert(Waiting::Removing { destination });
            } else {
                fresh.push((site, None));
            }
        }
        fresh
    }

    /// Requests: the one that holds it; else, once nothing of it is left anywhere or when it shall
    /// move, the best.
    fn one(
        &self,
        fit: Vec<&'a Site>,
        load: &dyn Fn(&str) -> usize,
        outcome: &mut GroupSchedule,
    ) -> Option<Fresh<'a>> {
        if let Some(holder) = outcome.chosen.difference(&outcome.moving).next().cloned() {
            for site in fit.iter().filter(|site| !outcome.chosen.contains(&site.name)) {
                outcome.passed_over.insert(site.name.clone(), WhyNot::Held { by: holder.clone() });
            }
            return None;
        }
        let from = outcome.moving.first().cloned();
        let last = self.own.iter().find(|placement| leaving(placement));
        if let (Some(last), None) = (last, &from) {
            let destination = last.spec.target_destination_name.clone();
            for site in fit {
                outcome.passed_over.insert(site.name.clone(), WhyNot::Removing);
            }
            outcome.waiting = Some(Waiting::Removing { destination });
            return None;
        }
        let open: Vec<_> = fit.into_iter().filter(|site| self.is_open(site, outcome)).collect();
        let chosen = choose(&open, load, outcome, from.as_deref());
        if let (None, Some(destination)) = (&chosen, from) {
            let selector = outcome.selector.to_string();
            outcome.waiting = Some(Waiting::NowhereToMove { destination, selector });
        }
        chosen
    }

    /// Whether a destination that fits may be taken; says why not.
    fn is_open(&self, site: &Site, outcome: &mut GroupSchedule) -> bool {
        if outcome.chosen.contains(&site.name) {
            return false;
        }
        let held = self.own.iter().any(|p| p.spec.target_destination_name == site.name);
        let why = if held {
            WhyNot::Removing
        } else if site.draining {
            WhyNot::Draining
        } else if !outcome.moving.is_empty() && site.link != Link::Connected {
            // What works where it is does not go where nobody takes it.
            not_ready(site)
        } else {
            return true;
        };
        outcome.passed_over.insert(site.name.clone(), why);
        false
    }
}

/// The best of the destinations that are open: ready, then the least loaded, then the first by name.
fn choose<'a>(
    open: &[&'a Site],
    load: &dyn Fn(&str) -> usize,
    outcome: &mut GroupSchedule,
    from: Option<&str>,
) -> Option<Fresh<'a>> {
    let unready = |site: &Site| site.link != Link::Connected;
    let load = |site: &Site| load(&site.name);
    let key = |site: &Site| (unready(site), load(site), site.name.clone());
    let best = open.iter().copied().min_by_key(|site| key(site))?;
    let mut decided = Decided::Only;
    for site in open.iter().filter(|site| site.name != best.name) {
        let why = match (unready(site) != unready(best), load(site) > load(best)) {
            (true, _) => not_ready(site),
            (false, true) => WhyNot::Busier { load: load(site) },
            (false, false) => WhyNot::LaterName,
        };
        decided = match (&why, decided) {
            (WhyNot::LaterName, _) | (_, Decided::Name(_)) => Decided::Name(load(best)),
            (WhyNot::Busier { .. }, _) | (_, Decided::Load(_)) => Decided::Load(load(best)),
            (_, Decided::Only | Decided::Ready) => Decided::Ready,
        };
        outcome.passed_over.insert(site.name.clone(), why);
    }
    let why = WhyHere {
        selector: outcome.selector.to_string(),
        others: open.len() - 1,
        decided,
        unready: unready(best),
        from: from.map(str::to_owned),
    };
    Some((best, Some(why.to_string())))
}

fn not_ready(site: &Site) -> WhyNot {
    if site.state_store { WhyNot::NotReady } else { WhyNot::Offline }
}

fn is_among(sites: &[&Site], name: &str) -> bool {
    sites.iter().any(|site| site.name == name)
}
