//! What the hub says when it is ready: to people, or to scripts.

use std::{
    io::{Write as _, stdout},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::args::HubArgs;

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    pub(crate) api: SocketAddr,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) data_dir: &'a Path,
}

/// Prints it, once.
pub(crate) fn ready(ready: &Ready<'_>, args: &HubArgs) -> anyhow::Result<()> {
    let text = if args.print_json { as_json(ready) } else { as_text(ready) };
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

fn as_json(ready: &Ready<'_>) -> String {
    json!({
        "api": format!("https://{}", ready.api),
        "kubeconfig": ready.kubeconfig,
        "dataDir": ready.data_dir,
    })
    .to_string()
}

fn as_text(ready: &Ready<'_>) -> String {
    let kubeconfig = ready.kubeconfig.display();
    format!(
        "Muster hub {version} is ready\n\
         \x20 API          https://{api}\n\
         \x20 kubeconfig   {kubeconfig}\n\
         \x20 data         {data}\n\
         try            KUBECONFIG={kubeconfig} kubectl get kratix",
        version = env!("CARGO_PKG_VERSION"),
        api = ready.api,
        data = ready.data_dir.display(),
    )
}
