//! `muster-agent join`: the policy file, the token, the identity; then run.

use std::{
    fs,
    io::{Read as _, stdin},
    path::Path,
};

use anyhow::{Context as _, bail};
use muster_appliers::Policy;
use muster_daemon::durable;
use muster_link::{EnrolOptions, Identity, enrol};
use tracing::{info, warn};

use crate::{args::JoinArgs, run, state_dir::StateDir};

/// Longest token text: its name, a secret of 43 characters, and room.
const TOKEN_LEN_MAX: u64 = 1024;

/// Enrols, then runs.
pub(crate) async fn join(args: JoinArgs) -> anyhow::Result<()> {
    run::begin_log()?;
    let state = StateDir::open(args.run.state_dir.as_deref())?;
    let policy_file = run::policy_file(&args.run, &state);
    write_policy(&policy_file, &args.appliers, args.kubeconfig.as_deref())?;
    let policy = run::read_policy(&policy_file)?;
    become_agent(args, &state, &policy).await?;
    run::serve(state, policy, policy_file).await
}

/// Trades the token for an identity. A host that has joined before does so again, because its
/// certificate may have expired, or the hub may have removed it; where the token is only the one of
/// the first time, the host goes on as it is.
async fn become_agent(args: JoinArgs, state: &StateDir, policy: &Policy) -> anyhow::Result<()> {
    let JoinArgs { hub, ca_pin, token_file, .. } = args;
    let held = Identity::load(state.path())?;
    let token = match (read_token(&token_file), &held) {
        (Ok(token), _) => token,
        (Err(error), None) => return Err(error),
        (Err(_), Some(held)) => {
            info!(agent = %held.name(), "There is no token; this host has joined already");
            return Ok(());
        }
    };
    let (state_dir, facts) = (state.path().to_owned(), run::facts(policy));
    match (enrol(EnrolOptions { hub, ca_pin, token, state_dir, facts }).await, &held) {
        (Ok(identity), _) => info!(agent = %identity.name(), "Enrolled"),
        (Err(error), Some(held)) if error.leaves_identity() => {
            warn!(agent = %held.name(), %error, "This host has joined already, and goes on so");
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(())
}

/// Writes a policy file that enables these appliers; one that exists has the last word.
fn write_policy(path: &Path, appliers: &[String], kubeconfig: Option<&Path>) -> anyhow::Result<()> {
    if path.exists() {
        if !appliers.is_empty() {
            warn!(policy = %path.display(), "The policy file exists: --appliers changes nothing");
        }
        return Ok(());
    }
    let mut policy = Policy::enabling(appliers.iter().map(String::as_str))?;
    if let (Some(kubernetes), Some(file)) = (&mut policy.appliers.kubernetes, kubeconfig) {
        let file = file
            .canonicalize()
            .with_context(|| format!("--kubeconfig: cannot find {}", file.display()))?;
        kubernetes.kubeconfig = Some(file);
    }
    durable::write(path, policy.to_yaml().as_bytes())?;
    Ok(())
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let mut token = String::new();
    if file == Path::new("-") {
        stdin().take(TOKEN_LEN_MAX).read_to_string(&mut token).context("cannot read the token")?;
    } else {
        let opened = fs::File::open(file)
            .with_context(|| format!("--token-file: cannot read {}", file.display()))?;
        opened.take(TOKEN_LEN_MAX).read_to_string(&mut token).context("cannot read the token")?;
    }
    let token = token.trim().to_owned();
    if token.is_empty() {
        bail!(
            "there is no token in {}: make one with muster agents token create NAME, and run the \
             command that it prints",
            file.display()
        );
    }
    Ok(token)
}
