//! What explains a failure, kept below the target folder before everything is taken down.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::network::Network;
use super::run_id::RunId;
use super::weft::target_folder;

/// Copies configurations, logs and captures, and asks each agent for its view; the folder.
pub fn keep(id: &RunId, network: Option<&Network>, name: &str) -> Result<PathBuf> {
    let folder = target_folder()
        .join("scenario-failures")
        .join(format!("{name}-{id}"));
    fs::create_dir_all(&folder)?;
    for host in network.map_or(&[][..], Network::hosts) {
        for file in [host.config_path(), host.log_path()] {
            copy_into(&file, &folder, host.name());
        }
        for command in ["status", "ports", "flows", "drops", "connections"] {
            // The agent may be gone; the rest is worth keeping all the same.
            let shown = host.weft().and_then(|weft| weft.run(&[command]));
            let text = shown.map_or_else(|error| format!("{error:#}"), |done| done.describe());
            fs::write(folder.join(format!("{}-{command}.txt", host.name())), text)?;
        }
    }
    copy_into(&id.folder().join("topology.yaml"), &folder, "applied");
    for file in fs::read_dir(id.folder().join("pcap"))
        .into_iter()
        .flatten()
        .flatten()
    {
        copy_into(&file.path(), &folder, "");
    }
    Ok(folder)
}

fn copy_into(file: &Path, folder: &Path, prefix: &str) {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    let name = if prefix.is_empty() {
        name.to_string()
    } else {
        format!("{prefix}-{name}")
    };
    // A file that was never written explains nothing.
    fs::copy(file, folder.join(name)).ok();
}
