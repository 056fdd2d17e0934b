//! The way of a request out: its delete pipeline, its Works with all that is applied, its Jobs, its
//! binding; then it goes. Paused requests go, too.

use kube::{Api, ResourceExt};
use muster_plan::{
    names, rollup,
    workflow::{
        Action,
        engine::{JobSeen, JobState, Step},
        rerun,
    },
};
use serde_json::{Map, json};

use super::{Case, FINALIZERS, Requests};
use crate::{
    objects::{self, Failed, is_leaving},
    queue::Next,
};

impl Requests {
    /// Takes the removal as far as it goes now.
    pub(super) async fn remove(&self, case: &Case) -> Result<Next, Failed> {
        let held = case.request.finalizers();
        if !FINALIZERS.iter().any(|own| held.iter().any(|held| held == own)) {
            return Ok(Next::Change);
        }
        if let Some(next) = self.delete_pipeline(case).await? {
            return Ok(next);
        }
        let (status, names) = (&case.request.data["status"], case.pipelines());
        if let Some(waiting) = self.children.remove(&case.subject, status, &names).await? {
            let mut draft = case.draft();
            draft.removing(&waiting, None);
            self.write(case, draft).await?;
            return Ok(Next::Change);
        }
        if !self.works_are_gone(case).await? {
            return Ok(Next::Change);
        }
        self.workflow.delete_jobs(&case.subject).await?;
        self.delete_binding(case).await?;
        let kept: Vec<_> =
            held.iter().filter(|held| !FINALIZERS.contains(&held.as_str())).collect();
        let mut metadata = Map::new();
        metadata.insert("finalizers".to_owned(), json!(kept));
        objects::patch_metadata(&case.requests, &case.request, metadata).await?;
        Ok(Next::Change)
    }

    /// Runs the first delete pipeline, once no configure Job runs; says when to look again, or
    /// `None` when it is done. After a failure it runs again when someone asks, or when it or the
    /// request is changed.
    async fn delete_pipeline(&self, case: &Case) -> Result<Option<Next>, Failed> {
        let pipelines = case.offer.workflows.of(case.subject.scope, Action::Delete);
        let generation = case.generation().to_string();
        let spec = case.request.data["spec"].to_string();
        let inputs = [&case.subject.uid, &pipeline_hash(pipelines), &generation, &spec];
        let hash = names::fingerprint(&inputs.map(String::as_str));
        let mut wanted = case.wanted(Action::Delete, &hash);
        wanted.pipelines = &pipelines[..pipelines.len().min(1)];
        if wanted.pipelines.is_empty() {
            return Ok(None);
        }
        let jobs = self.workflow.jobs(&case.subject, Some(Action::Configure));
        if jobs.iter().any(|job| JobSeen::of(job).state == JobState::Running) {
            return Ok(Some(Next::Change));
        }
        if rerun::is_asked(&case.request.metadata) {
            self.workflow.restart(&case.requests, &wanted, case.now).await?;
            return Ok(Some(Next::Change));
        }
        let progress = self.workflow.advance(&wanted, case.now).await?;
        let mut draft = case.draft();
        draft.deleting(&progress, &wanted.names());
        self.write(case, draft).await?;
        let look = rerun::look_again_at(&progress.step, (None, None), case.now);
        Ok((progress.step != Step::Complete).then(|| Next::at(look, case.now)))
    }

    /// Deletes the request's Works and says what their removal waits for.
    async fn works_are_gone(&self, case: &Case) -> Result<bool, Failed> {
        let works = self.works(case);
        if works.is_empty() {
            return Ok(true);
        }
        let api: Api<muster_api::Work> = self.works_api(case);
        for work in works.iter().filter(|work| !is_leaving(&work.metadata)) {
            objects::delete(&api, &work.name_any()).await?;
        }
        let (placements, sites) = (self.placements(case), self.world.sites());
        let rolled = rollup::works(rollup::View {
            owner: rollup::Owner::Request,
            works: &[],
            placements: &placements,
            sites: &sites,
            now: case.now,
        });
        if let Some(waiting) = rollup::removal(&placements, &sites) {
            // What the API sees again after our own delete decides; this write may lose against
            // it, and the next look makes it again.
            let mut draft = case.draft();
            draft.removing(&waiting, Some(&rolled.placements));
            self.write(case, draft).await?;
        }
        Ok(self.works(case).is_empty())
    }
}

fn pipeline_hash(pipelines: &[muster_api::Pipeline]) -> String {
    let text = serde_json::to_string(pipelines).unwrap_or_default();
    names::fingerprint(&[&text])
}
