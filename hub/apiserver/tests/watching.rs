//! Lists and watches against each other, under writers: what a list says and what came after it is
//! what a list says later, at every revision, page by page, and over a restart.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/within.rs"]
mod within;

use std::{collections::BTreeMap, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use home::Home;
use within::{JSON, MERGE, Raw};

const NAMESPACES: [&str; 2] = ["default", "kube-public"];

/// Enough to meet each pair of step and selector; each has a server and some hundred requests.
const CASES: u32 = 12;

/// An event that has not come for so long does not come.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// What a writer does to one of a few objects.
#[derive(Debug, Clone)]
struct Step {
    namespace: usize,
    name: u8,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    /// With the label `a`.
    Create(Option<&'static str>),
    Label(Option<&'static str>),
    Change(u8),
    Delete,
}

/// What a watcher wants to see.
#[derive(Debug, Clone)]
struct Wish {
    namespace: Option<usize>,
    selector: &'static str,
    /// How many steps are done before it begins.
    after: usize,
}

const SELECTORS: [&str; 6] = [
    "",
    "&labelSelector=a%3Dx",
    "&labelSelector=a!%3Dx",
    "&labelSelector=!a",
    "&fieldSelector=metadata.name%3Dm1",
    "&labelSelector=a%20in%20(x,y)&fieldSelector=metadata.name!%3Dm0",
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let label = || prop::sample::select(vec![None, Some("x"), Some("y")]);
    let act = prop_oneof![
        3 => label().prop_map(Act::Create),
        3 => label().prop_map(Act::Label),
        2 => any::<u8>().prop_map(Act::Change),
        2 => Just(Act::Delete),
    ];
    let step = (0..2_usize, 0..3_u8, act);
    let step = step.prop_map(|(namespace, name, act)| Step { namespace, name, act });
    prop::collection::vec(step, 4..24)
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let namespace = prop::option::of(0..2_usize);
    let wish = (namespace, prop::sample::select(SELECTORS.to_vec()), 0..16_usize);
    let wish = wish.prop_map(|(namespace, selector, after)| Wish { namespace, selector, after });
    prop::collection::vec(wish, 1..5)
}

#[test]
fn what_is_watched_is_what_is_listed_at_every_revision() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let writers = prop::collection::vec(steps(), 1..4);
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let run = TestRunner::new(config).run(&(writers, wishes()), |(writers, wishes)| {
        runtime.block_on(watch_and_compare(writers, wishes));
        Ok(())
    });
    run.unwrap();
}

async fn watch_and_compare(writers: Vec<Vec<Step>>, wishes: Vec<Wish>) {
    let home = Home::new().await;
    let raw = Raw::new(&home.api);
    let (early, late): (Vec<_>, Vec<_>) = writers
        .into_iter()
        .map(|steps| (steps[..steps.len() / 2].to_vec(), steps[steps.len() / 2..].to_vec()))
        .unzip();
    let watchers: Vec<_> =
        wishes.into_iter().map(|wish| tokio::spawn(Watcher::begin(raw.clone(), wish))).collect();
    write(&raw, early).await;
    page(&raw, late[0].clone()).await;
    // The watchers are in the middle of it, and go on where they were.
    let mut begun = Vec::new();
    for watcher in watchers {
        begun.push(watcher.await.unwrap());
    }
    let home = home.reopen().await;
    let raw = Raw::new(&home.api);
    let watching: Vec<_> = begun
        .into_iter()
        .enumerate()
        .map(|(at, watcher)| tokio::spawn(watcher.finish(raw.clone(), format!("end{at}"))))
        .collect();
    write(&raw, late).await;
    for watcher in watching {
        watcher.await.unwrap();
    }
}

/// All writers at once; some steps are refused, as they come.
async fn write(raw: &Raw, writers: Vec<Vec<Step>>) {
    let writers = writers.into_iter().map(|steps| {
        let raw = raw.clone();
        tokio::spawn(async move {
            for step in steps {
                take(&raw, &step).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

async fn take(raw: &Raw, step: &Step) {
    let name = format!("m{}", step.name);
    let all = format!("/api/v1/namespaces/{}/configmaps", NAMESPACES[step.namespace]);
    let one = format!("{all}/{name}");
    let (code, answer) = match &step.act {
        Act::Create(label) => {
            let labels = label.map_or(json!({}), |value| json!({"a": value}));
            let map = json!({"metadata": {"name": name, "labels": labels}});
            raw.send("POST", &all, JSON, &map).await
        }
        Act::Label(label) => {
            let patch = json!({"metadata": {"labels": {"a": label}}});
            raw.send("PATCH", &one, MERGE, &patch).await
        }
        Act::Change(value) => {
            let patch = json!({"data": {"k": value.to_string()}});
            raw.send("PATCH", &one, MERGE, &patch).await
        }
        Act::Delete => raw.send("DELETE", &one, JSON, &Value::Null).await,
    };
    assert!([200, 201, 404, 409].contains(&code), "{step:?}: {answer}");
}

/// Lists page by page while others write: all pages are of the revision of the first.
async fn page(raw: &Raw, meanwhile: Vec<Step>) {
    let mut meanwhile = meanwhile.into_iter();
    for selector in SELECTORS {
        let (mut names, mut token, mut revision) = (Vec::new(), String::new(), None);
        loop {
            let path = format!("/api/v1/configmaps?limit=1&continue={token}{selector}");
            let list = raw.get(&path).await;
            let own = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            assert_eq!(*revision.get_or_insert(own.clone()), own, "{path}");
            names.extend(state_of(&list));
            match list["metadata"]["continue"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => break,
            }
            if let Some(step) = meanwhile.next() {
                take(raw, &step).await;
            }
        }
        let paged: State = names.into_iter().collect();
        assert_eq!(paged, exactly(raw, "/api/v1/configmaps", selector, &revision.unwrap()).await);
    }
}

/// Namespace and name, and the object.
type State = BTreeMap<(String, String), Value>;

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    (text("namespace"), text("name"))
}

fn state_of(list: &Value) -> State {
    let typed = |item: &Value| {
        let mut item = item.clone();
        item["apiVersion"] = "v1".into();
        item["kind"] = "ConfigMap".into();
        item
    };
    let items = list["items"].as_array().unwrap().iter().map(typed);
    items.map(|item| (key(&item), item)).collect()
}

async fn exactly(raw: &Raw, path: &str, selector: &str, revision: &str) -> State {
    let at = format!("resourceVersion={revision}&resourceVersionMatch=Exact");
    state_of(&raw.get(&format!("{path}?{at}{selector}")).await)
}

/// A client that lists once and then keeps up by a watch.
struct Watcher {
    path: String,
    wish: Wish,
    state: State,
    /// Of the last event, or of the list.
    revision: String,
    /// What the state was after each event.
    history: Vec<(String, State)>,
}

impl Watcher {
    /// Lists, and reads some of the first events, if they come at all.
    async fn begin(raw: Raw, wish: Wish) -> Watcher {
        let path = match wish.namespace {
            Some(at) => format!("/api/v1/namespaces/{}/configmaps", NAMESPACES[at]),
            None => "/api/v1/configmaps".to_owned(),
        };
        let list = raw.get(&format!("{path}?limit=0{}", wish.selector)).await;
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let state = state_of(&list);
        let mut watcher = Watcher { path, wish, state, revision, history: Vec::new() };
        let mut events = watcher.events(&raw).await;
        let patience = Duration::from_millis(20);
        for _ in 0..watcher.wish.after {
            // None for a while: the rest is seen after the restart.
            let Ok(Some(event)) = tokio::time::timeout(patience, events.next()).await else {
                break;
            };
            watcher.see(&event);
        }
        watcher
    }

    /// Goes on from the last event until one that is made to end it, and looks back.
    async fn finish(mut self, raw: Raw, end: String) {
        let mut events = self.events(&raw).await;
        let last = self.last(&raw, &end).await;
        while self.revision != last {
            let event = tokio::time::timeout(LOST_AFTER, events.next()).await;
            let event = event.unwrap_or_else(|_| panic!("{:?} lost {last}", self.wish));
            self.see(&event.expect("the watch goes on"));
        }
        for (revision, state) in &self.history {
            let listed = exactly(&raw, &self.path, self.wish.selector, revision).await;
            assert_eq!(*state, listed, "{:?} at {revision}", self.wish);
        }
    }

    async fn events(&self, raw: &Raw) -> within::Events {
        let Watcher { path, wish, revision, .. } = self;
        let path = format!("{path}?watch=1&resourceVersion={revision}{}", wish.selector);
        raw.watch(&path).await
    }

    /// Writes something that this watcher must see; the answer is its revision.
    async fn last(&self, raw: &Raw, end: &str) -> String {
        let namespace = NAMESPACES[self.wish.namespace.unwrap_or(0)];
        let by_name = self.wish.selector.ends_with("m1");
        let labelled = self.wish.selector.contains("a%3Dx") || self.wish.selector.contains("in");
        let labels = if labelled { json!({"a": "x"}) } else { json!({}) };
        let name = if by_name { "m1" } else { end };
        let map = json!({"metadata": {"name": name, "labels": labels}, "data": {"end": end}});
        let all = format!("/api/v1/namespaces/{namespace}/configmaps");
        loop {
            let (code, made) = match raw.send("POST", &all, JSON, &map).await {
                (409, _) => {
                    let patch = json!({"data": {"end": end}});
                    raw.send("PATCH", &format!("{all}/{name}"), MERGE, &patch).await
                }
                answer => answer,
            };
            // Writers may delete it between the two.
            if code != 404 {
                return made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            }
        }
    }

    fn see(&mut self, event: &Value) {
        let object = &event["object"];
        let key = key(object);
        let was_there = self.state.contains_key(&key);
        let revision = object["metadata"]["resourceVersion"].as_str().unwrap();
        let number = |text: &str| text.parse::<u64>().unwrap();
        assert!(number(revision) > number(&self.revision), "events come once, in order: {event}");
        match event["type"].as_str().unwrap() {
            "ADDED" if !was_there => self.state.insert(key, object.clone()),
            "MODIFIED" if was_there => self.state.insert(key, object.clone()),
            "DELETED" if was_there => self.state.remove(&key),
            _ => panic!("it was{} there: {event}", if was_there { "" } else { " not" }),
        };
        revision.clone_into(&mut self.revision);
        self.history.push((self.revision.clone(), self.state.clone()));
    }
}
