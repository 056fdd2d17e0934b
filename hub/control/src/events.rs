//! What happened, for people who `kubectl describe`: one Event for each change of state, never one
//! for each look.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use muster_plan::news::News;

use crate::queue::chain;

/// Longest note in bytes, as `events.k8s.io/v1` allows.
const NOTE_LEN_MAX: usize = 1024;

/// Tells of what happened.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
}

impl Events {
    /// Tells as this controller.
    pub(crate) fn new(client: Client, controller: &str) -> Self {
        Self { client, reporter: Reporter { controller: controller.to_owned(), instance: None } }
    }

    /// Something went as it should.
    pub(crate) async fn normal(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.tell(EventType::Normal, about, reason, note).await;
    }

    /// Something needs a person.
    pub(crate) async fn warning(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.tell(EventType::Warning, about, reason, note).await;
    }

    /// What is new of an object.
    pub(crate) async fn news(&self, about: &ObjectReference, news: &[News]) {
        for News { is_warning, reason, note } in news {
            match is_warning {
                true => self.warning(about, reason, note).await,
                false => self.normal(about, reason, note).await,
            }
        }
    }

    /// An event that cannot be written is lost: status says the same.
    async fn tell(&self, type_: EventType, about: &ObjectReference, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note[..note.floor_char_boundary(NOTE_LEN_MAX)].to_owned()),
            action: reason.to_owned(),
            secondary: None,
        };
        // A recorder that lives on keeps what it told for ten minutes, goes through all of it each
        // time, and counts another note for the same reason as a repetition of the first.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        if let Err(error) = recorder.publish(&event, about).await {
            tracing::debug!(reason, error = %chain(&error), "an event was lost");
        }
    }
}
