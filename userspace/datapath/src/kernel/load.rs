//! Loading the object: maps that are pinned already are used again, programs are loaded anew and pinned.

use crate::Error;
use crate::kernel::bpffs;
use aya::maps::Map;
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use std::path::Path;
use weft_common::drop::COUNTERS_PER_CPU;
use weft_common::limits::{CACHE_ENTRIES_PER_CPU, PORTS_MAX, SLOTS_MAX};

/// The object, built by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEFT_EBPF_OBJECT"));

/// Every map of the object, by the name it is pinned under.
const MAPS: &[&str] = &[
    "ports",
    "interfaces",
    "slots",
    "select_groups",
    "slot_stats",
    "cache",
    "masks_v4",
    "masks_v6",
    "megaflows_v4",
    "megaflows_v6",
    "peers",
    "peer_versions",
    "flood_lists",
    "own_addresses",
    "remote_hosts",
    "misses",
    "misses_batched",
    "miss_buckets",
    "guard_buckets",
    "port_counters",
    "drop_counters",
    "fragments",
    "acls",
    "acl_sets",
    "acl_work",
    "policies",
    "port_tenants",
    "quotas",
    "connections_v4",
    "connections_v6",
    "half_open_v4",
    "half_open_v6",
    "connection_work",
    "neighbours",
    "askers",
    "scratch",
];
const PROGRAMS: &[&str] = &["from_port", "from_underlay", XDP, "from_inject", "judge"];
/// The one program that isn't TC's.
const XDP: &str = "from_underlay_xdp";

/// The loaded object.
pub struct Programs {
    ebpf: Ebpf,
}

impl Programs {
    /// Loads the object with `maps` and `progs` pinned in a folder.
    pub fn load(folder: &Path) -> Result<Programs, Error> {
        let (maps, programs) = (folder.join("maps"), folder.join("progs"));
        bpffs::make(&maps)?;
        bpffs::make(&programs)?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(what, source)| Error::io(format!("counting CPUs ({what})"), source))?
            as u32;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("slot_stats", SLOTS_MAX * cpus);
        loader.map_max_entries("cache", CACHE_ENTRIES_PER_CPU * cpus);
        loader.map_max_entries("port_counters", PORTS_MAX * cpus);
        loader.map_max_entries("drop_counters", COUNTERS_PER_CPU * cpus);
        for name in MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| Error::program("loading the kernel programs' object", &error))?;
        for name in PROGRAMS {
            load_program(&mut ebpf, name, &programs.join(name))?;
        }
        Ok(Programs { ebpf })
    }

    /// One of TC's programs.
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        typed(&mut self.ebpf, name)
    }

    /// `from_underlay_xdp`.
    pub fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        typed(&mut self.ebpf, XDP)
    }

    /// Takes a map out of the object.
    pub fn take_map(&mut self, name: &'static str) -> Result<Map, Error> {
        self.ebpf.take_map(name).ok_or(Error::Map {
            map: name,
            detail: "isn't in the object".to_owned(),
        })
    }
}

fn typed<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<T, Error>
where
    T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let missing = || Error::Program {
        what: format!("program {name}"),
        detail: "isn't in the object".to_owned(),
    };
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    program
        .try_into()
        .map_err(|error| Error::program(format!("program {name}"), &error))
}

fn load_program(ebpf: &mut Ebpf, name: &str, pin: &Path) -> Result<(), Error> {
    let loaded = if name == XDP {
        typed::<&mut Xdp>(ebpf, name)?.load()
    } else {
        typed::<&mut SchedClassifier>(ebpf, name)?.load()
    };
    loaded.map_err(|error| Error::program(format!("loading program {name}"), &error))?;
    // An earlier agent's program goes on running where it is attached until the link is swapped.
    bpffs_unpin(pin)?;
    let pinned = if name == XDP {
        typed::<&mut Xdp>(ebpf, name)?.pin(pin)
    } else {
        typed::<&mut SchedClassifier>(ebpf, name)?.pin(pin)
    };
    pinned.map_err(|error| Error::program(format!("pinning {}", pin.display()), &error))
}

fn bpffs_unpin(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(
            format!("removing the old pin {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}
