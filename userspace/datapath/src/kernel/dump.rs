//! A hash map's contents at once: thousands of entries a system call, where aya reads one in two.

use crate::Error;
use crate::kernel::syscall::{BPF_MAP_LOOKUP_BATCH, Batch, bpf};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Entries a call. The kernel gives whole buckets: one never holds so many.
const BATCH: usize = 4096;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Every key with its value, of a hash map with keys and values of these sizes in bytes. Entries that are
/// written meanwhile may be missing or twice.
///
/// # Errors
/// What the kernel answers.
pub fn entries(
    map: BorrowedFd<'_>,
    name: &'static str,
    key_size: usize,
    value_size: usize,
) -> Result<Vec<Entry>, Error> {
    let mut keys = vec![0u8; key_size * BATCH];
    let mut values = vec![0u8; value_size * BATCH];
    let mut place = 0u32;
    let mut is_first = true;
    let mut entries = Vec::new();
    loop {
        let mut next = 0u32;
        let mut ask = Batch {
            in_batch: if is_first { 0 } else { &raw const place as u64 },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map: map.as_raw_fd() as u32,
            ..Batch::default()
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut ask);
        let error = std::io::Error::last_os_error();
        // The last batch comes with ENOENT.
        let is_last = result != 0 && error.raw_os_error() == Some(libc::ENOENT);
        if result != 0 && !is_last {
            return Err(Error::io(format!("reading map {name}"), error));
        }
        let count = (ask.count as usize).min(BATCH);
        let read = keys.chunks(key_size).zip(values.chunks(value_size));
        entries.extend(
            read.take(count)
                .map(|(key, value)| (key.to_vec(), value.to_vec())),
        );
        if is_last {
            return Ok(entries);
        }
        (place, is_first) = (next, false);
    }
}
