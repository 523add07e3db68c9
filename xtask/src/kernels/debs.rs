//! Debian's cloud kernels, unpacked into the cache; nothing is installed.
//!
//! A kernel's folder is `${XDG_CACHE_HOME:-~/.cache}/weft/kernels/NAME`, as the packages have it. It is looked for
//! again when it is a week old, and the old one serves when there is no newer one to be had.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::setup::TemporaryApt;
use crate::workspace::{cache_dir, stdout};

const METAPACKAGE: &str = "linux-image-cloud-amd64";
/// From Linux 7 the image, its modules and the file to boot are packages of their own.
const PARTS: [&str; 3] = ["linux-image-", "linux-modules-", "linux-binary-"];
/// The file whose age is that of the folder: dpkg-deb gives folders the package's times.
const FETCHED: &str = "fetched";
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A kernel of the matrix.
#[derive(Clone, Copy)]
pub struct Series {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The suite of Debian whose cloud kernel it is.
    suite: &'static str,
}

/// Oldest first.
pub const MATRIX: [Series; 3] = [
    Series {
        name: "6.1",
        suite: "bookworm",
    },
    Series {
        name: "6.12",
        suite: "trixie",
    },
    Series {
        name: "newest",
        suite: "trixie-backports",
    },
];

/// A kernel that is unpacked.
pub struct Kernel {
    /// Its name in the matrix.
    pub name: &'static str,
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The file to boot.
    pub image: PathBuf,
    /// The folder with `lib/modules/RELEASE`.
    pub root: PathBuf,
}

/// Makes all of these present.
///
/// # Errors
/// One error with the reason of each that can't be had.
pub fn fetch(wanted: &[Series]) -> Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    let mut reasons = String::new();
    for series in wanted {
        match series.fetch() {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => {
                let Series { name, suite } = series;
                reasons += &format!("\n  * {name} (Debian's {suite}): {error:#}");
            }
        }
    }
    if !reasons.is_empty() {
        bail!("not every kernel could be had:{reasons}");
    }
    Ok(kernels)
}

impl Series {
    fn fetch(&self) -> Result<Kernel> {
        let folder = cache_dir()?.join("kernels").join(self.name);
        let cached = Kernel::find(self.name, &folder);
        let age = folder
            .join(FETCHED)
            .metadata()
            .and_then(|found| found.modified());
        let is_fresh = age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH));
        match (cached, is_fresh) {
            (Ok(kernel), true) => Ok(kernel),
            (Ok(kernel), false) => self.unpack(&folder).or_else(|error| {
                eprintln!("kernels: {} stays {}: {error:#}", self.name, kernel.release);
                Ok(kernel)
            }),
            (Err(_), _) => self.unpack(&folder),
        }
    }

    /// Downloads and unpacks beside the folder, and moves what is whole to its place.
    fn unpack(&self, folder: &Path) -> Result<Kernel> {
        let staging = folder.with_file_name(format!(".{}-{}", self.name, std::process::id()));
        let unpacked = self.unpack_into(&staging).and_then(|()| {
            Kernel::find(self.name, &staging.join("root"))?;
            if folder.exists() {
                std::fs::remove_dir_all(folder)?;
            }
            std::fs::rename(staging.join("root"), folder)?;
            Kernel::find(self.name, folder)
        });
        // What is left behind is in the way of nothing.
        let _ = std::fs::remove_dir_all(&staging);
        unpacked
    }

    fn unpack_into(&self, staging: &Path) -> Result<()> {
        eprintln!("kernels: fetching {} from {}", self.name, self.suite);
        let root = staging.join("root");
        std::fs::create_dir_all(&root)
            .with_context(|| format!("cannot make {}", root.display()))?;
        let apt = TemporaryApt::new(&staging.join("apt"), self.suite)?;
        let mut wanted = vec![METAPACKAGE.to_owned()];
        let mut next = 0;
        while let Some(package) = wanted.get(next).cloned() {
            for dependency in apt.dependencies(&package)? {
                let is_part = PARTS.iter().any(|part| dependency.starts_with(part));
                if is_part && !wanted.contains(&dependency) {
                    wanted.push(dependency);
                }
            }
            let deb = apt.download(&package)?;
            stdout(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
            next += 1;
        }
        // Later suites have no /lib of their own; depmod and modprobe look there.
        if !root.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
        }
        let release = Kernel::find(self.name, &root)?.release;
        stdout(Command::new("depmod").arg("-b").arg(&root).arg(&release))?;
        Ok(std::fs::write(root.join(FETCHED), release)?)
    }
}

impl Kernel {
    /// The files of a module and all that it needs, in the order in which they load; none for one that is built in.
    ///
    /// # Errors
    /// When the kernel hasn't the module.
    pub fn modules_for(&self, module: &str) -> Result<Vec<PathBuf>> {
        let shown = stdout(Command::new("modprobe").arg("-d").arg(&self.root).args([
            "-S",
            &self.release,
            "--show-depends",
            module,
        ]))?;
        // `insmod FILE OPTIONS`; the options are this machine's.
        let commands = shown
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "));
        let files = commands.filter_map(|command| command.split_whitespace().next());
        Ok(files.map(PathBuf::from).collect())
    }

    /// The kernel in an unpacked folder.
    fn find(name: &'static str, root: &Path) -> Result<Kernel> {
        let modules = root.join("lib/modules");
        let mut releases = std::fs::read_dir(&modules)
            .with_context(|| format!("cannot read {}", modules.display()))?;
        let release = releases.next().context("the packages hold no modules")??;
        let release = release.file_name().to_string_lossy().into_owned();
        let places = ["boot/vmlinuz-", "usr/lib/modules/"]
            .map(|place| root.join(format!("{place}{release}")));
        let [in_boot, in_modules] = places;
        let image = [in_boot, in_modules.join("vmlinuz")];
        let image = image.into_iter().find(|image| image.is_file());
        Ok(Kernel {
            name,
            release,
            image: image.context("the packages hold no vmlinuz")?,
            root: root.to_path_buf(),
        })
    }
}
