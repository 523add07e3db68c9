//! The parts of the system call `bpf` that aya doesn't show.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Opens a pinned object.
pub fn open_pin(path: &Path) -> Option<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut get = ObjectGet {
        pathname: path.as_ptr() as u64,
        ..ObjectGet::default()
    };
    let fd = i32::try_from(bpf(BPF_OBJ_GET, &mut get)).ok()?;
    // SAFETY: a descriptor that isn't negative was just given to us by the kernel.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Interface of a pinned TCX or XDP link; none when the kernel detached it because the interface went.
pub fn ifindex_of_pin(path: &Path) -> Option<u32> {
    let fd = open_pin(path)?;
    let mut info = TcxLinkInfo::default();
    let mut ask = InfoByFd {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<TcxLinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    (bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask) == 0 && info.ifindex != 0).then_some(info.ifindex)
}

/// Detaches a pinned link at once. Removing its pin would do so some time later, and until then the same
/// program can't be attached to that interface again.
pub fn detach_pin(path: &Path) {
    if let Some(fd) = open_pin(path) {
        let mut detach = LinkDetach {
            fd: fd.as_raw_fd() as u32,
        };
        // Refused for a link whose interface is gone: it is detached already.
        bpf(BPF_LINK_DETACH, &mut detach);
    }
}

/// The system call `bpf`, with the part of `union bpf_attr` that the command reads and writes.
pub fn bpf<T>(command: i32, attributes: &mut T) -> i64 {
    // SAFETY: the callers pass what their command reads, and every pointer in it outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    }
}

/// `enum bpf_cmd` of linux/bpf.h.
const BPF_OBJ_GET: i32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_LINK_DETACH: i32 = 34;

/// What BPF_OBJ_GET reads of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    fd: u32,
    flags: u32,
}

/// What BPF_LINK_DETACH reads of `union bpf_attr`.
#[repr(C)]
struct LinkDetach {
    fd: u32,
}

/// What BPF_OBJ_GET_INFO_BY_FD reads of `union bpf_attr`.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_link_info` for a TCX or XDP link, which aya doesn't show; XDP has no attach type.
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
