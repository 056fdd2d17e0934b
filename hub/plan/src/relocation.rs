//! What would happen if a placement were asked to move, or a destination to be drained? Said before
//! anybody asks: from where, to where, why there, and what else runs there.

use std::collections::BTreeMap;

use muster_api::{Destination, Work, WorkPlacement, labels};

use crate::{
    explain::{says, whose},
    schedule::{asks_to_move, counted, is_misplaced, owns, schedule},
    site::{Sites, sites},
};

/// How many placements are named before the rest is counted.
const NAMED_MAX: usize = 10;

/// All that a move depends on.
#[derive(Debug, Clone, Copy)]
pub struct Fleet<'a> {
    /// All Works.
    pub works: &'a [Work],
    /// All placements.
    pub placements: &'a [WorkPlacement],
    /// All destinations.
    pub destinations: &'a [Destination],
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// In words, a line each.
    pub lines: Vec<String>,
    /// Whether there is anything to ask for.
    pub possible: bool,
}

/// What becomes of one placement that is asked to move.
pub fn of_placement(fleet: Fleet<'_>, placement: &WorkPlacement) -> Preview {
    let sites = sites(fleet.destinations);
    let from = &placement.spec.target_destination_name;
    let name = name_of(placement);
    let (whose, promise) = (whose(placement), &placement.spec.promise_name);
    let mut lines =
        vec![format!("{name}, {whose} of promise {promise}, is on {from}: {}.", says(placement))];
    let mut asked = placement.clone();
    let annotations = asked.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::MOVE.to_owned(), "true".to_owned());
    if !asks_to_move(&asked, &sites, is_misplaced(&asked)) {
        lines.push(format!(
            "There is nothing to move: dependencies belong on every destination that matches, and \
             {from} does."
        ));
        return Preview { lines, possible: false };
    }
    let mut loads = loads(fleet.placements);
    let fate = fate(fleet, &sites, &mut loads, &asked);
    match &fate.to {
        Some((to, why)) => {
            lines.push(format!("It would go to {to}: {why}."));
            lines.push(beside(fleet.placements, to, placement));
            lines.push(format!("{from} would be cleared when {to} holds the files, not before."));
        }
        None if placement.spec.resource_name.is_none() && fate.possible => {
            lines.push(format!(
                "{from} would be cleared when every destination that matches holds the files."
            ));
        }
        None => lines.push(format!("It cannot move: {}.", fate.why_not)),
    }
    lines.extend(fate.elsewhere);
    Preview { lines, possible: fate.possible }
}

/// What becomes of what is on a destination that is asked to be drained.
pub fn of_destination(fleet: Fleet<'_>, name: &str) -> Preview {
    let mut sites = sites(fleet.destinations);
    if let Some(site) = sites.get_mut(name) {
        site.draining = true;
    }
    let here = fleet.placements.iter().filter(|p| {
        p.spec.target_destination_name == name && p.metadata.deletion_timestamp.is_none()
    });
    let (requested, dependencies): (Vec<_>, Vec<_>) =
        here.partition(|p| p.spec.resource_name.is_some());
    let mut loads = loads(fleet.placements);
    let mut lines = vec![format!(
        "{name} holds {} of requests, which would leave it, and {} of dependencies, which stay.",
        counted(requested.len()),
        counted(dependencies.len())
    )];
    let fates = requested.iter().map(|placement| {
        let fate = fate(fleet, &sites, &mut loads, placement);
        let about = format!("{}, {}", name_of(placement), whose(placement));
        match fate.to {
            Some((to, why)) => format!("{about}: to {to} ({why})."),
            None => format!("{about}: stays, {}.", fate.why_not),
        }
    });
    let fates: Vec<_> = fates.collect();
    let more = fates.len().saturating_sub(NAMED_MAX);
    lines.extend(fates.into_iter().take(NAMED_MAX));
    if more > 0 {
        lines.push(format!("And {more} more."));
    }
    lines.push(format!("No request would be placed on {name} any more."));
    Preview { lines, possible: true }
}

/// What becomes of one placement.
struct Fate {
    /// Where it goes, and why there.
    to: Option<(String, String)>,
    possible: bool,
    why_not: String,
    /// Why nowhere else.
    elsewhere: Vec<String>,
}

/// Asks the scheduler itself; what goes somewhere is load for those that follow.
fn fate(
    fleet: Fleet<'_>,
    sites: &Sites,
    loads: &mut BTreeMap<String, usize>,
    placement: &WorkPlacement,
) -> Fate {
    let Some(work) = fleet.works.iter().find(|work| owns(work, placement)) else {
        let why_not = "it belongs to no Work".to_owned();
        return Fate { to: None, possible: false, why_not, elsewhere: Vec::new() };
    };
    let own = fleet.placements.iter().filter(|p| owns(work, p));
    let own: Vec<_> =
        own.map(|p| if name_of(p) == name_of(placement) { placement } else { p }).collect();
    let load = |name: &str| loads.get(name).copied().unwrap_or_default();
    let plan = schedule(work, sites, &load, &own);
    let id = &placement.spec.id;
    let group = plan.groups.iter().find(|group| group.id == *id);
    let made =
        plan.create.iter().find(|new| new.spec.id == *id && work.spec.resource_name.is_some());
    let on_its_way = group.and_then(|group| group.chosen.difference(&group.moving).next());
    let to = match (made, on_its_way) {
        (Some(new), _) => {
            let annotations = new.metadata.annotations.as_ref();
            let why = annotations.and_then(|all| all.get(labels::CHOSEN_BECAUSE));
            Some((new.spec.target_destination_name.clone(), why.cloned().unwrap_or_default()))
        }
        (None, Some(to)) if work.spec.resource_name.is_some() => {
            Some((to.clone(), "it is on its way already".to_owned()))
        }
        _ => None,
    };
    if let Some((to, _)) = &to {
        *loads.entry(to.clone()).or_default() += 1;
    }
    let waiting = group.and_then(|group| group.waiting.as_ref());
    Fate {
        possible: to.is_some() || (work.spec.resource_name.is_none() && waiting.is_none()),
        why_not: waiting.map(|waiting| waiting.message()).unwrap_or_default(),
        elsewhere: group.map(crate::explain::not_on).unwrap_or_default(),
        to,
    }
}

/// What else is on the destination where a placement goes.
fn beside(placements: &[WorkPlacement], to: &str, placement: &WorkPlacement) -> String {
    let there = placements.iter().filter(|p| {
        p.spec.target_destination_name == to
            && p.spec.resource_name.is_some()
            && name_of(p) != name_of(placement)
    });
    let there: Vec<_> =
        there.map(|p| format!("{} of promise {}", whose(p), p.spec.promise_name)).collect();
    let dependencies = placements
        .iter()
        .filter(|p| p.spec.target_destination_name == to && p.spec.resource_name.is_none());
    let dependencies = counted(dependencies.count());
    match there.len() {
        0 => format!("On {to} there is no request yet; {dependencies} of dependencies."),
        n if n <= NAMED_MAX => {
            format!("On {to} there are {}; {dependencies} of dependencies.", there.join(", "))
        }
        n => format!(
            "On {to} there are {} and {} more; {dependencies} of dependencies.",
            there[..NAMED_MAX].join(", "),
            n - NAMED_MAX
        ),
    }
}

fn loads(placements: &[WorkPlacement]) -> BTreeMap<String, usize> {
    let mut loads = BTreeMap::new();
    for placement in placements {
        *loads.entry(placement.spec.target_destination_name.clone()).or_default() += 1;
    }
    loads
}

fn name_of(placement: &WorkPlacement) -> &str {
    placement.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use muster_api::conditions::{self, Truth, Verdict, kind};
    use muster_api::{DestinationSpec, DestinationStatus, WorkSpec, WorkloadGroup};

    use super::*;

    fn destination(name: &str, ready: bool) -> Destination {
        let mut made = Destination::new(name, DestinationSpec::default());
        let truth = if ready { Truth::True } else { Truth::False };
        let mut status = DestinationStatus::default();
        let verdict = Verdict::new(kind::READY, truth, "Said", "");
        conditions::set(&mut status.conditions, &verdict, None, jiff::Timestamp::UNIX_EPOCH);
        made.status = Some(status);
        made
    }

    fn work(name: &str, request: Option<&str>) -> Work {
        let group =
            WorkloadGroup { id: "5058f".into(), directory: ".".into(), ..Default::default() };
        let mut work = Work::new(
            name,
            WorkSpec {
                promise_name: "web".into(),
                resource_name: request.map(str::to_owned),
                workload_groups: vec![group],
                ..WorkSpec::default()
            },
        );
        work.metadata.namespace = Some("default".into());
        work.metadata.uid = Some(name.into());
        work
    }

    fn placed(works: &[Work], on: &[Destination]) -> Vec<WorkPlacement> {
        let made = works.iter().flat_map(|work| schedule(work, &sites(on), &|_| 0, &[]).create);
        made.collect()
    }

    #[test]
    fn a_move_is_told_with_from_to_why_and_what_is_there() {
        let works = [work("web-shop", Some("shop")), work("web-blog", Some("blog"))];
        let (one, two) = (destination("vm-1", true), destination("vm-2", true));
        let mut placements = placed(&works[..1], std::slice::from_ref(&one));
        placements.extend(placed(&works[1..], std::slice::from_ref(&two)));
        let destinations = [one, two, destination("vm-3", false)];
        let fleet = Fleet { works: &works, placements: &placements, destinations: &destinations };
        let preview = of_placement(fleet, &placements[0]);
        assert!(preview.possible);
        let told = preview.lines.join("\n");
        for words in [
            "web-shop.vm-1-5058f, request default/shop of promise web, is on vm-1: nothing reported",
            "It would go to vm-2: moved from vm-1: the only one to match an empty selector.",
            "On vm-2 there are request default/blog of promise web; 0 placements of dependencies.",
            "vm-1 would be cleared when vm-2 holds the files, not before.",
            "Not on vm-3: matches, but its agent is not connected.",
        ] {
            assert!(told.contains(words), "{told}\nlacks: {words}");
        }
        let alone = Fleet { destinations: &destinations[..1], ..fleet };
        let stuck = of_placement(alone, &placements[0]);
        assert!(!stuck.possible && stuck.lines[1].starts_with("It cannot move: it stays on"));
    }

    #[test]
    fn a_drain_spreads_what_leaves_and_keeps_dependencies() {
        let works = [work("web-a", Some("a")), work("web-b", Some("b")), work("web-deps", None)];
        let (one, two, three) =
            (destination("vm-1", true), destination("vm-2", true), destination("vm-3", true));
        let placements = placed(&works, std::slice::from_ref(&one));
        let destinations = [one, two, three];
        let fleet = Fleet { works: &works, placements: &placements, destinations: &destinations };
        let lines = of_destination(fleet, "vm-1").lines;
        assert!(
            lines[0].contains("2 placements of requests") && lines[0].contains("1 placement of")
        );
        assert!(lines[1].contains("web-a.vm-1-5058f, request default/a: to vm-2 ("), "{lines:?}");
        assert!(lines[2].contains("web-b.vm-1-5058f, request default/b: to vm-3 ("), "{lines:?}");
        let dependencies = of_placement(fleet, &placements[2]);
        assert!(!dependencies.possible && dependencies.lines[1].contains("nothing to move"));
    }
}
