//! "Not yet", as a value: why something has not happened, rendered to words in one place.

/// Why a Promise, request, Work or placement is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// No destination has the labels.
    NoMatchingDestination {
        /// The selector, in words.
        selector: String,
    },
    /// The only destinations that have the labels are being drained.
    OnlyDraining {
        /// The selector, in words.
        selector: String,
        /// One of them.
        destination: String,
    },
    /// It is on its way from one destination to another.
    Moving {
        /// Where it is.
        from: String,
        /// Where it goes.
        to: String,
        /// What the new destination waits for.
        cause: String,
    },
    /// It shall leave a destination, and no other one is there to take it.
    NowhereToMove {
        /// Where it is.
        destination: String,
        /// The selector, in words.
        selector: String,
    },
    /// A destination matches, and the placement is being made.
    NotYetPlaced,
    /// A pipeline has not ended.
    PipelineRunning {
        /// The pipeline's name.
        pipeline: String,
    },
    /// A try of a pipeline failed, and there will be another.
    PipelineFailing {
        /// The pipeline's name.
        pipeline: String,
        /// Which try, and how it failed.
        cause: String,
    },
    /// The API refuses what a pipeline needs to begin; it is tried again.
    PipelineRefused {
        /// The pipeline's name.
        pipeline: String,
        /// What was to be done, and the API's words.
        cause: String,
    },
    /// A pipeline asked to wait.
    PipelineSuspended {
        /// The pipeline's name.
        pipeline: String,
    },
    /// The pipeline's image cannot be run here.
    ImageNotRunnable {
        /// The pipeline's name.
        pipeline: String,
        /// What the runner says: the image, and what to install.
        cause: String,
    },
    /// The destination's agent is not connected.
    AgentOffline {
        /// The destination.
        destination: String,
        /// Since when (RFC 3339); `None` when it has never been connected.
        since: Option<String>,
    },
    /// The agent has not reported that it applied the current files.
    NotYetApplied {
        /// The destination.
        destination: String,
    },
    /// The files are not in the destination's state store yet.
    NotYetWritten {
        /// The destination.
        destination: String,
    },
    /// The files need an applier that the agent does not have.
    NeedsApplier {
        /// The destination.
        destination: String,
        /// The applier: `kubernetes`, `terraform`, `shell`.
        applier: String,
    },
    /// Files are being removed from a destination.
    Removing {
        /// The destination.
        destination: String,
    },
    /// A request that one of its pipelines put out is not reconciled.
    ChildNotReady {
        /// The child: its kind and name.
        child: String,
        /// What the child says.
        cause: String,
    },
    /// Such a request has failed.
    ChildFailed {
        /// The child.
        child: String,
        /// What the child says.
        cause: String,
    },
    /// Such a request cannot be made.
    ChildRefused {
        /// The child.
        child: String,
        /// Why, and what to do.
        cause: String,
    },
    /// Such a request is being removed.
    RemovingChild {
        /// The child.
        child: String,
    },
    /// The Promise cannot fulfil requests.
    PromiseUnavailable {
        /// The Promise.
        promise: String,
    },
    /// A request is bound to a version of its Promise that is not kept.
    RevisionMissing {
        /// The Promise.
        promise: String,
        /// The version.
        version: String,
        /// The request's binding.
        binding: String,
    },
    /// More than one binding is a request's.
    SeveralBindings {
        /// Their names.
        bindings: Vec<String>,
    },
    /// A request is not what the version of its Promise allows to which it is to move.
    DoesNotFit {
        /// The version.
        version: String,
        /// What the API says of it.
        cause: String,
    },
}

impl Waiting {
    /// The reason of a condition: one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoMatchingDestination { .. } => "NoMatchingDestination",
            Self::OnlyDraining { .. } => "OnlyDraining",
            Self::Moving { .. } => "Moving",
            Self::NowhereToMove { .. } => "NowhereToMove",
            Self::NotYetPlaced => "NotYetPlaced",
            Self::PipelineRunning { .. } => "PipelineRunning",
            Self::PipelineFailing { .. } => "PipelineFailing",
            Self::PipelineRefused { .. } => "PipelineRefused",
            Self::PipelineSuspended { .. } => "PipelineSuspended",
            Self::ImageNotRunnable { .. } => "ImageNotRunnable",
            Self::AgentOffline { .. } => "AgentOffline",
            Self::NotYetApplied { .. } => "NotYetApplied",
            Self::NotYetWritten { .. } => "NotYetWritten",
            Self::NeedsApplier { .. } => "NeedsApplier",
            Self::Removing { .. } => "Removing",
            Self::ChildNotReady { .. } => "ChildNotReady",
            Self::ChildFailed { .. } => "ChildFailed",
            Self::ChildRefused { .. } => "ChildRefused",
            Self::RemovingChild { .. } => "RemovingChild",
            Self::PromiseUnavailable { .. } => "PromiseUnavailable",
            Self::RevisionMissing { .. } => "PromiseRevisionNotFound",
            Self::SeveralBindings { .. } => "SeveralResourceBindings",
            Self::DoesNotFit { .. } => "RequestDoesNotFit",
        }
    }

    /// The message of a condition: one sentence that names the object, the cause and the cure.
    pub fn message(&self) -> String {
        match self {
            Self::NoMatchingDestination { selector } => format!(
                "no destination matches {selector}: add a destination with these labels, \
                 or label one (kubectl get destinations --show-labels)"
            ),
            Self::OnlyDraining { selector, destination } => format!(
                "of the destinations that match {selector}, none takes requests: {destination} is \
                 being drained (muster destinations drain {destination} --undo), or add another \
                 one with these labels"
            ),
            Self::Moving { from, to, cause } => {
                format!("moving from destination {from} to {to}: {cause}; then {from} is cleared")
            }
            Self::NowhereToMove { destination, selector } => format!(
                "it stays on destination {destination}, which it shall leave, because no other one \
                 matches {selector}: add or label another one"
            ),
            Self::NotYetPlaced => "a destination is being chosen".to_owned(),
            Self::PipelineRunning { pipeline } => format!("pipeline {pipeline} is running"),
            Self::PipelineFailing { pipeline, cause } => format!("pipeline {pipeline}: {cause}"),
            Self::PipelineRefused { pipeline, cause } => {
                format!("pipeline {pipeline} cannot begin: {cause}; it is tried again by itself")
            }
            Self::PipelineSuspended { pipeline } => format!(
                "pipeline {pipeline} asked to wait: remove the label \
                 kratix.io/workflow-suspended to go on"
            ),
            Self::ImageNotRunnable { pipeline, cause } => {
                format!("pipeline {pipeline} cannot run: {cause}")
            }
            Self::AgentOffline { destination, since } => {
                let since = match since {
                    Some(since) => format!("offline since {since}"),
                    None => "not connected yet".to_owned(),
                };
                format!(
                    "the agent of destination {destination} is {since}: start it, or give it up \
                     with: muster agents remove {destination} --abandon"
                )
            }
            Self::NotYetApplied { destination } => {
                format!("destination {destination} has not yet reported the files as applied")
            }
            Self::NotYetWritten { destination } => format!(
                "the files are not yet written to the state store of destination {destination}"
            ),
            Self::NeedsApplier { destination, applier } => format!(
                "destination {destination} has no {applier} applier: enable it in the agent's \
                 policy file and restart the agent, or choose another destination by label"
            ),
            Self::Removing { destination } => {
                format!("files are being removed from destination {destination}")
            }
            Self::ChildNotReady { child, cause } => format!("waiting for {child}: {cause}"),
            Self::ChildFailed { child, cause } => format!("{child} failed: {cause}"),
            Self::ChildRefused { child, cause } => format!("{child} cannot be made: {cause}"),
            Self::RemovingChild { child } => format!("{child} is being removed"),
            Self::PromiseUnavailable { promise } => format!(
                "promise {promise} cannot fulfil requests yet: kubectl describe promise {promise}"
            ),
            Self::RevisionMissing { promise, version, binding } => format!(
                "promise {promise} has no revision of version {version} (kubectl get \
                 promiserevisions): set spec.version of ResourceBinding {binding} to one that it \
                 has, or to latest"
            ),
            Self::SeveralBindings { bindings } => format!(
                "{} ResourceBindings have this request's labels: delete all but one of {}",
                bindings.len(),
                bindings.join(", ")
            ),
            Self::DoesNotFit { version, cause } => format!(
                "the request is not as version {version} of its promise asks, and stays as it is: \
                 {cause}: change the request, or bind it to another version"
            ),
        }
    }
}
