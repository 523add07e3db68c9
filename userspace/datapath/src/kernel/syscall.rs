//! The parts of the system call `bpf` that aya doesn't show.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
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

/// Makes an array of 16-byte values of its own length for an array of maps (`BPF_F_INNER_MAP`: Linux 5.10).
pub fn create_inner_array(length: u32) -> std::io::Result<OwnedFd> {
    let mut create = MapCreate {
        kind: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 16,
        max_entries: length,
        flags: BPF_F_INNER_MAP,
    };
    let fd = checked(bpf(BPF_MAP_CREATE, &mut create))?;
    // SAFETY: a descriptor that isn't negative was just given to us by the kernel.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Writes many elements of an array by one call. `V` is the map's value: plain bytes.
pub fn update_batch<V>(map: BorrowedFd, keys: &[u32], values: &[V]) -> std::io::Result<()> {
    let mut batch = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map: map.as_raw_fd() as u32,
        ..Batch::default()
    };
    checked(bpf(BPF_MAP_UPDATE_BATCH, &mut batch)).map(drop)
}

/// Reads all of an array of 16-byte values, `length` of them.
pub fn read_inner_array(map: BorrowedFd, length: u32) -> std::io::Result<Vec<[u64; 2]>> {
    let mut keys = vec![0_u32; length as usize];
    let mut values = vec![[0_u64; 2]; length as usize];
    let mut next = 0_u32;
    let mut batch = Batch {
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: length,
        map: map.as_raw_fd() as u32,
        ..Batch::default()
    };
    match checked(bpf(BPF_MAP_LOOKUP_BATCH, &mut batch)) {
        // The end was reached.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(values),
    }
}

/// Elements of a hash map, and where they end: none behind the last one.
pub type Piece<K, V> = (Vec<(K, V)>, Option<u32>);

/// Reads the next elements of a hash map, at most `most` of them, behind where `cursor` points; none is the start. `K` and `V` are plain bytes of the map's sizes.
pub fn read_batch<K: Copy + Default, V: Copy + Default>(
    map: BorrowedFd,
    cursor: Option<u32>,
    most: usize,
) -> std::io::Result<Piece<K, V>> {
    let (mut keys, mut values) = (vec![K::default(); most], vec![V::default(); most]);
    let (from, mut to) = (cursor.unwrap_or(0), 0_u32);
    let mut batch = Batch {
        in_batch: cursor.map_or(0, |_| &raw const from as u64),
        out_batch: &raw mut to as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: most as u32,
        map: map.as_raw_fd() as u32,
        ..Batch::default()
    };
    let is_last = match checked(bpf(BPF_MAP_LOOKUP_BATCH, &mut batch)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        other => other.map(|_| false)?,
    };
    let count = (batch.count as usize).min(most);
    let read = keys.into_iter().zip(values).take(count).collect();
    Ok((read, (!is_last).then_some(to)))
}

/// Deletes an element of a hash map; one that isn't there is no error. `K` is plain bytes of the key's size.
pub fn delete_key<K>(map: BorrowedFd, key: &K) -> std::io::Result<()> {
    let mut delete = Element {
        map: map.as_raw_fd() as u32,
        spare: 0,
        key: std::ptr::from_ref(key) as u64,
        value: 0,
        flags: 0,
    };
    match checked(bpf(BPF_MAP_DELETE_ELEM, &mut delete)) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

fn checked(result: i64) -> std::io::Result<i64> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(result)
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
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_DELETE_ELEM: i32 = 3;
pub(super) const BPF_MAP_LOOKUP_BATCH: i32 = 24;
const BPF_MAP_UPDATE_BATCH: i32 = 26;
/// `enum bpf_map_type`.
const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// Flag of BPF_MAP_CREATE.
const BPF_F_INNER_MAP: u32 = 1 << 12;
const BPF_OBJ_GET: i32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_LINK_DETACH: i32 = 34;

/// What BPF_MAP_CREATE reads of `union bpf_attr`.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// What the commands for many elements read of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
pub(super) struct Batch {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map: u32,
    pub(super) element_flags: u64,
    pub(super) flags: u64,
}

/// What the commands for one element read of `union bpf_attr`.
#[repr(C)]
struct Element {
    map: u32,
    spare: u32,
    key: u64,
    value: u64,
    flags: u64,
}

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
