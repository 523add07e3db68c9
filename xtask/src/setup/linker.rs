//! bpf-linker in the cache folder, linked to the LLVM that rustc itself brings: the versions must match.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{cache_dir, cargo, run, sysroot};

const VERSION: &str = "0.13.0";
const LLVM_FEATURE: &str = "llvm-22";

/// Where the linker is (or will be): an absolute path, so that nobody's PATH matters.
pub fn path() -> Result<PathBuf> {
    Ok(cache_dir()?.join("bin/bpf-linker"))
}

pub fn plan() -> Result<Option<String>> {
    let path = path()?;
    if works(&path) {
        return Ok(None);
    }
    let root = cache_dir()?;
    Ok(Some(format!(
        "compile bpf-linker {VERSION} from crates.io into {} (about a minute)",
        root.display()
    )))
}

pub fn install() -> Result<()> {
    let root = cache_dir()?;
    let llvm = link_llvm(&root)?;
    // A linker that is there and doesn't run (a moved toolchain, say) is one that cargo would leave alone: --force.
    let mut install = cargo();
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            LLVM_FEATURE,
            "--root",
        ])
        .arg(&root)
        // From there, no project's .cargo/config.toml has a say.
        .current_dir(&root)
        .env("LLVM_PREFIX", &llvm)
        // Else cargo advises to put it there, and nothing needs that.
        .env("PATH", path_with(&root.join("bin"))?)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    run(&mut install).context("bpf-linker could not be built")?;
    let path = path()?;
    if !works(&path) {
        bail!(
            "{} was built, but doesn't run as version {VERSION}",
            path.display()
        );
    }
    Ok(())
}

fn path_with(folder: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([folder.to_path_buf()]);
    std::env::join_paths(folders).context("PATH cannot be extended")
}

fn works(path: &Path) -> bool {
    Command::new(path)
        .arg("--version")
        .output()
        .is_ok_and(|output| {
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains(VERSION)
        })
}

/// A folder that looks like an LLVM installation to bpf-linker's build; kept, for the binary's RUNPATH names it.
fn link_llvm(root: &Path) -> Result<PathBuf> {
    let prefix = root.join("llvm");
    let lib64 = prefix.join("lib64");
    std::fs::create_dir_all(&lib64).with_context(|| format!("cannot make {}", lib64.display()))?;
    let library = find_llvm(&sysroot()?.join("lib"))?;
    let soname = library.file_name().context("libLLVM has no name")?;
    for name in ["libLLVM.so".as_ref(), soname] {
        let link = lib64.join(name);
        if link.symlink_metadata().is_ok() {
            std::fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(&library, &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(prefix)
}

/// The toolchain's LLVM, whose exact file name holds LLVM's and Rust's versions.
fn find_llvm(lib: &Path) -> Result<PathBuf> {
    let entries =
        std::fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so."))
        })
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(library), true) => Ok(library),
        (None, _) => bail!(
            "no libLLVM.so.* in {}: is this a toolchain of rustup?",
            lib.display()
        ),
        (Some(_), false) => bail!("more than one libLLVM.so.* in {}", lib.display()),
    }
}
