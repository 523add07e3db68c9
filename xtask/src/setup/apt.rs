//! Single packages of another Debian suite, by apt itself but beside the machine's own apt.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::stdout;

const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with a source list, lists and cache of its own: the machine's configuration is neither used nor changed.
pub struct TemporaryApt {
    folder: PathBuf,
    options: Vec<OsString>,
}

impl TemporaryApt {
    /// Reads the lists of one suite of Debian, from the mirror that apt is configured with. The lists' signatures are
    /// checked by apt, and with them the checksum of what is downloaded.
    ///
    /// # Errors
    /// When this is no Debian, or the suite can't be had.
    pub fn new(folder: &Path, suite: &str) -> Result<Self> {
        std::fs::create_dir_all(folder.join("lists/partial"))?;
        std::fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let sources = folder.join("suite.sources");
        let mirror = debian_mirror()?;
        std::fs::write(
            &sources,
            format!(
                "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
                 Signed-By: {DEBIAN_KEYRING}\n"
            ),
        )?;
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(format!("{name}="));
            option.push(path);
            option
        };
        let values = [
            option("Dir::Etc::sourcelist", &sources),
            "Dir::Etc::sourceparts=-".into(),
            option("Dir::State::lists", &folder.join("lists")),
            option("Dir::Cache", &folder.join("cache")),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "APT::Update::Error-Mode=any".into(),
        ];
        let options = values
            .into_iter()
            .flat_map(|value| ["-o".into(), value])
            .collect();
        let apt = Self {
            folder: folder.to_path_buf(),
            options,
        };
        apt.run("apt-get", &["update"])?;
        Ok(apt)
    }

    /// Downloads a package, `NAME` or `NAME=VERSION`, and tells where it is.
    ///
    /// # Errors
    /// What apt says.
    pub fn download(&self, package: &str) -> Result<PathBuf> {
        let folder = self.folder.join(package.replace(['=', '~'], "-"));
        std::fs::create_dir_all(&folder)?;
        self.run_in(&folder, "apt-get", &["download", package])?;
        std::fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get downloaded no package")
    }

    /// The packages on which another one depends.
    ///
    /// # Errors
    /// When the suite hasn't the package.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let shown = self.run("apt-cache", &["depends", package])?;
        let named = shown
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(named.map(str::to_owned).collect())
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run_in(&self.folder, program, args)
    }

    fn run_in(&self, folder: &Path, program: &str, args: &[&str]) -> Result<String> {
        stdout(
            Command::new(program)
                .arg("-q")
                .args(&self.options)
                .args(args)
                .current_dir(folder),
        )
    }
}

/// The mirror that apt is configured with for this Debian.
fn debian_mirror() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release").context("no /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME")?
        .trim_matches('"');
    let mirrors = stdout(
        Command::new("apt-get")
            .args([
                "indextargets",
                "--no-release-info",
                "--format",
                "$(REPO_URI)",
                "Created-By: Packages",
            ])
            .arg(format!("Release: {codename}")),
    )?;
    let mirror = mirrors.lines().next();
    Ok(mirror
        .with_context(|| format!("apt has no Debian mirror configured for {codename}"))?
        .to_string())
}
