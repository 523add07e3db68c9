//! `weft host release`: the host's kernel as it was before Weft. A weftd that runs does it and ends; what one that is
//! gone left is taken away by `weftd --release`, which knows how it got there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use weft_api::ReleaseRequest;
use weft_api::client::ClientError;

use super::Session;
use crate::Done;

/// How long weftd may take to end after it released everything.
const END_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether it did.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Releases the host whose weftd answers, or that `config` is of.
pub async fn release(session: &Session, host: Option<&str>, config: &Path) -> Result<Done> {
    let request = ReleaseRequest {
        host: host.map(str::to_owned),
    };
    let released = match session.client.release(&request).await {
        Ok(released) => released,
        Err(ClientError::Connect { reason, .. }) => {
            return release_without_agent(host, config, &reason);
        }
        Err(error) => return Err(error.into()),
    };
    for warning in &released.warnings {
        eprintln!("{warning}");
    }
    let start = Instant::now();
    while session.client.status().await.is_ok() {
        ensure!(
            start.elapsed() < END_MAX,
            "everything is released, but weftd doesn't end"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    println!("{}: released, and weftd has ended", released.host);
    Ok(Done::Well)
}

fn release_without_agent(host: Option<&str>, config: &Path, reason: &str) -> Result<Done> {
    eprintln!(
        "no weftd answers ({reason}): releasing what {} says",
        config.display()
    );
    let weftd = weftd();
    let mut command = Command::new(&weftd);
    command.arg("--config").arg(config);
    command.arg(format!("--release={}", host.unwrap_or_default()));
    let status = command
        .status()
        .with_context(|| format!("running {}", weftd.display()))?;
    if !status.success() {
        bail!("{} --release: {status}", weftd.display());
    }
    Ok(Done::Well)
}

/// The weftd beside this program, or the one in the search path.
fn weftd() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("weftd"))
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| PathBuf::from("weftd"))
}
