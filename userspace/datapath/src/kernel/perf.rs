//! The reader of the misses: perf event buffers, one for each CPU.
//!
//! Two sets of buffers: an *eager* one that wakes the reader with each event, for low latency while little
//! happens, and a *batched* one that wakes it at a quarter of the buffer, for throughput. A wake-up per event
//! would slow the sender to the reader's speed. The set in the map is the one that the kernel writes to; it is
//! exchanged by one map update per CPU when the load changes, and both are always drained, the older first.

use crate::kernel::maps::Maps;
use crate::{Error, HeldPacket, Miss};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weft_common::event::MissHeader;
use weft_common::key::VLAN_PRESENT;
use zerocopy::FromBytes;

const EAGER_PAGES: usize = 64;
const BATCHED_PAGES: usize = 512;
const PAGE_BYTES: usize = 4096;
/// Most misses handed over by one poll of one buffer: the thread has other work, too.
const MISSES_PER_POLL_MAX: usize = 1024;
/// Misses in one poll above which the batched buffers take over.
const BUSY_MISSES: usize = 64;
/// Polls without a miss after which the eager buffers take over again.
const IDLE_POLLS: u32 = 20;

/// `perf_event_attr` up to `sample_period`..`bp_len`, as PERF_ATTR_SIZE_VER0 (64 bytes) lays it out.
#[derive(Default)]
#[repr(C)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    breakpoint_kind: u32,
    breakpoint_address: u64,
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_BPF_OUTPUT: u64 = 10;
const PERF_SAMPLE_RAW: u64 = 1 << 10;
/// `watermark` in the bit field of `perf_event_attr`.
const FLAG_WATERMARK: u64 = 1 << 14;
const PERF_FLAG_FD_CLOEXEC: u64 = 8;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_RECORD_SAMPLE: u32 = 9;
/// Offsets of `data_head` and `data_tail` in `perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// Makes a thread that waits for misses return.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Wakes the reader; what it waits for besides misses is in some other place.
    pub fn wake(&self) {
        // A counter that is full already wakes the reader as well.
        let _ = self.0.write(1);
    }
}

/// Misses of all CPUs.
pub struct MissReader {
    eager: Vec<Buffer>,
    batched: Vec<Buffer>,
    is_batched: bool,
    idle_polls: u32,
    waker: Arc<EventFd>,
    scratch: Vec<u8>,
}

impl MissReader {
    /// Opens both sets of buffers and gives the eager one to the kernel.
    pub fn open(maps: &mut Maps) -> Result<MissReader, Error> {
        let cpus = aya::util::online_cpus()
            .map_err(|(what, source)| Error::io(format!("listing CPUs ({what})"), source))?;
        let open_all = |pages, watermark| -> Result<Vec<Buffer>, Error> {
            cpus.iter()
                .map(|cpu| Buffer::open(*cpu, pages, watermark))
                .collect()
        };
        let waker = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|source| Error::io("making an eventfd", source))?;
        let mut reader = MissReader {
            eager: open_all(EAGER_PAGES, 1)?,
            batched: open_all(BATCHED_PAGES, BATCHED_PAGES * PAGE_BYTES / 4)?,
            is_batched: false,
            idle_polls: 0,
            waker: Arc::new(waker),
            scratch: Vec::new(),
        };
        reader.give(maps, false)?;
        Ok(reader)
    }

    /// A handle that wakes the reader.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    /// Waits for misses, at most `timeout`, and hands them over. See [`crate::Kernel::poll_misses`].
    pub fn poll(
        &mut self,
        timeout: Duration,
        maps: &mut Maps,
        handle: &mut dyn FnMut(Miss),
    ) -> Result<usize, Error> {
        let timeout = if self.is_batched {
            timeout.min(Duration::from_millis(1))
        } else {
            timeout
        };
        self.wait(timeout)?;
        let mut count = 0;
        // The set that isn't in the map any more holds the older events.
        let (first, second) = if self.is_batched {
            (&mut self.eager, &mut self.batched)
        } else {
            (&mut self.batched, &mut self.eager)
        };
        for buffer in first.iter_mut().chain(second.iter_mut()) {
            count += buffer.drain(&mut self.scratch, handle);
        }
        self.adapt(count, maps)?;
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        let mut files: Vec<PollFd<'_>> = vec![PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        files.extend(
            self.eager
                .iter()
                .map(|buffer| PollFd::new(buffer.event.as_fd(), PollFlags::POLLIN)),
        );
        files.extend(
            self.batched
                .iter()
                .map(|buffer| PollFd::new(buffer.event.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut files, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(source) => return Err(Error::io("waiting for misses", source)),
        }
        // Nothing to read is the usual case.
        let _ = self.waker.read();
        Ok(())
    }

    /// Exchanges the set of buffers when the load changed.
    fn adapt(&mut self, count: usize, maps: &mut Maps) -> Result<(), Error> {
        self.idle_polls = if count == 0 {
            self.idle_polls.saturating_add(1)
        } else {
            0
        };
        if !self.is_batched && count >= BUSY_MISSES {
            return self.give(maps, true);
        }
        if self.is_batched && self.idle_polls >= IDLE_POLLS {
            return self.give(maps, false);
        }
        Ok(())
    }

    fn give(&mut self, maps: &mut Maps, batched: bool) -> Result<(), Error> {
        let set = if batched { &self.batched } else { &self.eager };
        for buffer in set {
            let cpu = buffer.cpu;
            set_event(maps, cpu, &buffer.event)?;
        }
        self.is_batched = batched;
        Ok(())
    }
}

/// Puts a perf event's descriptor into the map; aya only takes buffers of its own.
fn set_event(maps: &Maps, cpu: u32, event: &OwnedFd) -> Result<(), Error> {
    #[repr(C)]
    struct UpdateElement {
        map: u64,
        key: u64,
        value: u64,
        flags: u64,
    }
    /// `BPF_MAP_UPDATE_ELEM` of `enum bpf_cmd`.
    const BPF_MAP_UPDATE_ELEM: i32 = 2;
    let value = event.as_raw_fd();
    let update = UpdateElement {
        map: maps.misses_fd() as u64,
        key: &raw const cpu as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: the struct is what BPF_MAP_UPDATE_ELEM reads of `union bpf_attr`; key and value outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_UPDATE_ELEM,
            &raw const update,
            size_of::<UpdateElement>(),
        )
    };
    nix::errno::Errno::result(result)
        .map(|_| ())
        .map_err(|source| {
            Error::io(
                format!("giving the buffer of CPU {cpu} to the kernel"),
                source,
            )
        })
}

/// One perf event with its ring: a control page and a power of two of data pages.
struct Buffer {
    cpu: u32,
    event: OwnedFd,
    start: NonNull<u8>,
    data_bytes: usize,
}

// SAFETY: the ring is read by its owner only; head and tail are accessed atomically.
unsafe impl Send for Buffer {}

impl Buffer {
    fn open(cpu: u32, pages: usize, watermark: usize) -> Result<Buffer, Error> {
        let attributes = EventAttributes {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<EventAttributes>() as u32,
            config: PERF_COUNT_SW_BPF_OUTPUT,
            sample_period: 1,
            sample_type: PERF_SAMPLE_RAW,
            flags: FLAG_WATERMARK,
            wakeup_watermark: watermark as u32,
            ..EventAttributes::default()
        };
        // SAFETY: perf_event_open(attr, pid -1, cpu, group -1, flags); the attributes outlive the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                -1,
                cpu as i32,
                -1,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let fd = nix::errno::Errno::result(fd)
            .map_err(|source| Error::io(format!("opening a perf event on CPU {cpu}"), source))?;
        // SAFETY: the kernel just gave us this descriptor.
        let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let length = NonZeroUsize::MIN.saturating_add((pages + 1) * PAGE_BYTES - 1);
        // SAFETY: a fresh shared mapping of the event's ring.
        let start = unsafe {
            use nix::sys::mman::{MapFlags, ProtFlags, mmap};
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                event.as_fd(),
                0,
            )
        };
        let start = start
            .map_err(|source| Error::io(format!("mapping the perf ring of CPU {cpu}"), source))?;
        // SAFETY: the request takes no argument.
        unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) };
        Ok(Buffer {
            cpu,
            event,
            start: start.cast(),
            data_bytes: pages * PAGE_BYTES,
        })
    }

    fn control(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets lie, aligned, in the control page.
        unsafe { self.start.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// Hands over what is in the ring, at most a bounded number of misses.
    fn drain(&mut self, scratch: &mut Vec<u8>, handle: &mut dyn FnMut(Miss)) -> usize {
        let mut tail = self.control(DATA_TAIL).load(Ordering::Relaxed);
        let head = self.control(DATA_HEAD).load(Ordering::Acquire);
        let mut count = 0;
        while tail < head && count < MISSES_PER_POLL_MAX {
            let mut header = [0; 8];
            self.copy(tail, &mut header);
            let [k0, k1, k2, k3, _, _, s0, s1] = header;
            let size = usize::from(u16::from_ne_bytes([s0, s1]));
            if size < header.len() {
                // Not written by a kernel that works: skip everything rather than loop.
                tail = head;
                break;
            }
            scratch.resize(size - header.len(), 0);
            self.copy(tail + header.len() as u64, scratch);
            tail += size as u64;
            self.control(DATA_TAIL).store(tail, Ordering::Release);
            // What found no room is counted by the program that sent it (`miss_lost`), not by records of loss.
            if u32::from_ne_bytes([k0, k1, k2, k3]) == PERF_RECORD_SAMPLE
                && let Some(miss) = parse_sample(scratch)
            {
                count += 1;
                handle(miss);
            }
        }
        self.control(DATA_TAIL).store(tail, Ordering::Release);
        count
    }

    /// Copies bytes from a position of the ring, over its end.
    fn copy(&self, position: u64, bytes: &mut [u8]) {
        let offset = (position as usize) & (self.data_bytes - 1);
        let first = bytes.len().min(self.data_bytes - offset);
        // SAFETY: both parts lie in the data pages; the kernel doesn't write between tail and head.
        unsafe {
            let data = self.start.as_ptr().add(PAGE_BYTES);
            std::ptr::copy_nonoverlapping(data.add(offset), bytes.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(data, bytes.as_mut_ptr().add(first), bytes.len() - first);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, with its length, used by nobody any more.
        let _ = unsafe { nix::sys::mman::munmap(self.start.cast(), self.data_bytes + PAGE_BYTES) };
    }
}

/// PERF_SAMPLE_RAW: a 32-bit size, then the header, then the frame, then padding.
fn parse_sample(bytes: &[u8]) -> Option<Miss> {
    let (header, rest) = MissHeader::read_from_prefix(bytes.get(4..)?).ok()?;
    let frame = rest.get(..header.captured_length as usize)?;
    Some(Miss {
        port: header.port,
        generation: header.generation,
        reason: header.reason,
        packet: HeldPacket {
            frame: frame.to_vec(),
            gso_size: header.gso_size,
            vlan_tci: (header.vlan & VLAN_PRESENT != 0).then_some(header.vlan & 0x0fff),
            fragment: header.fragment,
        },
    })
}
