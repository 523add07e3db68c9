//! The initramfs of a kernel under test: busybox, the suites and the product, the tools that scenarios run with their
//! libraries, and the kernel's modules. Debian's cloud kernels have no file system that could show them the machine's.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::debs::Kernel;
use crate::workspace::stdout;

const INIT: &str = include_str!("init.sh");
/// What scenarios and harness run.
const TOOLS: [&str; 13] = [
    "arping", "bpftool", "dumpcap", "ethtool", "ip", "iperf3", "ping", "setarch", "sleep", "tc",
    "tcpdump", "true", "tshark",
];
/// What programs, harness and scenarios need of the kernel.
const MODULES: [&str; 8] = [
    "bridge",
    "cls_bpf",
    "cls_u32",
    "dummy",
    "overlay",
    "sch_ingress",
    "tun",
    "veth",
];

/// A program for the initramfs: where it is, and its name there.
pub type Program = (PathBuf, &'static str);

/// Writes the part that is the same for all kernels.
///
/// # Errors
/// When a tool isn't installed.
pub fn base(folder: &Path, programs: &[Program], scenarios: &[String]) -> Result<PathBuf> {
    let root = empty(folder, "root")?;
    for name in [
        "bin", "busybox", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr",
    ] {
        std::fs::create_dir(root.join(name))?;
    }
    // tcpdump looks up the user that it is to stay.
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for name in ["usr/bin", "usr/sbin", "sbin"] {
        std::os::unix::fs::symlink("/bin", root.join(name))?;
    }
    let mut libraries = BTreeSet::new();
    let mut add = |from: &Path, name: &str| {
        copy(from, &root.join("bin").join(name))?;
        libraries.extend(libraries_of(from));
        anyhow::Ok(())
    };
    add(&find("busybox")?, "busybox")?;
    for tool in TOOLS {
        add(&find(tool)?, tool)?;
    }
    for (from, name) in programs {
        add(from, name)?;
    }
    for library in libraries {
        let to = root.join(library.strip_prefix("/")?);
        std::fs::create_dir_all(to.parent().context("a library in no folder")?)?;
        copy(&library, &to)?;
    }
    let init = root.join("init");
    std::fs::write(&init, INIT)?;
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::write(root.join("scenarios"), scenarios.join("\n"))?;
    archive(&root, &folder.join("base.cpio"))
}

/// Writes a kernel's initramfs: the base and its own modules, one archive behind the other.
///
/// # Errors
/// When the kernel lacks a module.
pub fn with_modules(folder: &Path, base: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = empty(folder, kernel.name)?;
    let modules = root.join("modules");
    std::fs::create_dir(&modules)?;
    let mut order = Vec::new();
    for module in MODULES {
        for path in kernel.modules_for(module)? {
            let name = path.file_name().context("a module without a name")?;
            let name = name.to_string_lossy().replace(".xz", "");
            if order.contains(&name) {
                continue;
            }
            let plain = modules.join(&name);
            if path.extension().is_some_and(|extension| extension == "xz") {
                let unpack = Command::new("xz").arg("-dc").arg(&path).output()?;
                anyhow::ensure!(unpack.status.success(), "xz can't read {}", path.display());
                std::fs::write(&plain, unpack.stdout)?;
            } else {
                copy(&path, &plain)?;
            }
            order.push(name);
        }
    }
    std::fs::write(modules.join("order"), order.join("\n") + "\n")?;
    let own = archive(&root, &folder.join(format!("{}.modules.cpio", kernel.name)))?;
    let whole = folder.join(format!("{}.cpio", kernel.name));
    copy(base, &whole)?;
    let mut file = std::fs::File::options().append(true).open(&whole)?;
    std::io::copy(&mut std::fs::File::open(own)?, &mut file)?;
    Ok(whole)
}

/// A folder with nothing in it.
fn empty(parent: &Path, name: &str) -> Result<PathBuf> {
    let folder = parent.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = std::fs::copy(from, to);
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// A program in `PATH`, or where only root's `PATH` leads.
fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut places = folders.map(|folder| folder.join(name));
    let found = places.find(|place| place.is_file());
    found.with_context(|| format!("{name} isn't installed: run `cargo xtask setup`"))
}

/// The libraries that a program is linked to; none for a static one.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let Ok(shown) = stdout(Command::new("ldd").arg(program)) else {
        return Vec::new();
    };
    let words = shown.split_whitespace();
    let paths = words.filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// Packs a folder into a cpio archive, which is what a kernel unpacks.
fn archive(root: &Path, to: &Path) -> Result<PathBuf> {
    let names = stdout(Command::new("find").arg(".").current_dir(root))?;
    let file = std::fs::File::create(to)?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=+0:+0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .context("cannot run cpio")?;
    let mut input = cpio.stdin.take().context("cpio has no input")?;
    std::io::Write::write_all(&mut input, names.as_bytes())?;
    drop(input);
    anyhow::ensure!(cpio.wait()?.success(), "cpio can't write {}", to.display());
    Ok(to.to_path_buf())
}
