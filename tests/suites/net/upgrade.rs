//! Agents of another ABI: their maps forward until the next agent's are filled beside them, and are swapped for those.
//!
//! The other ABI is this one under another name: nothing may depend on whether its maps could have been adopted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_common::{ABI_VERSION, KEYS_VERSION};
use weft_tests::harness::{Host, Network, Run, Underlay, wait};
use weft_tests::scenario;

use crate::restart::{Crowd, Traffic, all_drops, crowded_topology, start_crowded, topology};

/// With 10,000 flows a swap is over 0.8 s after weftd's start.
const SWAP_LIMIT: Duration = Duration::from_secs(30);

#[scenario]
fn another_abi_is_rebuilt_beside_and_swapped(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    start_crowded(net)?;
    let crowd = Crowd::install(net, 10_000)?;
    let load = Traffic::start(net)?;
    let before = Ids::of(net)?;
    let keys = keys(net)?;
    replace_by_another_abi(net)?;
    wait_until_swapped(net)?;
    net.wait_until_active(&crowded_topology())?;
    crowd.is_installed(net)?;
    // New flows.
    net.ping("web-3", "web-2")?;
    net.ping("web-2", "web-3")?;
    load.carried_all()?;
    crowd.is_known(net)?;
    // The new maps have counted from the swap on.
    let drops = all_drops(net)?;
    ensure!(drops.iter().all(BTreeMap::is_empty), "{drops:?}");
    let after = Ids::of(net)?;
    ensure!(before.is_apart_from(&after), "{before:?} {after:?}");
    ensure!(keys == self::keys(net)?, "{keys:?}");
    net.hosts().iter().try_for_each(is_put_away)
}

#[scenario]
fn another_abi_with_unknown_keys_is_rebuilt_by_misses(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let keys = keys(net)?;
    let pinging = net.ping_in_background_every("web-1", "web-2", Duration::from_millis(5))?;
    for host in net.hosts() {
        let pins = host.pins();
        fs::rename(
            pins.join(format!("keys-{KEYS_VERSION}")),
            pins.join("keys-77"),
        )?;
    }
    replace_by_another_abi(net)?;
    wait_until_swapped(net)?;
    net.wait_until_active(&topology())?;
    net.ping("web-2", "web-1")?;
    let result = pinging.stop()?;
    ensure!(result.sent > 100, "{result:?}");
    result.all_answered()?;
    ensure!(keys == self::keys(net)?, "{keys:?}");
    net.hosts().iter().try_for_each(is_put_away)
}

#[scenario]
fn an_agent_that_dies_in_a_swap_is_followed_by_one_that_ends_it(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let before = Ids::of(net)?;
    let pinging = net.ping_in_background_every("web-1", "web-2", Duration::from_millis(5))?;
    // Before the swap: what is there is of no use. After it: it is all that is to be used.
    for is_whole in [false, true] {
        net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
        for host in net.hosts() {
            let (pins, next) = (host.pins(), host.pins().join("next"));
            fs::create_dir_all(next.join("maps"))?;
            fs::create_dir(next.join(format!("keys-{KEYS_VERSION}")))?;
            fs::create_dir(next.join(own_abi()))?;
            if is_whole {
                fs::create_dir(next.join("whole"))?;
                fs::rename(pins.join(own_abi()), pins.join("abi-1"))?;
                fs::remove_dir(next.join("maps"))?;
                fs::rename(pins.join("maps"), next.join("maps"))?;
            }
        }
        net.start_agents()?;
        net.wait_until_active(&topology())?;
        net.ping("web-2", "web-1")?;
        net.hosts().iter().try_for_each(is_put_away)?;
    }
    let result = pinging.stop()?;
    ensure!(result.sent > 100, "{result:?}");
    result.all_answered()?;
    let after = Ids::of(net)?;
    ensure!(before.maps == after.maps, "{before:?} {after:?}");
    Ok(())
}

/// Kills all agents, makes what they left another ABI's, and starts agents again.
fn replace_by_another_abi(net: &mut Network) -> Result<()> {
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    for host in net.hosts() {
        let pins = host.pins();
        fs::rename(pins.join(own_abi()), pins.join("abi-1"))?;
    }
    net.start_agents()
}

fn own_abi() -> String {
    format!("abi-{ABI_VERSION}")
}

fn wait_until_swapped(net: &Network) -> Result<()> {
    for host in net.hosts() {
        wait::until_ok("the swap", SWAP_LIMIT, || is_put_away(host))?;
    }
    Ok(())
}

/// Whether the folder of pins is as if there had never been another ABI.
fn is_put_away(host: &Host) -> Result<()> {
    let names = fs::read_dir(host.pins())?;
    let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<BTreeSet<String>>>()?;
    // On kernels without TCX.
    names.remove("filters");
    let keys = format!("keys-{KEYS_VERSION}");
    let wanted = [&own_abi(), &keys, "links", "maps", "progs"].map(str::to_owned);
    ensure!(
        names == BTreeSet::from(wanted),
        "{}: {names:?}",
        host.name()
    );
    Ok(())
}

/// Under which keys each host has its ports.
fn keys(net: &Network) -> Result<Vec<BTreeMap<String, Option<u32>>>> {
    let of = |host: &Host| {
        let ports = host.weft()?.ports()?.into_iter();
        Ok(ports.map(|port| (port.name, port.tunnel_key)).collect())
    };
    net.hosts().iter().map(of).collect()
}

/// What the kernel calls programs that are attached, and maps that are pinned.
#[derive(Debug)]
struct Ids {
    programs: BTreeSet<u64>,
    maps: BTreeSet<u64>,
}

impl Ids {
    fn of(net: &Network) -> Result<Ids> {
        let mut ids = Ids {
            programs: BTreeSet::new(),
            maps: BTreeSet::new(),
        };
        for host in net.hosts() {
            ids.programs.extend(host.attached_programs()?);
            ids.maps.extend(host.pinned_maps()?);
        }
        Ok(ids)
    }

    /// Whether all is new, and as much as before.
    fn is_apart_from(&self, other: &Ids) -> bool {
        let is_new = |old: &BTreeSet<u64>, new: &BTreeSet<u64>| {
            !old.is_empty() && old.len() == new.len() && old.is_disjoint(new)
        };
        is_new(&self.programs, &other.programs) && is_new(&self.maps, &other.maps)
    }
}
