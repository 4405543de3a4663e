//! Compiles the protocol's definitions, without `protoc`: messages, and their descriptors for the JSON.

use std::path::PathBuf;

use protox::prost::Message as _;

/// Each API has a file; the first has what all of them share.
const FILES: [&str; 7] = [
    "mesos.proto",
    "scheduler.proto",
    "master.proto",
    "agent.proto",
    "maintenance.proto",
    "quota.proto",
    "executor.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut descriptors = protox::compile(FILES, ["proto"])?;
    for file in &mut descriptors.file {
        // Comments: nobody reads them there.
        file.source_code_info = None;
    }
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .enable_type_names()
        .include_file("messages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
