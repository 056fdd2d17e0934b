//! Where a request runs, and how an operator changes it: previews, moves and drains by the command line
//! against a real hub with two real agents, and what kubectl shows meanwhile.

use std::{fs, path::Path};

use muster_e2e::{Agent, Executor, Hub, Kubectl, eventually, manifests::Promise, scratch};

/// Each request keeps a file of its name in its destination's own directory.
const NOTE: Promise<'_> = Promise {
    name: "note",
    group: "example.org",
    platform: "tier: web",
    fields: &[("text", "{type: string}")],
    dependencies: "",
    script: r#"
cat > note.yaml <<END
apiVersion: fleet.muster.dev/v1alpha1
kind: Script
metadata: {name: $name}
spec:
  apply: {command: ["true"]}
  remove: {command: ["true"]}
END
"#,
    once: false,
};
const TARGETS: &str =
    "jsonpath={range .items[*]}{.spec.resourceName}={.spec.targetDestinationName} {end}";
const ANNOTATIONS: &str = "jsonpath={.items[*].metadata.annotations}";

/// A hub, and two hosts that take notes.
struct Platform {
    hub: Hub,
    kubectl: Kubectl,
    _agents: [Agent; 2],
}

impl Platform {
    fn start(dir: &Path) -> Self {
        let hub = Hub::start(dir, Executor::Process);
        let agents = ["vm-1", "vm-2"]
            .map(|name| Agent::join(&hub, dir, name, &["tier=web"], &["shell"], None));
        let kubectl = hub.kubectl();
        kubectl.apply(&NOTE.yaml());
        kubectl.wait("promise/note", "Available");
        Self { hub, kubectl, _agents: agents }
    }

    fn ask(&self, name: &str) {
        self.kubectl.apply(&NOTE.request(name, "text: hello"));
        self.kubectl.wait(&format!("note/{name}"), "Reconciled");
    }

    /// What the command prints on both channels, and whether it succeeded.
    fn muster(&self, args: &[&str]) -> (bool, String) {
        let output = self.hub.muster(args).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    }

    /// Runs a command that succeeds and prints all of `words`.
    fn tells(&self, args: &[&str], words: &[&str]) {
        let (succeeded, told) = self.muster(args);
        assert!(succeeded, "{args:?}: {told}");
        for word in words {
            assert!(told.contains(word), "{args:?} printed\n{told}and not {word:?}");
        }
    }

    /// Runs a command that fails for this cause.
    fn refuses(&self, args: &[&str], cause: &str) {
        let (succeeded, told) = self.muster(args);
        assert!(!succeeded && told.contains(cause), "{args:?} printed\n{told}and not {cause:?}");
    }

    fn placed(&self) -> String {
        self.kubectl.ok(&["get", "workplacements", "-A", "-o", TARGETS])
    }

    /// Waits until the notes are just there, one placement each, and say so.
    fn until_placed(&self, notes: &[(&str, &str)]) {
        let wanted: Vec<_> = notes.iter().map(|(note, on)| format!("{note}={on}")).collect();
        eventually(&format!("placements {wanted:?}"), || {
            let placed = self.placed();
            let mut found: Vec<_> = placed.split_whitespace().collect();
            found.sort_unstable();
            if found == wanted { Ok(()) } else { Err(placed) }
        });
        for (note, on) in notes {
            self.kubectl.until(&["get", "note", note], |table| table.contains(on));
            self.kubectl.wait(&format!("note/{note}"), "Reconciled");
        }
    }

    fn placement_of(&self, note: &str) -> String {
        let names = "jsonpath={range .items[*]}{.spec.resourceName}={.metadata.name} {end}";
        let all = self.kubectl.ok(&["get", "workplacements", "-A", "-o", names]);
        let mut pairs = all.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.find(|(of, _)| *of == note).expect("a placement of it").1.to_owned()
    }
}

#[test]
fn a_placement_moves_when_it_is_asked_and_only_then() {
    let scratch = scratch();
    let platform = Platform::start(scratch.path());
    platform.ask("one");
    platform.until_placed(&[("one", "vm-1")]);
    let name = platform.placement_of("one");

    let ask = ["placements", "move", &name, "-n", "default"];
    let preview = [
        "request default/one of promise note, is on vm-1",
        "It would go to vm-2",
        "vm-1 would be cleared when vm-2 holds the files, not before.",
        &format!("To do it: muster placements move {name} -n default --yes"),
    ];
    platform.tells(&ask, &preview);
    platform.until_placed(&[("one", "vm-1")]);
    let kept = platform.kubectl.ok(&["get", "workplacements", "-A", "-o", ANNOTATIONS]);
    assert!(!kept.contains("fleet.muster.dev/move"), "a preview asks for nothing: {kept}");

    platform.tells(&[&ask[..], &["--yes"]].concat(), &["asked; to call it back"]);
    platform.until_placed(&[("one", "vm-2")]);

    // Where nothing else matches, it stays, and the command says so.
    let kubectl = &platform.kubectl;
    kubectl.ok(&["label", "destination", "vm-1", "tier=db", "--overwrite"]);
    let name = platform.placement_of("one");
    platform.refuses(&["placements", "move", &name, "-n", "default"], "is left where it is");
    platform.until_placed(&[("one", "vm-2")]);

    // Its own destination stops matching: it is misplaced, which is told, and nothing is taken away.
    kubectl.ok(&["label", "destination", "vm-2", "tier=db", "--overwrite"]);
    let table = kubectl.until(&["get", "workplacements", "-A"], |it| it.contains("Misplaced"));
    assert!(table.contains("vm-2"), "{table}");
    kubectl.until(&["get", "note/one", "-o", "yaml"], |it| it.contains("Misplaced"));
    platform.tells(&["explain", "note", "one"], &["vm-2"]);
    // Another one matches again: the move is offered, and made.
    kubectl.ok(&["label", "destination", "vm-1", "tier=web", "--overwrite"]);
    platform.tells(&["placements", "move", &name, "-n", "default"], &["It would go to vm-1"]);
    platform.tells(&["placements", "move", &name, "-n", "default", "--yes"], &["asked"]);
    platform.until_placed(&[("one", "vm-1")]);

    platform
        .refuses(&["placements", "move", "nothing"], "there is no WorkPlacement default/nothing");
}

#[test]
fn a_drained_destination_gives_its_requests_away_and_takes_none() {
    let scratch = scratch();
    let platform = Platform::start(scratch.path());
    platform.ask("one");
    platform.ask("two");
    platform.until_placed(&[("one", "vm-1"), ("two", "vm-2")]);

    let preview = [
        "vm-1 holds 1 placement of requests, which would leave it",
        "request default/one: to vm-2",
        "No request would be placed on vm-1 any more.",
        "To do it: muster destinations drain vm-1 --yes",
    ];
    platform.tells(&["destinations", "drain", "vm-1"], &preview);
    platform.until_placed(&[("one", "vm-1"), ("two", "vm-2")]);
    platform.tells(&["destinations", "drain", "vm-1", "--yes"], &["to end it:", "--undo"]);
    platform.until_placed(&[("one", "vm-2"), ("two", "vm-2")]);
    // The emptier one is not chosen while it is drained.
    platform.ask("three");
    platform.until_placed(&[("one", "vm-2"), ("three", "vm-2"), ("two", "vm-2")]);

    // With nowhere to go, requests stay, and say why.
    platform.tells(&["destinations", "drain", "vm-2", "--yes"], &["stays"]);
    platform.kubectl.until(&["get", "notes"], |notes| {
        notes.contains("it stays on destination vm-2, which it shall leave, because no other one")
            && notes.contains("vm-2 (to be moved)")
    });
    platform.tells(&["destinations", "drain", "vm-2", "--undo"], &["takes requests again"]);
    platform.tells(&["destinations", "drain", "vm-1", "--undo"], &["takes requests again"]);
    platform.ask("four");
    platform.until_placed(&[("four", "vm-1"), ("one", "vm-2"), ("three", "vm-2"), ("two", "vm-2")]);

    platform.refuses(&["destinations", "drain", "vm-9"], "there is no destination vm-9");
    let log = fs::read_to_string(scratch.path().join("hub.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
