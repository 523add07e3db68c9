//! Debian packages: the programs that demo, benchmarks, net tests and people who look at them run, and what boots
//! other kernels.

use anyhow::{Context, Result, bail};
use std::process::Command;

use crate::workspace::run_on_stderr;

/// Packages and what each is for.
pub type Packages = &'static [(&'static str, &'static str)];

/// What demo and net tests run.
pub const NETWORK: Packages = &[
    (
        "iproute2",
        "ip and tc: namespaces, veth pairs, attaching by hand",
    ),
    ("iputils-ping", "ping between workloads"),
    ("iputils-arping", "arping between workloads"),
    ("ndisc6", "rdisc6: what routers advertise"),
    ("iperf3", "throughput over the overlay"),
    ("mtr-tiny", "every hop of a way through routers"),
    ("traceroute", "the same by UDP, ICMP and TCP"),
    ("tcpdump", "a capture of each failed scenario"),
    ("tshark", "reading the GRE keys on the underlay"),
    ("ethtool", "offloads of the test interfaces"),
    (
        "openvswitch-switch",
        "Open vSwitch, the other host of one scenario; run by hand",
    ),
    (
        "nftables",
        "nft: the benchmarks' contestant with connection tracking",
    ),
    ("bpftool", "looking at pinned programs and maps"),
    ("g++", "libFuzzer, for the fuzz targets"),
    ("util-linux", "nsenter into a test host"),
    ("prometheus", "promtool, which judges /metrics"),
    ("systemd", "systemd-analyze, which judges the unit"),
];

/// What `test kernels` runs.
pub const EMULATOR: Packages = &[
    ("qemu-system-x86", "booting other kernels"),
    ("busybox-static", "the first process on them"),
    ("cpio", "their initramfs"),
    ("kmod", "the order in which their modules load"),
    ("xz-utils", "unpacking their modules"),
];

/// What installing would do, or nothing when all are there.
pub fn plan(packages: Packages) -> Result<Option<String>> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let list: Vec<String> = missing
        .iter()
        .map(|(name, purpose)| format!("{name} ({purpose})"))
        .collect();
    Ok(Some(format!(
        "install Debian packages by apt-get: {}",
        list.join(", ")
    )))
}

/// Installs those that are missing.
pub fn install(packages: Packages) -> Result<()> {
    let names: Vec<&str> = missing(packages)?.iter().map(|(name, _)| *name).collect();
    // A list that cannot be refreshed (one mirror of several is down) may still be good enough to install from.
    if let Err(error) = run_on_stderr(apt_get().arg("update")) {
        eprintln!("setup: {error:#}; going on with the lists that are there");
    }
    run_on_stderr(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&names),
    )
    .with_context(|| format!("as root, by hand: apt-get install {}", names.join(" ")))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-q").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn missing(packages: Packages) -> Result<Vec<(&'static str, &'static str)>> {
    let names = packages.iter().map(|(name, _)| name);
    // Its exit status is 1 when it doesn't know one of them: the list it prints is what counts.
    let Ok(output) = Command::new("dpkg-query")
        .args([
            "--show",
            "--showformat",
            "${Package} ${db:Status-Status}\\n",
        ])
        .args(names)
        .output()
    else {
        let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
        bail!(
            "this is no Debian (no dpkg-query): what these packages bring must be there: {}",
            names.join(" ")
        );
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    Ok(missing_from(packages, &shown))
}

fn missing_from(packages: Packages, dpkg_query: &str) -> Vec<(&'static str, &'static str)> {
    let is_there = |name: &str| {
        dpkg_query
            .lines()
            .any(|line| line == format!("{name} installed"))
    };
    packages
        .iter()
        .copied()
        .filter(|(name, _)| !is_there(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_with_its_configuration_left_is_missing() {
        let all: String = NETWORK
            .iter()
            .map(|(name, _)| format!("{name} installed\n"))
            .collect();
        assert!(missing_from(NETWORK, &all).is_empty());
        let removed = all.replace("tcpdump installed", "tcpdump config-files");
        assert_eq!(
            missing_from(NETWORK, &removed)
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>(),
            ["tcpdump"]
        );
    }
}
