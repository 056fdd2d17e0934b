//! What the hub says when it is ready: to people, or to scripts.

use std::{
    io::{Write as _, stdout},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    pub(crate) api: SocketAddr,
    pub(crate) agents: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) data_dir: &'a Path,
    pub(crate) executor: String,
}

/// Prints it, once.
pub(crate) fn ready(ready: &Ready<'_>, print_json: bool) -> anyhow::Result<()> {
    let text = if print_json { as_json(ready) } else { as_text(ready) };
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

fn as_json(ready: &Ready<'_>) -> String {
    json!({
        "api": format!("https://{}", ready.api),
        "agents": ready.agents,
        "kubeconfig": ready.kubeconfig,
        "dataDir": ready.data_dir,
        "executor": ready.executor,
        "pid": std::process::id(),
    })
    .to_string()
}

fn as_text(ready: &Ready<'_>) -> String {
    let kubeconfig = ready.kubeconfig.display();
    format!(
        "Muster hub {version} is ready\n\
         \x20 API         https://{api}\n\
         \x20 agents      {agents}\n\
         \x20 kubeconfig  {kubeconfig}\n\
         \x20 data        {data}\n\
         \x20 pipelines   {executor}\n\
         Try: kubectl --kubeconfig {kubeconfig} get kratix",
        version = env!("CARGO_PKG_VERSION"),
        api = ready.api,
        agents = ready.agents,
        data = ready.data_dir.display(),
        executor = ready.executor,
    )
}
