//! Makes the requests that pipelines put out, and takes them away again, for the reconciler of the
//! object that they are made for: nobody else writes them.

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::DynamicObject,
};
use muster_api::{Promise, Work};
use muster_core::Waiting;
use muster_plan::{
    children::{self, Child, Family, Member, Move, Phase, Wanted},
    promise::RequestApi,
    workflow::Subject,
};
use serde_json::{Map, Value, json};

use crate::objects::{self, Failed, is_absent, is_conflict, is_leaving};

/// Who owns the fields that were put out.
const FIELD_MANAGER: &str = "muster-children";
/// How often a child is looked at before its parent waits its turn again: others write it, too, and
/// never for long.
const LOOKS_MAX: usize = 4;

/// The hands of one reconciler, with its client.
#[derive(Clone)]
pub(crate) struct Children(Client);

impl Children {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Makes the children be as the parent's Works say; how they stand. One that the parent's status
    /// does not name yet is only told.
    pub(crate) async fn tend(
        &self,
        parent: &Subject,
        status: &Value,
        (works, pipelines): (&[Work], &[&str]),
    ) -> Result<Family, Failed> {
        let recorded = children::recorded(status);
        let wanted = children::wanted(parent, &recorded, works, pipelines);
        let mut family = Family::default();
        for wanted in &wanted {
            let child = &wanted.child;
            family.members.push(if child.phase == Phase::Refused {
                Member::absent(child.clone(), Phase::Refused, &child.message)
            } else if recorded.iter().any(|held| held.is_same(child)) {
                self.bring_about(parent, wanted).await?
            } else {
                Member::absent(child.clone(), Phase::Pending, "it is about to be made")
            });
        }
        for child in recorded {
            if !wanted.iter().any(|wanted| wanted.child.is_same(&child)) {
                family.members.extend(self.take_away(parent, child).await?);
            }
        }
        Ok(family)
    }

    /// Takes the children away, those of the last pipeline first: what came later was made on what
    /// was there. What is waited for; `None` when none are left.
    pub(crate) async fn remove(
        &self,
        parent: &Subject,
        status: &Value,
        pipelines: &[&str],
    ) -> Result<Option<Waiting>, Failed> {
        let mut recorded = children::recorded(status);
        let rank = |child: &Child| children::rank(&child.pipeline, pipelines);
        recorded.sort_by_key(|child| std::cmp::Reverse(rank(child)));
        for of_one in recorded.chunk_by(|a, b| rank(a) == rank(b)) {
            let mut left = Family::default();
            for child in of_one {
                left.members.extend(self.take_away(parent, child.clone()).await?);
            }
            if let Some(waiting) = left.waiting() {
                return Ok(Some(waiting));
            }
        }
        Ok(None)
    }

    /// Makes a child be as wanted; looks again when somebody was there between look and write.
    async fn bring_about(&self, parent: &Subject, wanted: &Wanted) -> Result<Member, Failed> {
        let mut looks = LOOKS_MAX;
        loop {
            looks -= 1;
            match self.bring_about_once(parent, wanted).await {
                Err(failed) if failed.is_overtaken() && looks > 0 => {}
                done => return done,
            }
        }
    }

    async fn bring_about_once(&self, parent: &Subject, wanted: &Wanted) -> Result<Member, Failed> {
        let child = &wanted.child;
        let live = self.find(child).await?;
        let value = live.as_ref().map(|live| json!(live)).unwrap_or_default();
        let next = children::next(wanted, live.as_ref().map(|_| &value), parent);
        match next {
            Move::Foreign => {
                let why = children::foreign(child, &value);
                return Ok(Member::absent(child.clone(), Phase::Refused, why));
            }
            Move::Keep | Move::Await => return Ok(Member::seen(child.clone(), &value)),
            Move::Create | Move::Update => {}
        }
        if let Some(why) = children::unoffered(child, self.offered(child).await?.as_ref()) {
            return Ok(Member::absent(child.clone(), Phase::Pending, why));
        }
        let made = match live {
            None => self.create(wanted).await,
            Some(live) => self.update(wanted, live, &value).await,
        };
        match made {
            Ok(live) => Ok(Member::seen(child.clone(), &json!(live))),
            Err(failed) => match failed.answer() {
                Some(why) if failed.refusal().is_some() => {
                    Ok(Member::absent(child.clone(), Phase::Refused, why))
                }
                _ => Err(failed),
            },
        }
    }

    /// Makes it, if there is none: never of what somebody else made meanwhile.
    async fn create(&self, Wanted { child, manifest }: &Wanted) -> Result<DynamicObject, Failed> {
        let failed = || Failed::to(format!("make {}", child.title()));
        let object = serde_json::from_value(manifest.clone());
        let object: DynamicObject = object.map_err(kube::Error::SerdeError).map_err(failed())?;
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.api(child).create(&params, &object).await.map_err(failed())
    }

    /// Changes it, if it still is what was seen. What was put out is the parent's: who changed it is
    /// overruled.
    async fn update(
        &self,
        Wanted { child, manifest }: &Wanted,
        mut live: DynamicObject,
        value: &Value,
    ) -> Result<DynamicObject, Failed> {
        let failed = || Failed::to(format!("change {}", child.title()));
        let api = self.api(child);
        if let Some(fields) = children::as_applied(value, FIELD_MANAGER) {
            let metadata = Map::from_iter([("managedFields".to_owned(), fields)]);
            live = objects::patch_metadata(&api, &live, metadata).await?;
        }
        let mut manifest = manifest.clone();
        manifest["metadata"]["uid"] = json!(live.metadata.uid);
        manifest["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&child.name, &params, &Patch::Apply(&manifest)).await.map_err(failed())
    }

    /// Removes what is the parent's; nothing, if it is gone, or somebody else's.
    async fn take_away(&self, parent: &Subject, child: Child) -> Result<Option<Member>, Failed> {
        let Some(live) = self.find(&child).await? else { return Ok(None) };
        if !children::is_own(&json!(live), parent, &child.uid) {
            return Ok(None);
        }
        if !is_leaving(&live.metadata) {
            // It, and not one that took its name meanwhile.
            let preconditions = Preconditions { uid: live.uid(), resource_version: None };
            let params =
                DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            match self.api(&child).delete(&child.name, &params).await {
                Ok(_) => {}
                Err(error) if is_absent(&error) || is_conflict(&error) => {}
                Err(error) => {
                    return Err(Failed::to(format!("delete {}", child.title()))(error));
                }
            }
        }
        let left = self.find(&child).await?.filter(|left| left.uid() == live.uid());
        Ok(left.map(|_| Member::absent(child, Phase::Removing, "it is being removed")))
    }

    async fn find(&self, child: &Child) -> Result<Option<DynamicObject>, Failed> {
        find(&self.0, child).await
    }

    /// What the Promise that it is a request of offers, if there is one that stays.
    async fn offered(&self, child: &Child) -> Result<Option<RequestApi>, Failed> {
        let promises: Api<Promise> = Api::all(self.0.clone());
        let found = promises.get_opt(&child.promise).await;
        let found = found.map_err(Failed::to(format!("read Promise {}", child.promise)))?;
        let staying = found.filter(|found| !is_leaving(&found.metadata));
        Ok(staying.and_then(|promise| RequestApi::read(promise.spec.api.as_ref()?).ok()))
    }

    fn api(&self, child: &Child) -> Api<DynamicObject> {
        api(&self.0, child)
    }
}

/// A child as it is.
pub(crate) async fn find(client: &Client, child: &Child) -> Result<Option<DynamicObject>, Failed> {
    let found = api(client, child).get_opt(&child.name).await;
    found.map_err(Failed::to(format!("read {} in {}", child.title(), child.namespace)))
}

fn api(client: &Client, child: &Child) -> Api<DynamicObject> {
    let Child { api_version, kind, resource, namespace, .. } = child;
    objects::dynamic_plural(client, api_version, (kind, resource), Some(namespace))
}
