//! Generates the gRPC code from `proto/`, with protox in place of protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const FILES: [&str; 2] = ["reprise/v1/restore.proto", "google/rpc/error_details.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);
    // Served by reflection, so that clients need no copy of the file.
    fs::write(out.join("reprise.bin"), compiler.encode_file_descriptor_set())?;
    // BTreeMap keeps maps in one order on the wire, so that the same value always gives the same bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
