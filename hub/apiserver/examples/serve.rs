//! The API server alone, for trying other people's clients and suites against it:
//! `cargo run -p muster-apiserver --example serve -- DIRECTORY [ADDRESS]`. It writes
//! `DIRECTORY/admin.kubeconfig`, prints its address, and serves until it is killed.

use std::path::PathBuf;

use muster_apiserver::{ApiServer, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("say in which directory its data is")?);
    let listener = TcpListener::bind(args.next().as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = listener.local_addr()?;
    let api = ApiServer::open(Config::new(&dir)).await?;
    api.write_admin_kubeconfig(&dir.join("admin.kubeconfig"), address)?;
    println!("https://{address}");
    api.serve(listener, CancellationToken::new()).await;
    Ok(())
}
