//! What people see of placement: work that has nowhere to go, work whose destination no longer
//! matches, work on its way from one destination to another.

use std::fs;

use muster_e2e::{
    GitServer, Kubectl,
    manifests::{destination, git_store, secret},
};

use super::{GOOD, Shop, good, with};

const WORKS: &str = "NAME STATUS";
const PLACEMENTS: &str = "NAME DESTINATION STATUS HEALTH";
const DESTINATIONS: &str = "NAME STATESTOREKIND STATESTORENAME READY";
const MOVE: &str = "fleet.muster.dev/move";
/// Takes what is pushed once there is a file `open` beside it. It keeps talking, since git gives up
/// who is silent; it never waits for ever.
const HOLD: &str = "for i in $(seq 1000); do [ -e open ] && exit 0; echo 'somebody looks at what \
                    was pushed' >&2; sleep 0.1; done; exit 1";

/// The Destination `spare`, in the repository `away`.
fn spare(server: &GitServer) -> String {
    server.repositories().create("away");
    let login = [
        ("username", GitServer::USER),
        ("password", GitServer::PASSWORD),
        ("caFile", &server.authority()),
    ];
    let store = secret("away", &login) + &git_store("away", &server.url("away"), "");
    store + &destination("spare", "away", "")
}

/// The column DESTINATION of the request.
fn told_where(kubectl: &Kubectl, told: &str) {
    let column = r#"jsonpath={.status.placements.destination}"#;
    kubectl.until(&["get", "good/a", "-o", column], |destination| destination == told);
    let table = kubectl.ok(&["get", "good/a"]);
    assert!(table.contains(told), "{told:?} is not in {table}");
}

#[test]
fn work_is_listed_while_it_is_misplaced_and_while_it_moves() {
    let Some(shop) = Shop::open() else { return };
    let (kubectl, server) = (shop.hub.kubectl(), &shop.server);
    kubectl.ok(&["label", "destination", "dev", "env=dev"]);
    kubectl.apply(GOOD);
    kubectl.wait("promise/good", "Available");
    kubectl.apply(&good("a", "default", "x"));
    kubectl.wait("good/a", "Reconciled");
    let lists = |work: &str, placements: &[&str]| {
        kubectl.prints(&["works"], &[WORKS, &format!("good-a-run-* {work}")]);
        kubectl.prints(&["workplacements"], &[&[PLACEMENTS], placements].concat());
    };
    lists("Ready", &["good-a-run-*.dev-5058f dev Ready"]);

    // Its destination no longer matches: it stays, and says so; also where nothing else matches.
    kubectl.ok(&["label", "destination", "dev", "env-"]);
    let misplaced = ["good-a-run-*.dev-5058f dev Misplaced"];
    lists("Misplaced", &misplaced);
    told_where(&kubectl, "dev (misplaced)");
    kubectl.says(
        "good/a",
        &[
            "Reconciled=False WorksMisplaced: destination dev no longer matches: label it, or move \
             what is there with: muster placements move good-a-run-",
            "WorksSucceeded=False WorksMisplaced: Some works associated with this resource are \
             misplaced: [good-a-run-",
        ],
    );
    let placement = kubectl.ok(&["get", "workplacements", "-o", "name"]);
    kubectl.says(
        &placement,
        &["ScheduleSucceeded=False DestinationSelectorMismatch: Target destination no longer matches \
           destinationSelectors"],
    );
    kubectl.ok(&["annotate", &placement, &format!("{MOVE}=true")]);
    kubectl.says("good/a", &["Reconciled=Unknown NowhereToMove: "]);
    lists("Misplaced", &misplaced);
    kubectl.ok(&["annotate", &placement, &format!("{MOVE}-")]);

    // It heals by itself when the label is back.
    kubectl.ok(&["label", "destination", "dev", "env=dev"]);
    kubectl.wait("good/a", "Reconciled");
    lists("Ready", &["good-a-run-*.dev-5058f dev Ready"]);
    told_where(&kubectl, "dev");

    // Asked to move, it is on both until the other holds it, of which nothing is said before.
    kubectl.ok(&["label", "destination", "dev", "env-"]);
    kubectl.apply(&spare(server));
    kubectl.wait("destination/spare", "Ready");
    kubectl.ok(&["label", "destination", "spare", "env=dev"]);
    lists("Misplaced", &misplaced);
    server.repositories().hook("away", Some(HOLD));
    kubectl.ok(&["annotate", &placement, &format!("{MOVE}=true")]);
    lists("Misplaced", &[misplaced[0], "good-a-run-*.spare-5058f spare"]);
    told_where(&kubectl, "dev -> spare");
    kubectl.says("good/a", &["Reconciled=Unknown Moving: "]);
    kubectl.prints(
        &["destinations"],
        &[DESTINATIONS, "dev GitStateStore hub True", "spare GitStateStore away True"],
    );
    let file = |place: &str| format!("{place}/resources/default/good/a/run/5058f/a.txt");
    assert!(server.repositories().tree("fleet").contains_key(&file("dev")));

    fs::write(server.root().join("away.git").join("open"), "").unwrap();
    kubectl.wait("good/a", "Reconciled");
    lists("Ready", &["good-a-run-*.spare-5058f spare Ready"]);
    told_where(&kubectl, "spare");
    assert!(server.repositories().tree("away").contains_key(&file("spare")));
    assert!(!server.repositories().tree("fleet").contains_key(&file("dev")));
}

#[test]
fn a_promise_is_not_done_while_its_dependencies_have_nowhere_to_go() {
    let Some(shop) = Shop::open() else { return };
    let kubectl = shop.hub.kubectl();
    let dependency = "{apiVersion: v1, kind: Namespace, metadata: {name: stock}}";
    let needy = format!("spec:\n  dependencies: [{dependency}]\n");
    kubectl.apply(&with(GOOD, "spec:\n", &needy));
    kubectl.says(
        "promise/good",
        &[
            "Available=True PromiseAvailable",
            "WorksSucceeded=Unknown WorksPending: Some works associated with this promise are not \
             ready: [good-",
            "Reconciled=Unknown NoMatchingDestination: ",
        ],
    );
    let works = ["works", "-n", "kratix-platform-system"];
    kubectl.prints(&works, &[WORKS, "good-* Pending"]);
    kubectl.ok(&["label", "destination", "dev", "env=dev"]);
    kubectl.wait("promise/good", "Reconciled");
    kubectl.prints(&works, &[WORKS, "good-* Ready"]);
    kubectl.says("promise/good", &["WorksSucceeded=True WorksSucceeded"]);
    let file = "dev/dependencies/good/5058f/static/good-dependencies.yaml";
    let tree = shop.server.repositories().tree("fleet");
    assert!(tree.contains_key(file), "{:?}", tree.keys());
}
