//! The committed code is what the `.proto` files generate.
//!
//! `CASTWORK_REGENERATE=1 cargo test -p castwork-proto --test generated` writes it anew.

mod shapes;

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

const FILES: [&str; 14] = [
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "build/bazel/semver/semver.proto",
    "castwork/admin/v1/admin.proto",
    "castwork/runs/v1/runs.proto",
    "castwork/worker/v1/worker.proto",
    "google/bytestream/bytestream.proto",
    "google/longrunning/operations.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
];

#[test]
fn the_committed_code_is_what_the_proto_files_generate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = folder.join("src/generated");
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(&folder.join("api"), fresh.path());
    if env::var_os("CASTWORK_REGENERATE").is_some() {
        for name in names(fresh.path()) {
            fs::copy(fresh.path().join(&name), committed.join(&name)).expect("write generated code");
        }
    }
    assert_eq!(names(fresh.path()), names(&committed), "files in src/generated");
    for name in names(fresh.path()) {
        let same = fs::read(fresh.path().join(&name)).ok() == fs::read(committed.join(&name)).ok();
        assert!(
            same,
            "{} is stale: run CASTWORK_REGENERATE=1 cargo test -p castwork-proto --test generated",
            name.display()
        );
    }
}

fn generate(api: &Path, out: &Path) {
    let descriptors = protox::compile(FILES, [api]).expect("the .proto files compile");
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec()).expect("write descriptors");
    fs::write(out.join("shapes.rs"), shapes::code(&descriptors)).expect("write shapes");
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]).enable_type_names().type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .out_dir(out)
        .codec_path("crate::codec::Bounded")
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, config)
        .expect("code for the descriptors");
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder of generated code")
        .map(|entry| PathBuf::from(entry.expect("an entry").file_name()))
        .collect();
    names.sort();
    names
}
