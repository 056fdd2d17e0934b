//! `muster explain`: where an object stands, why here, why not there, and what to do.

use anyhow::{Result, bail};

use crate::args::{ClientArgs, ExplainArgs};

pub(crate) async fn run(args: &ExplainArgs, _client: &ClientArgs) -> Result<()> {
    bail!("muster explain {} {} is not served yet", args.kind, args.name)
}
