//! rust-src 1.95.0 where cargo's `-Z build-std` looks: from rustup, an archive, or Debian's package.
//!
//! Whatever the source, the tree is unpacked beside its place and moved there when it is whole.

use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::apt::TemporaryApt;
use super::components::rustup_may_install;
use crate::workspace::{stdout, sysroot};

const DEBIAN_VERSION: &str = "1.95.0+dfsg1-2~bpo13+1";
const DEBIAN_SHA256: &str = "7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b";
const DEBIAN_LIBRARY: &str = "./usr/src/rustc-1.95.0/library";
const ARCHIVE_VARIABLE: &str = "WEFT_RUST_SRC";
const RUSTUP_TIME_MAX: Duration = Duration::from_secs(60);

/// A place to get the sources from.
enum Source {
    Archive(PathBuf),
    Debian,
    Rustup,
}

pub fn plan() -> Result<Option<String>> {
    let dest = destination()?;
    if is_whole(&dest.join("library")) {
        return Ok(None);
    }
    let sources: Vec<String> = sources().iter().map(Source::name).collect();
    Ok(Some(format!(
        "put rust-src into {}, from {}",
        dest.display(),
        sources.join(", else from ")
    )))
}

pub fn install() -> Result<()> {
    let dest = destination()?;
    if dest.is_symlink() {
        bail!(
            "{} is a link, and cargo wants a folder there: remove it first",
            dest.display()
        );
    }
    let attempts = sources().into_iter().map(|source| {
        let name = source.name();
        let fetch = || {
            source.fetch(&dest)?;
            ensure!(
                is_whole(&dest.join("library")),
                "it holds no library/Cargo.lock"
            );
            Ok(())
        };
        (name, fetch())
    });
    first_that_works(attempts)
}

/// Takes attempts until one works; when none does, one error says why each didn't.
fn first_that_works(attempts: impl Iterator<Item = (String, Result<()>)>) -> Result<()> {
    let mut reasons = String::new();
    for (name, attempt) in attempts {
        match attempt {
            Ok(()) => return Ok(()),
            Err(error) => reasons += &format!("\n  * {name}: {error:#}"),
        }
    }
    bail!(
        "no source of rust-src worked:{reasons}\n\
         Name an archive of it in {ARCHIVE_VARIABLE}, or run `rustup component add rust-src`."
    );
}

fn destination() -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib/src/rust"))
}

fn is_whole(library: &Path) -> bool {
    library.join("Cargo.lock").is_file() && library.join("core/Cargo.toml").is_file()
}

/// In the order in which they are tried: what was named, then rustup first wherever it may install.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    if let Some(archive) = std::env::var_os(ARCHIVE_VARIABLE).filter(|name| !name.is_empty()) {
        sources.push(Source::Archive(PathBuf::from(archive)));
    }
    if rustup_may_install() {
        sources.extend([Source::Rustup, Source::Debian]);
    } else {
        sources.extend([Source::Debian, Source::Rustup]);
    }
    sources
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::Archive(path) => format!("{} ({ARCHIVE_VARIABLE})", path.display()),
            Source::Debian => format!("Debian's package rust-src {DEBIAN_VERSION}"),
            Source::Rustup => "rustup component add rust-src".into(),
        }
    }

    fn fetch(&self, dest: &Path) -> Result<()> {
        match self {
            Source::Archive(path) => from_archive(path, dest),
            Source::Debian => from_debian(dest),
            Source::Rustup => from_rustup(),
        }
    }
}

fn from_archive(archive: &Path, dest: &Path) -> Result<()> {
    let staging = Staging::beside(dest)?;
    stdout(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(&staging.0),
    )?;
    staging.move_to(dest)
}

/// Debian's rust-src without touching apt's configuration or installing a package. Mirror: apt's own.
/// Signature: apt's Debian keyring (InRelease); then a pinned sha256.
fn from_debian(dest: &Path) -> Result<()> {
    let staging = Staging::beside(dest)?;
    let apt = TemporaryApt::new(&staging.0.join("apt"), "trixie-backports")?;
    let deb = apt.download(&format!("rust-src={DEBIAN_VERSION}"))?;
    let sum = stdout(Command::new("sha256sum").arg(&deb))?;
    if !sum.trim_start_matches('\\').starts_with(DEBIAN_SHA256) {
        bail!(
            "{} has not the pinned sha256 {DEBIAN_SHA256}",
            deb.display()
        );
    }
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&deb)
        .stdout(Stdio::piped())
        .spawn()?;
    let tar = unpack.stdout.take().context("dpkg-deb has no output")?;
    // Five components with the leading dot: ., usr, src, rustc-1.95.0 and then library stays.
    let unpacked = stdout(
        Command::new("tar")
            .args(["-x", "--strip-components=4", "-C"])
            .arg(&staging.0)
            .arg(DEBIAN_LIBRARY)
            .stdin(tar),
    );
    let read = unpack.wait()?;
    unpacked?;
    if !read.success() {
        bail!("dpkg-deb could not read {}: {read}", deb.display());
    }
    staging.move_to(dest)
}

fn from_rustup() -> Result<()> {
    let child = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        // Its reason is what is wanted, and no backtrace behind it.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run rustup")?;
    within(child, RUSTUP_TIME_MAX)
}

/// Waits for the child and reports the end of its stderr; kills it when its time is over.
fn within(mut child: Child, time_max: Duration) -> Result<()> {
    let mut pipe = child.stderr.take().context("no stderr")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What could be read before an error is what there is to show.
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + time_max;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let text = reader.join().unwrap_or_default();
            let last = text
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("no reason given");
            bail!("{status}: {}", last.trim())
        }
        None => bail!("not done after {} s", time_max.as_secs()),
    }
}

/// A folder beside the destination, on the same file system; removed when dropped.
struct Staging(PathBuf);

impl Staging {
    fn beside(dest: &Path) -> Result<Self> {
        let parent = dest.parent().context("the destination has no parent")?;
        let folder = parent.join(format!(".weft-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Moves the unpacked `library` to its place, over a broken one.
    fn move_to(&self, dest: &Path) -> Result<()> {
        let (from, to) = (self.0.join("library"), dest.join("library"));
        if !is_whole(&from) {
            bail!("it holds no whole library/");
        }
        if to.exists() {
            std::fs::remove_dir_all(&to)?;
        }
        std::fs::create_dir_all(dest)?;
        std::fs::rename(&from, &to).with_context(|| format!("cannot make {}", to.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is left behind is in the way of nothing.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_no_source_works_one_error_has_every_reason() {
        let failing = |name: &str, why: &'static str| (name.to_owned(), Err(anyhow::anyhow!(why)));
        let attempts = [
            failing("archive", "isn't one"),
            failing("Debian", "no mirror"),
        ];
        let error = first_that_works(attempts.into_iter())
            .unwrap_err()
            .to_string();
        assert!(error.contains("archive: isn't one"), "{error}");
        assert!(error.contains("Debian: no mirror"), "{error}");
    }

    #[test]
    fn the_first_source_that_works_is_the_last_that_is_tried() {
        let attempts = ["bad", "good", "never"].map(String::from);
        let tried = std::cell::RefCell::new(Vec::new());
        let results = attempts.into_iter().map(|name| {
            tried.borrow_mut().push(name.clone());
            let result = if name == "good" {
                Ok(())
            } else {
                Err(anyhow::anyhow!("no"))
            };
            (name, result)
        });
        first_that_works(results).unwrap();
        assert_eq!(*tried.borrow(), ["bad", "good"]);
    }
}
