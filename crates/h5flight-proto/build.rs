//! Generates messages, services and the descriptor set for reflection from `proto/`, without an installed protoc.

use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let files = ["h5flight/v1/data.proto", "h5flight/v1/ticket.proto"].map(|file| root.join(file));
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(files, [&root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".arrow.flight.protocol", "::arrow_flight")
        .bytes(".h5flight.v1.IngestRequest.data")
        .compile_fds(descriptors)?;
    Ok(())
}
