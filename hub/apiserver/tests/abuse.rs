//! Clients that mean harm: each does its worst to a server in a process of its own, whose memory
//! must stay bounded, and whose other clients must be served meanwhile.

#[path = "abuse/attacks.rs"]
mod attacks;
#[path = "abuse/connections.rs"]
mod connections;
#[path = "shared/raw.rs"]
mod raw;
#[path = "abuse/victim.rs"]
mod victim;

use std::path::Path;

use futures::future::LocalBoxFuture;

use victim::Victim;

/// An attack, and the most resident memory, in MiB, that the server may have come to.
struct Attack {
    name: &'static str,
    mib_max: u64,
    run: for<'v> fn(&'v Victim) -> LocalBoxFuture<'v, ()>,
}

macro_rules! attacks {
    ($($module:ident::$name:ident: $mib:literal,)*) => {
        &[$(Attack {
            name: stringify!($name),
            mib_max: $mib,
            run: |victim| Box::pin($module::$name(victim)),
        }),*]
    };
}

const ATTACKS: &[Attack] = attacks![
    attacks::bodies_that_are_too_long: 250,
    attacks::documents_that_are_too_deep: 450,
    attacks::patches_that_multiply: 450,
    attacks::selectors_and_tokens_that_are_too_long: 200,
    attacks::patterns_that_backtrack: 250,
    attacks::rules_that_loop: 450,
    attacks::dry_runs_without_end: 300,
    connections::heads_that_are_too_long: 200,
    connections::clients_that_say_nothing: 200,
    connections::streams_that_are_reset: 250,
    connections::pings_without_end: 200,
    connections::a_watch_that_is_not_read: 500,
    connections::lists_that_are_not_read: 900,
    connections::two_thousand_watchers: 500,
    connections::strangers_in_crowds: 300,
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == victim::FLAG) {
        return victim::serve(Path::new(&args[1]));
    }
    if args.iter().any(|arg| arg == "--list") {
        return ATTACKS.iter().for_each(|attack| println!("{}: test", attack.name));
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |attack: &&Attack| {
        filters.is_empty() || filters.iter().any(|filter| attack.name.contains(filter.as_str()))
    };
    victim::raise_file_limit();
    for attack in ATTACKS.iter().filter(chosen) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (mib, waited) = runtime.block_on(async {
            let victim = Victim::start().await;
            (attack.run)(&victim).await;
            victim.end().await
        });
        let name = attack.name;
        println!("test {name} ... ok ({mib} MiB at most, another client waited {waited:.1?})");
        assert!(mib <= attack.mib_max, "{}: {mib} MiB, over {}", attack.name, attack.mib_max);
    }
}
