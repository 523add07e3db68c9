//! Finds the kernel programs' object for `include_bytes!`. It is built by `cargo xtask build-ebpf`.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=WEFT_EBPF_OBJECT");
    let object = env::var_os("WEFT_EBPF_OBJECT").map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!(
            "cargo::error=the kernel programs are not built: {} is missing; run `cargo xtask build-ebpf` first",
            object.display()
        );
        return;
    }
    println!("cargo::rustc-env=WEFT_EBPF_OBJECT={}", object.display());
}

/// Where `cargo xtask build-ebpf` leaves the object: `weft-ebpf.o` in the workspace's target folder.
fn default_object() -> PathBuf {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let workspace = manifest
        .ancestors()
        .nth(2)
        .map_or_else(|| manifest.clone(), PathBuf::from);
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    target.join("weft-ebpf.o")
}
