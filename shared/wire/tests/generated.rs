//! The committed code is the one that the `.proto` gives: made again here, and compared.
//!
//! After a change of the contract: `MUSTER_REGENERATE=1 cargo test -p muster-wire --test generated`.

use std::{fs, path::Path};

const FILE: &str = "muster.link.v1.rs";

#[test]
fn committed_code_is_what_the_contract_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = root.join("proto/muster/link/v1/link.proto");
    let descriptors = protox::compile([contract], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".muster.link.v1.ContentChunk.data")
        .bytes(".muster.link.v1.AssignmentDocument.document")
        .skip_debug([".muster.link.v1.EnrolRequest"])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let made = fs::read_to_string(out.path().join(FILE)).unwrap();
    let committed = root.join("src/gen").join(FILE);
    if std::env::var_os("MUSTER_REGENERATE").is_some() {
        fs::write(&committed, &made).unwrap();
    }
    let committed = fs::read_to_string(committed).unwrap_or_default();
    assert!(made == committed, "link.proto has changed: make the code again (see above)");
}
