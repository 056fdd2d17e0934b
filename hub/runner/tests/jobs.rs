//! Jobs through the whole runner, over the embedded API, with sandboxed processes.

#[path = "jobs/cases.rs"]
mod cases;
#[path = "jobs/rig.rs"]
mod rig;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = muster_runner::sandbox_entry() {
        return code;
    }
    let mut args = std::env::args().skip(1).peekable();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match args.peek().map(String::as_str) {
        Some("hub") => runtime.block_on(rig::serve_as_hub(args.nth(1).unwrap().into())),
        _ => {
            let filter: Vec<String> = args.filter(|arg| !arg.starts_with('-')).collect();
            ExitCode::from(u8::from(runtime.block_on(cases::run(&filter)) > 0))
        }
    }
}
