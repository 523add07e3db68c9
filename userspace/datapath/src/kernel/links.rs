//! Attaching programs by TCX, with links that are pinned and so outlive the agent.

use crate::Error;
use crate::kernel::load::Programs;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The folder of pinned links.
pub struct Links {
    folder: PathBuf,
    /// The link to the inject TAP, which isn't pinned: the TAP lives as long as the process.
    inject: Option<SchedClassifierLink>,
}

impl Links {
    /// Links under the agent's folder of pins.
    pub fn new(pin: &Path) -> Links {
        Links {
            folder: pin.join("links"),
            inject: None,
        }
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
        // bpffs names may hold no dot, interface names may.
        let name = format!("underlay_{}", interface.replace('.', "_"));
        let wanted = super::ifindex_of(interface)?;
        if self.adopt(programs.program("from_underlay")?, &name) == Some(wanted) {
            return Ok(());
        }
        self.attach(programs.program("from_underlay")?, interface, &name)
    }

    /// Attaches `from_inject` to the inject TAP.
    pub fn attach_inject(&mut self, programs: &mut Programs, interface: &str) -> Result<(), Error> {
        self.inject = Some(attach_tcx(programs.program("from_inject")?, interface)?);
        Ok(())
    }

    /// Detaches a port's program; a link that isn't there is no error.
    pub fn detach_port(&mut self, port: u16) -> Result<(), Error> {
        self.unpin(&port_link(port))
    }

    /// Removes the links of ports that aren't wanted.
    pub fn sweep(&mut self, keep: &BTreeSet<u16>) {
        for port in self.ports().into_iter().filter(|port| !keep.contains(port)) {
            if let Err(error) = self.detach_port(port) {
                tracing::warn!(%error, port, "an old link stays");
            }
        }
    }

    /// Ports that have a pinned link.
    fn ports(&self) -> Vec<u16> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
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
        let link = attach_tcx(program, interface)?;
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

    fn unpin(&mut self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

fn port_link(port: u16) -> String {
    format!("port_{port}")
}

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
) -> Result<SchedClassifierLink, Error> {
    let what = || format!("attaching to {interface} by TCX");
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program
        .attach_with_options(interface, TcAttachType::Ingress, options)
        .map_err(|error| Error::program(what(), &error))?;
    program
        .take_link(id)
        .map_err(|error| Error::program(what(), &error))
}

/// Interface of a pinned TCX link; none when the kernel detached it because the interface went.
fn ifindex_of_pin(path: &Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let get = ObjectGet {
        pathname: path.as_ptr() as u64,
        ..ObjectGet::default()
    };
    // SAFETY: `get` is the part of `union bpf_attr` that BPF_OBJ_GET reads, and the path outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const get,
            size_of::<ObjectGet>(),
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel just gave us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = TcxLinkInfo::default();
    let ask = InfoByFd {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<TcxLinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `ask` is what BPF_OBJ_GET_INFO_BY_FD reads; it writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const ask,
            size_of::<InfoByFd>(),
        )
    };
    (result == 0 && info.ifindex != 0).then_some(info.ifindex)
}

/// `enum bpf_cmd` of linux/bpf.h.
const BPF_OBJ_GET: i32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;

/// What BPF_OBJ_GET reads of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    fd: u32,
    flags: u32,
}

/// What BPF_OBJ_GET_INFO_BY_FD reads of `union bpf_attr`.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_link_info` for a TCX link, which aya doesn't show.
#[derive(Default)]
#[repr(C)]
struct TcxLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    spare: u32,
    ifindex: u32,
    attach_type: u32,
}
