//! What goes wrong around an agent: stores that are away or went back, full disks, mistakes in its configuration,
//! crashes. Forwarding goes on, and `weft status` and the log say why it is only that.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::process::run;
use weft_tests::harness::weft::Status;
use weft_tests::harness::{Network, Run, Topology, wait};
use weft_tests::scenario;

/// A state shows within 6 s: the longest pause between two tries.
const STATE_LIMIT: Duration = Duration::from_secs(60);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
        .port("web/web-3", "h2", "10.0.1.13/24")
}

/// Waits until an agent's status says that all is well, or says all of these words among its problems.
fn wait_for_status(net: &Network, host: &str, words: &[&str]) -> Result<Status> {
    let weft = net.weft(host)?;
    let mut found = None;
    wait::until_ok(&format!("{host} to say {words:?}"), STATE_LIMIT, || {
        let done = weft.run(&["-o", "json", "status"])?;
        let status: Status = serde_json::from_str(&done.stdout)?;
        let problems = status.problems.join("\n");
        let (state, code) = if words.is_empty() {
            ("ok", 0)
        } else {
            ("degraded", 3)
        };
        ensure!(
            status.state == state && words.iter().all(|word| problems.contains(word)),
            "{} {problems}",
            status.state
        );
        ensure!(done.status.code() == Some(code), "{}", done.describe());
        found = Some(status);
        Ok(())
    })?;
    found.context("no status")
}

/// Waits until what an agent remembers on disk is all of it: that each port is live, too.
fn wait_until_remembered(net: &Network, host: &str) -> Result<()> {
    let path = net.host(host)?.state_folder();
    let path = path.join(format!("{host}.remembered.json"));
    let ports = topology().ports().len();
    wait::until_ok(&format!("all in {}", path.display()), STATE_LIMIT, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let live = text.matches("port_activity").count();
        ensure!(live == ports, "{live} of {ports} ports");
        Ok(())
    })
}

#[scenario]
fn a_host_that_restarts_without_its_store_decides_by_what_it_remembers(
    run: &mut Run,
) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    wait_until_remembered(net, "h2")?;
    let before = net.weft("h2")?.port("acme", "web/web-2")?.key;
    // h1 holds the store, and both forget all that is pinned on h2: as after a reboot there.
    net.host_mut("h1")?.kill_agent()?;
    net.host_mut("h2")?.kill_agent()?;
    fs::remove_dir_all(net.host("h2")?.pins())?;
    net.host_mut("h2")?.start_agent()?;
    let status = wait_for_status(net, "h2", &["weftd+http", "is remembered"])?;
    ensure!(status.revision > 0, "{status:?}");
    let weft = net.weft("h2")?;
    wait::until_ok("h2's ports to be active", STATE_LIMIT, || {
        for port in ["web/web-2", "web/web-3"] {
            let port = weft.port("acme", port)?;
            ensure!(port.state == "active", "{port:?}");
        }
        Ok(())
    })?;
    // Flows that h1 has, under the key that it knows, and new ones on h2.
    net.ping("web-1", "web-2")?;
    net.ping("web-2", "web-3")?;
    let after = net.weft("h2")?.port("acme", "web/web-2")?.key;
    ensure!(before == after, "{before:?} became {after:?}");
    net.host_mut("h1")?.start_agent()?;
    net.wait_until_active(&topology())?;
    wait_for_status(net, "h2", &[]).map(drop)?;
    net.ping("web-1", "web-3")
}

#[scenario]
fn a_store_that_comes_back_empty_is_refused_by_name(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    wait_until_remembered(net, "h1")?;
    let store = net.host("h1")?.state_folder().join("store.redb");
    net.host_mut("h1")?.kill_agent()?;
    let kept = store.with_extension("kept");
    fs::rename(&store, &kept)?;
    net.host_mut("h1")?.start_agent()?;
    let words = ["is not the one seen before", "empty", "h1.remembered.json"];
    wait_for_status(net, "h1", &words)?;
    net.ping("web-1", "web-3")?;
    net.ping("web-3", "web-1")?;
    let refused = net.apply_yaml(&topology().yaml())?;
    ensure!(!refused.status.success(), "{}", refused.describe());
    // The right one is there again: no command is needed.
    fs::rename(&kept, &store)?;
    wait_for_status(net, "h1", &[])?;
    net.wait_until_active(&topology())?;
    net.ping("web-1", "web-2")
}

#[scenario]
fn a_full_disk_is_said_and_stops_no_packet(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(weft_tests::harness::Underlay::Routed, 2)?;
    let disk = SmallDisk::mount(net)?;
    net.start_agents()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    disk.fill()?;
    // Enough that no free page inside the store's file takes it.
    let yaml: String = (0..4000)
        .map(|number| format!("  big-{number}: {{}}\n"))
        .collect();
    let yaml = format!("weft: v1\ntenant: acme\nbridges:\n{yaml}");
    let refused = net.apply_yaml(&yaml)?;
    ensure!(!refused.status.success(), "{}", refused.describe());
    wait_for_status(net, "h1", &["store.redb", "No space left"])?;
    net.ping("web-1", "web-3")?;
    net.ping("web-3", "web-1")?;
    disk.make_room()?;
    wait_for_status(net, "h1", &[])?;
    // It also starts on a full disk.
    disk.fill()?;
    net.host_mut("h1")?.kill_agent()?;
    net.host_mut("h1")?.start_agent()?;
    net.ping("web-1", "web-2")?;
    disk.make_room()?;
    wait_for_status(net, "h1", &[])?;
    net.apply_yaml(&yaml)?.success()?;
    net.wait_until_active(&topology())?;
    net.ping("web-1", "web-2")
}

#[scenario]
fn a_mistake_in_the_configuration_is_named_and_stops_no_packet(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let pinging = net.ping_in_background("web-1", "web-2")?;
    let good = fs::read_to_string(net.host("h1")?.config_path())?;
    net.host_mut("h1")?.kill_agent()?;
    let host = net.host("h1")?;
    for (found, put, words) in [
        (
            "[underlay]",
            "[undrlay]",
            &["undrlay", "expected", "line 2"][..],
        ),
        ("host = ", "host = 5 #", &["line 1", "expected a string"]),
        (
            "interfaces = [\"under0\"]",
            "interfaces = []",
            &["line 3, column 1", "expected at least one interface"],
        ),
    ] {
        host.write_config(&good.replacen(found, put, 1))?;
        let refused = host.run_agent(&[])?;
        let is_named = words.iter().all(|word| refused.stderr.contains(word));
        ensure!(
            !refused.status.success() && is_named,
            "{}",
            refused.describe()
        );
    }
    host.write_config(&good)?;
    net.host_mut("h1")?.start_agent()?;
    net.wait_until_active(&topology())?;
    pinging.stop()?.all_answered().map(drop)
}

#[scenario]
fn an_agent_that_does_not_stay_up_says_so_and_packets_pass(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let pinging = net.ping_in_background("web-1", "web-2")?;
    for _ in 0..5 {
        net.host_mut("h1")?.kill_agent()?;
        net.host_mut("h1")?.start_agent()?;
    }
    net.wait_until_active(&topology())?;
    wait_for_status(net, "h1", &["weftd started", "it was killed, or crashed"])?;
    let log = fs::read_to_string(net.host("h1")?.log_path())?;
    ensure!(log.contains("weftd doesn't stay up"), "{log}");
    net.ping("web-1", "web-3")?;
    pinging.stop()?.all_answered().map(drop)
}

#[scenario]
fn an_interface_that_was_made_anew_while_no_agent_ran_is_attached(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let before = net.host("h2")?.namespace().interface_index("web2")?;
    net.host_mut("h2")?.kill_agent()?;
    net.remove_interface("web-2")?;
    net.make_interface("web-2")?;
    let after = net.host("h2")?.namespace().interface_index("web2")?;
    ensure!(before != after, "the same index");
    net.host_mut("h2")?.start_agent()?;
    net.wait_until_active(&topology())?;
    // Under the key that h1's flows have.
    net.ping("web-1", "web-2")?;
    net.ping("web-2", "web-3")?;
    // One link for each port and the underlay interface: the dead one is swept.
    let links = net.host("h2")?.attached_programs()?;
    ensure!(links.len() == 3, "{links:?}");
    Ok(())
}

/// A small file system for h1's store.
struct SmallDisk {
    folder: std::path::PathBuf,
}

impl SmallDisk {
    fn mount(net: &Network) -> Result<SmallDisk> {
        let host = net.host("h1")?;
        let folder = host.state_folder().join("disk");
        fs::create_dir_all(&folder)?;
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", "size=4m", "weft-test"])
            .arg(&folder);
        run(command, STATE_LIMIT)?.success()?;
        let state = host.state_folder().display().to_string();
        let config = fs::read_to_string(host.config_path())?;
        let moved = config
            .replace(
                &format!("{state}/store.redb"),
                &format!("{}/store.redb", folder.display()),
            )
            .replace(
                &format!("folder = \"{state}\""),
                &format!("folder = \"{}\"", folder.display()),
            );
        host.write_config(&moved)?;
        Ok(SmallDisk { folder })
    }

    fn fill(&self) -> Result<()> {
        let mut size = 1 << 20;
        let mut filler = fs::File::create(self.folder.join("filler"))?;
        while size > 0 {
            if std::io::Write::write_all(&mut filler, &vec![1; size]).is_err() {
                size /= 2;
            }
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.folder.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The agent still has its store open there; it goes when that ends.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.folder)
            .status();
    }
}
