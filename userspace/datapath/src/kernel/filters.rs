//! Attaching programs by cls_bpf at a clsact qdisc: what kernels before 6.6 have instead of TCX links.
//!
//! A filter outlives the process by itself and dies with its interface. What was attached is written down as
//! folders in bpffs, which holds nothing but pins and names: `filters/port_3/7` is port 3's filter on the
//! interface with index 7, `filters/clsact/7` a qdisc that wasn't there before us. Filters and qdiscs of others
//! are left alone: adding or removing a qdisc costs what the interface sends meanwhile (ADR 15), filters cost nothing.
//! Called by [`super::links`].

use crate::Error;
use crate::kernel::{bpffs, netlink};
use aya::programs::ProgramError;
use aya::programs::TcAttachType::Ingress;
use aya::programs::links::Link;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::tc::{SchedClassifier, qdisc_add_clsact};
use std::path::{Path, PathBuf};

/// Priority of our filters: before those that tc numbers itself (from 49152 down), and nobody else's by accident.
const PRIORITY: u16 = 0x5745;
/// The name in the record of qdiscs that we added.
const CLSACT: &str = "clsact";

/// What is attached by filters, and the record of it.
pub struct Filters {
    folder: PathBuf,
}

impl Filters {
    /// The record under the agent's folder of pins.
    pub fn new(pin: &Path) -> Filters {
        Filters {
            folder: pin.join("filters"),
        }
    }

    /// Attaches a program to an interface under a name. A filter that is there already gets the new program, under
    /// traffic; the name's filter on another interface goes, and another name's claim to this one.
    pub fn attach(
        &self,
        program: &mut SchedClassifier,
        interface: &str,
        name: &str,
    ) -> Result<(), Error> {
        let wanted = super::ifindex_of(interface)?;
        for (other, ifindex) in self.records() {
            match (other == name, ifindex == wanted) {
                (true, false) => self.detach(name)?,
                (false, true) if handle_of(&other) == handle_of(name) => self.forget(&other)?,
                _ => {}
            }
        }
        if add_clsact(interface)? {
            tracing::info!(
                interface,
                "added a clsact qdisc: what the interface was sending meanwhile is lost (ADR 15)"
            );
            bpffs::make(&self.folder.join(CLSACT).join(wanted.to_string()))?;
        }
        bpffs::make(&self.folder.join(name).join(wanted.to_string()))?;
        let link = attach(program, interface, handle_of(name))?;
        // Dropping it would detach.
        std::mem::forget(link);
        Ok(())
    }

    /// Detaches what has this name; nothing there is no error.
    ///
    /// # Errors
    /// When the kernel keeps the filter or the qdisc.
    pub fn detach(&self, name: &str) -> Result<(), Error> {
        for (_, ifindex) in self.records().iter().filter(|(other, _)| other == name) {
            let qdisc = self.folder.join(CLSACT).join(ifindex.to_string());
            // Without its interface the filter is gone, and so is the qdisc.
            if let Some(interface) = interface_of(*ifindex) {
                remove_filter(&interface, handle_of(name))?;
                if qdisc.exists() && !netlink::has_filters(*ifindex)? {
                    netlink::delete_clsact(*ifindex)?;
                } else {
                    continue;
                }
            }
            bpffs::remove(&qdisc)?;
        }
        self.forget(name)
    }

    /// Detaches everything: the interfaces are as they were before us.
    ///
    /// # Errors
    /// The first refusal.
    pub fn detach_all(&self) -> Result<(), Error> {
        self.names().iter().try_for_each(|name| self.detach(name))
    }

    /// The names under which something is attached.
    pub fn names(&self) -> Vec<String> {
        let records = self.records().into_iter();
        records.map(|(name, _)| name).collect()
    }

    /// Names and interface indices of the filters.
    fn records(&self) -> Vec<(String, u32)> {
        let mut records = Vec::new();
        for name in bpffs::names(&self.folder)
            .into_iter()
            .filter(|name| name != CLSACT)
        {
            let indices = bpffs::names(&self.folder.join(&name)).into_iter();
            let indices = indices.filter_map(|index| index.parse().ok());
            records.extend(indices.map(|index| (name.clone(), index)));
        }
        records
    }

    fn forget(&self, name: &str) -> Result<(), Error> {
        bpffs::remove(&self.folder.join(name))
    }
}

/// Attaches a program to an interface of our own, which takes the filter with it when it goes.
pub fn attach_own(
    program: &mut SchedClassifier,
    interface: &str,
) -> Result<SchedClassifierLink, Error> {
    add_clsact(interface)?;
    attach(program, interface, TcHandle::new(0, 1))
}

/// The filter's handle: one for each program that can be attached to the same interface.
fn handle_of(name: &str) -> TcHandle {
    TcHandle::new(0, if name.starts_with("port_") { 1 } else { 2 })
}

/// Adds a clsact qdisc; false when there is one, or an ingress qdisc, which does as well.
fn add_clsact(interface: &str) -> Result<bool, Error> {
    match qdisc_add_clsact(interface) {
        Ok(()) => Ok(true),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(error) => Err(Error::program(
            format!("adding a clsact qdisc to {interface} (module sch_ingress)"),
            &error,
        )),
    }
}

fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    handle: TcHandle,
) -> Result<SchedClassifierLink, Error> {
    let options = NlOptions {
        priority: PRIORITY,
        handle,
        classid: None,
    };
    let mut attached =
        program.attach_with_options(interface, Ingress, TcAttachOptions::Netlink(options));
    if attached
        .as_ref()
        .is_err_and(|error| is(error, libc::EEXIST))
    {
        let there = SchedClassifierLink::attached(interface, Ingress, PRIORITY, handle, None);
        let there = there.map_err(|_| Error::NoInterface(interface.to_owned()))?;
        attached = program.attach_to_link(there);
    }
    attached
        .and_then(|id| program.take_link(id))
        .map_err(|error| {
            let what = format!("attaching to {interface} by a filter (module cls_bpf)");
            Error::program(what, &error)
        })
}

fn remove_filter(interface: &str, handle: TcHandle) -> Result<(), Error> {
    let Ok(link) = SchedClassifierLink::attached(interface, Ingress, PRIORITY, handle, None) else {
        return Ok(());
    };
    // Without filter, qdisc or interface there is nothing to detach.
    let gone = [libc::ENOENT, libc::EINVAL, libc::ENODEV];
    match link.detach() {
        Err(error) if !gone.iter().any(|code| is(&error, *code)) => {
            let what = format!("detaching the filter from {interface}");
            Err(Error::program(what, &error))
        }
        _ => Ok(()),
    }
}

/// Whether the kernel answered with this error.
fn is(error: &ProgramError, code: i32) -> bool {
    match error {
        ProgramError::NetlinkError(error) | ProgramError::TcError(TcError::NetlinkError(error)) => {
            error.raw_os_error() == Some(code)
        }
        _ => false,
    }
}

fn interface_of(ifindex: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?;
    Some(name.to_string_lossy().into_owned())
}
