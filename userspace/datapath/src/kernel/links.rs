//! Attaching programs by TCX, with links that are pinned and so outlive the agent; by [`Filters`] where the kernel
//! has no TCX.

use crate::Error;
use crate::kernel::bpffs;
use crate::kernel::filters::{self, Filters};
use crate::kernel::load::Programs;
use crate::kernel::syscall::{detach_pin, ifindex_of_pin};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder of pinned links.
pub struct Links {
    folder: PathBuf,
    /// The link to the inject TAP, which isn't pinned: the TAP lives as long as the process.
    inject: Option<SchedClassifierLink>,
    /// What does it all on a kernel without TCX.
    filters: Option<Filters>,
    /// Names of what this process has attached.
    attached: BTreeSet<String>,
}

impl Links {
    /// Links under the agent's folder of pins.
    pub fn new(pin: &Path) -> Links {
        Links {
            folder: pin.join("links"),
            inject: None,
            filters: None,
            attached: BTreeSet::new(),
        }
    }

    /// Attaches `from_inject` to the inject TAP. This comes first: it shows whether the kernel has TCX.
    pub fn attach_inject(
        &mut self,
        programs: &mut Programs,
        pin: &Path,
        interface: &str,
    ) -> Result<(), Error> {
        let program = programs.program("from_inject")?;
        self.inject = Some(match attach_tcx(program, interface) {
            Ok(link) => link,
            Err(error) if has_no_tcx(&error) => {
                tracing::info!("no TCX (Linux 6.6): programs are attached by clsact and cls_bpf");
                self.filters = Some(Filters::new(pin));
                filters::attach_own(program, interface)?
            }
            Err(error) => return Err(tcx_error(interface, &error)),
        });
        Ok(())
    }

    /// Attaches `from_port` to a workload's interface. The port's own link to it is kept and gets the new
    /// program; another port's link to it goes: an interface belongs to one port.
    pub fn attach_port(
        &mut self,
        programs: &mut Programs,
        port: u16,
        interface: &str,
        ifindex: u32,
    ) -> Result<(), Error> {
        self.attached.insert(port_link(port));
        if let Some(filters) = &self.filters {
            return filters.attach(programs.program("from_port")?, interface, &port_link(port));
        }
        for other in self.ports() {
            if other != port && ifindex_of_pin(&self.folder.join(port_link(other))) == Some(ifindex)
            {
                self.unpin(&port_link(other))?;
            }
        }
        let name = port_link(port);
        if self.adopt(programs.program("from_port")?, &name) == Some(ifindex) {
            return Ok(());
        }
        self.attach(programs.program("from_port")?, interface, &name)
    }

    /// Attaches `from_underlay`, or swaps the program of a link that an earlier agent left.
    pub fn attach_underlay(
        &mut self,
        programs: &mut Programs,
        interface: &str,
    ) -> Result<(), Error> {
        let name = format!("underlay_{}", in_bpffs(interface));
        self.attached.insert(name.clone());
        if let Some(filters) = &self.filters {
            return filters.attach(programs.program("from_underlay")?, interface, &name);
        }
        let wanted = super::ifindex_of(interface)?;
        if self.adopt(programs.program("from_underlay")?, &name) == Some(wanted) {
            return Ok(());
        }
        self.attach(programs.program("from_underlay")?, interface, &name)
    }

    /// Attaches `from_underlay_xdp` to an interface whose driver has XDP, or swaps the program of a link that an
    /// earlier agent left. It runs in the driver or not at all: generic XDP misses what other programs redirect.
    pub fn attach_xdp(&mut self, programs: &mut Programs, interface: &str) -> Result<(), Error> {
        let name = xdp_link(interface);
        self.attached.insert(name.clone());
        let wanted = super::ifindex_of(interface)?;
        let program = programs.xdp()?;
        if self.adopt_xdp(program, &name) == Some(wanted) {
            return Ok(());
        }
        self.unpin(&name)?;
        let what = format!("attaching from_underlay_xdp to {interface}");
        let refused = |error: ProgramError| Error::program(what.clone(), &error);
        let id = program
            .attach(interface, XdpMode::Driver)
            .map_err(refused)?;
        let link: FdLink = program
            .take_link(id)
            .map_err(refused)?
            .try_into()
            .map_err(|error| Error::program(what.clone(), &error))?;
        let path = self.folder.join(name);
        link.pin(&path)
            .map_err(|error| Error::program(format!("pinning {}", path.display()), &error))?;
        Ok(())
    }

    /// Detaches `from_underlay_xdp`; a link that isn't there is no error.
    pub fn detach_xdp(&mut self, interface: &str) -> Result<(), Error> {
        self.unpin(&xdp_link(interface))
    }

    /// Detaches a port's program; a link that isn't there is no error.
    pub fn detach_port(&mut self, port: u16) -> Result<(), Error> {
        match &self.filters {
            Some(filters) => filters.detach(&port_link(port)),
            None => self.unpin(&port_link(port)),
        }
    }

    /// Removes the links of ports that aren't wanted.
    pub fn sweep(&mut self, keep: &BTreeSet<u16>) {
        for port in self.ports().into_iter().filter(|port| !keep.contains(port)) {
            if let Err(error) = self.detach_port(port) {
                tracing::warn!(%error, port, "an old link stays");
            }
        }
    }

    /// Removes links and filters of an earlier agent that this process hasn't attached again.
    ///
    /// # Errors
    /// The first one that stays.
    pub fn sweep_earlier(&mut self) -> Result<(), Error> {
        let is_earlier = |name: &String| !self.attached.contains(name);
        if let Some(filters) = &self.filters {
            let names = filters.names().into_iter().filter(is_earlier);
            names
                .into_iter()
                .try_for_each(|name| filters.detach(&name))?;
        }
        let links = bpffs::names(&self.folder).into_iter().filter(is_earlier);
        let links: Vec<String> = links.collect();
        links.iter().try_for_each(|name| self.unpin(name))
    }

    /// Ports that have a pinned link, or a filter.
    fn ports(&self) -> Vec<u16> {
        let names = match &self.filters {
            Some(filters) => filters.names(),
            None => bpffs::names(&self.folder),
        };
        names
            .iter()
            .filter_map(|name| name.strip_prefix("port_")?.parse().ok())
            .collect()
    }

    fn attach(
        &mut self,
        program: &mut SchedClassifier,
        interface: &str,
        name: &str,
    ) -> Result<(), Error> {
        self.unpin(name)?;
        let link = attach_tcx(program, interface).map_err(|error| tcx_error(interface, &error))?;
        let path = self.folder.join(name);
        let link: FdLink = link
            .try_into()
            .map_err(|error| Error::program(format!("the link to {interface}"), &error))?;
        link.pin(&path)
            .map_err(|error| Error::program(format!("pinning {}", path.display()), &error))?;
        Ok(())
    }

    /// Swaps the program of a pinned link, under traffic. None when there is no link or its interface is gone.
    fn adopt(&mut self, program: &mut SchedClassifier, name: &str) -> Option<u32> {
        let path = self.folder.join(name);
        let ifindex = ifindex_of_pin(&path)?;
        let link: FdLink = PinnedLink::from_pin(&path).ok()?.into();
        let id = program.attach_to_link(link.try_into().ok()?).ok()?;
        // The pin keeps the link; this process needn't.
        drop(program.take_link(id).ok()?);
        Some(ifindex)
    }

    /// Like [`Links::adopt`], of XDP.
    fn adopt_xdp(&mut self, program: &mut Xdp, name: &str) -> Option<u32> {
        let path = self.folder.join(name);
        let ifindex = ifindex_of_pin(&path)?;
        let link: FdLink = PinnedLink::from_pin(&path).ok()?.into();
        let id = program.attach_to_link(link.try_into().ok()?).ok()?;
        drop(program.take_link(id).ok()?);
        Some(ifindex)
    }

    fn unpin(&mut self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        detach_pin(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Detaches every pinned link. Those of interfaces that are gone are detached already.
pub fn detach_all(pin: &Path) {
    let folder = pin.join("links");
    for name in bpffs::names(&folder) {
        detach_pin(&folder.join(name));
    }
}

/// Names in bpffs hold no dot, those of interfaces may.
fn in_bpffs(interface: &str) -> String {
    interface.replace('.', "_")
}

fn xdp_link(interface: &str) -> String {
    format!("xdp_{}", in_bpffs(interface))
}

fn port_link(port: u16) -> String {
    format!("port_{port}")
}

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options)?;
    program.take_link(id)
}

fn tcx_error(interface: &str, error: &ProgramError) -> Error {
    Error::program(format!("attaching to {interface} by TCX"), error)
}

/// Whether the kernel's answer is that of one before 6.6: it knows no such attach type.
fn has_no_tcx(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(libc::EINVAL))
}
