//! The embedded API and, where its programs are given, a real kube-apiserver beside it, measured
//! by one load generator in one run: `make bench-api`. It prints figures and asserts no time.
//!
//! Each server is a process of its own, reached over TLS with a client certificate, HTTP/1.1 kept
//! alive. Their disks are waited for. `MUSTER_KUBE_APISERVER` and `MUSTER_ETCD` name the real ones;
//! `MUSTER_HUB` a `muster`, of which only start and memory are told. Words on the command line
//! choose phases: `cargo bench -p muster-apiserver --bench api -- create get`.

mod client;
mod load;
mod phases;
mod servers;
mod table;

use anyhow::{Context as _, Result};

use phases::Plan;
use servers::{Embedded, Hub, Real, Server};
use table::Column;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir] = args.as_slice()
        && flag == servers::SERVE
    {
        return servers::serve(dir.as_ref());
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("api: benchmark");
        return Ok(());
    }
    // `cargo test` runs benches too: then a few of each, to see that everything still works.
    let measuring = args.iter().any(|arg| arg == "--bench");
    let plan = Plan::new(measuring, args.into_iter().filter(|arg| !arg.starts_with('-')).collect());
    // The load comes from one thread, so that it takes one core at most.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut columns = Vec::new();
    let outcome = runtime.block_on(run(&plan, &mut columns));
    // What was measured before something failed is worth seeing, too.
    print!("{}", table::render(&columns));
    outcome
}

async fn run(plan: &Plan, columns: &mut Vec<Column>) -> Result<()> {
    columns.push(measure::<Embedded>(plan).await?);
    if !plan.measuring {
        return Ok(());
    }
    match Real::is_given() {
        true => columns.push(measure::<Real>(plan).await?),
        false => eprintln!("no real one: MUSTER_KUBE_APISERVER and MUSTER_ETCD are not both set"),
    }
    if Hub::is_given() {
        let figures = phases::start::<Hub>(plan).await.context("muster hub")?;
        columns.push(Column { name: Hub::NAME, figures });
    }
    Ok(())
}

async fn measure<S: Server>(plan: &Plan) -> Result<Column> {
    eprintln!("measuring {} …", S::NAME);
    let figures = phases::all::<S>(plan).await.context(S::NAME)?;
    Ok(Column { name: S::NAME, figures })
}
