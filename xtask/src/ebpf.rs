//! `build-ebpf`: compiles `weft-ebpf` for the kernel and leaves the object where `weft-datapath` embeds it.

use anyhow::{Context, Result, bail};
use std::path::Path;

use crate::setup;
use crate::workspace::{Workspace, run as run_command};

const TARGET: &str = "bpfel-unknown-none";
/// The verifier takes what this profile makes, whatever profile a user's own cargo configuration asks for. One
/// codegen unit is what rustc makes of small crates by itself.
const PROFILE: [&str; 4] = [
    "profile.release.opt-level=3",
    "profile.release.codegen-units=1",
    "profile.release.incremental=false",
    "profile.release.package.\"*\".opt-level=3",
];

#[derive(clap::Args)]
pub struct Args {
    /// Accepted as cargo does; changes nothing: the verifier takes only optimised programs, so they always are
    #[arg(long)]
    release: bool,
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let Args { release: _ } = args;
    build(ws)?;
    eprintln!("build-ebpf: {}", ws.ebpf_object().display());
    Ok(())
}

/// Installs what the build needs, builds, and rewrites the object only when it differs: everything that embeds
/// it would be built again.
pub fn build(ws: &Workspace) -> Result<()> {
    setup::need(setup::BUILD, false)?;
    let linker = setup::linker_path()?;
    let target_dir = ws.target.join("bpf");
    let mut cargo = ws.cargo(["build", "--release", "--package", "weft-ebpf"]);
    cargo
        .args(["-Z", "build-std=core", "--target", TARGET])
        .args(PROFILE.iter().flat_map(|line| ["--config", line]))
        .env("CARGO_TARGET_DIR", &target_dir)
        // Nightly features of cargo and rustc, for this crate alone.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env(
            "RUSTFLAGS",
            format!(
                "-C debuginfo=2 -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order -C linker={}",
                linker.display()
            ),
        );
    run_command(&mut cargo)?;
    let built = target_dir.join(TARGET).join("release/weft-ebpf");
    let object =
        std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    check(&object).with_context(|| built.display().to_string())?;
    replace_if_different(&ws.ebpf_object(), &object)
}

/// Looks for the sections that loader and kernel depend on, by name: the string table may hold `.BTF` as the end
/// of `.rel.BTF`, and there is no such section without the other.
fn check(object: &[u8]) -> Result<()> {
    for section in [&b".BTF\0"[..], &b"license\0"[..]] {
        if !object
            .windows(section.len())
            .any(|window| window == section)
        {
            let name = String::from_utf8_lossy(section);
            bail!("the object has no section {}", name.trim_matches('\0'));
        }
    }
    Ok(())
}

fn replace_if_different(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    // By way of a rename: a build that runs meanwhile embeds the old object or the new one.
    let new = path.with_extension("o.new");
    std::fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_without_btf_is_refused() {
        assert!(check(b"..\0.BTF\0.text\0license\0..").is_ok());
        let error = check(b"..\0.BTF.ext\0license\0..").unwrap_err();
        assert_eq!(error.to_string(), "the object has no section .BTF");
    }

    #[test]
    fn an_equal_object_keeps_its_time() {
        let path = std::env::temp_dir().join(format!("weft-xtask-{}.o", std::process::id()));
        replace_if_different(&path, b"one").unwrap();
        let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
        let before = modified(&path);
        replace_if_different(&path, b"one").unwrap();
        assert_eq!(modified(&path), before);
        replace_if_different(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        std::fs::remove_file(&path).unwrap();
    }
}
