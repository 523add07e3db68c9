//! The reader of the misses: perf event buffers, one for each CPU.
//!
//! Two buffers a CPU: the *eager* one wakes the reader with each event, for low latency; the *batched* one wakes it at
//! a quarter of its size, for throughput: a wake-up per event would slow the sender to the reader's speed. The
//! programs choose, by how many misses a port has had lately.

use crate::kernel::maps::Maps;
use crate::{Error, HeldPacket, Miss};
use aya::maps::MapData;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weft_common::event::MissHeader;
use weft_common::key::VLAN_PRESENT;
use weft_common::limits::{GUARD_RATE_PER_SEC, MISS_RATE_PER_SEC, MISSES_EAGER};
use zerocopy::FromBytes;

const EAGER_PAGES: usize = 64;
const BATCHED_PAGES: usize = 512;
const PAGE_BYTES: usize = 4096;
/// Most misses handed over by one poll of one batched buffer: the thread has other work, too.
const MISSES_PER_POLL_MAX: usize = 1024;
/// How long a batched miss may wait for a look, in milliseconds.
const BATCH_MS: u64 = 1;
/// How long after the last miss batched ones are looked for, in milliseconds. By then a port's next miss is eager: its
/// bucket has filled up.
const BUSY_MS: u64 = 40;
const _: () = assert!(BUSY_MS * GUARD_RATE_PER_SEC > MISSES_EAGER * 1000);
const _: () = assert!(MISS_RATE_PER_SEC >= GUARD_RATE_PER_SEC);

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
    last_miss: Instant,
    waker: Arc<EventFd>,
    scratch: Vec<u8>,
}

impl MissReader {
    /// Opens both buffers of each CPU and gives them to the kernel.
    pub fn open(maps: &Maps) -> Result<MissReader, Error> {
        let cpus = aya::util::online_cpus()
            .map_err(|(what, source)| Error::io(format!("listing CPUs ({what})"), source))?;
        let open_all = |map: &MapData, pages, watermark| -> Result<Vec<Buffer>, Error> {
            let open = |cpu: &u32| {
                let buffer = Buffer::open(*cpu, pages, watermark)?;
                set_event(map, *cpu, &buffer.event)?;
                Ok(buffer)
            };
            cpus.iter().map(open).collect()
        };
        let waker = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|source| Error::io("making an eventfd", source))?;
        Ok(MissReader {
            eager: open_all(&maps.misses, EAGER_PAGES, 1)?,
            batched: open_all(
                &maps.misses_batched,
                BATCHED_PAGES,
                BATCHED_PAGES * PAGE_BYTES / 4,
            )?,
            last_miss: Instant::now(),
            waker: Arc::new(waker),
            scratch: Vec::new(),
        })
    }

    /// A handle that wakes the reader.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    /// Waits for misses, at most `timeout`, and hands them over. See [`crate::Kernel::poll_misses`].
    pub fn poll(
        &mut self,
        timeout: Duration,
        handle: &mut dyn FnMut(Miss),
    ) -> Result<usize, Error> {
        let timeout = if self.last_miss.elapsed() < Duration::from_millis(BUSY_MS) {
            timeout.min(Duration::from_millis(BATCH_MS))
        } else {
            timeout
        };
        self.wait(timeout)?;
        // A port's misses are eager until it has had many: what is older is handed over first. Whatever an eager buffer
        // gets from here on may be younger than what is in the batched one now.
        let heads: Vec<u64> = self.batched.iter().map(Buffer::head).collect();
        let mut count = 0;
        for buffer in &mut self.eager {
            let head = buffer.head();
            count += buffer.drain(head, usize::MAX, &mut self.scratch, handle);
        }
        for (buffer, head) in self.batched.iter_mut().zip(heads) {
            count += buffer.drain(head, MISSES_PER_POLL_MAX, &mut self.scratch, handle);
        }
        if count > 0 {
            self.last_miss = Instant::now();
        }
        Ok(count)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        let mut files: Vec<PollFd<'_>> = vec![PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        let buffers = self.eager.iter().chain(&self.batched);
        files.extend(buffers.map(|buffer| PollFd::new(buffer.event.as_fd(), PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut files, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(source) => return Err(Error::io("waiting for misses", source)),
        }
        // Nothing to read is the usual case.
        let _ = self.waker.read();
        Ok(())
    }
}

/// Puts a perf event's descriptor into the map; aya only takes buffers of its own.
fn set_event(map: &MapData, cpu: u32, event: &OwnedFd) -> Result<(), Error> {
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
        map: map.fd().as_fd().as_raw_fd() as u64,
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
                format!("giving a buffer of CPU {cpu} to the kernel"),
                source,
            )
        })
}

/// One perf event with its ring: a control page and a power of two of data pages.
struct Buffer {
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
            event,
            start: start.cast(),
            data_bytes: pages * PAGE_BYTES,
        })
    }

    fn control(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets lie, aligned, in the control page.
        unsafe { self.start.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// Up to where the kernel has written.
    fn head(&self) -> u64 {
        self.control(DATA_HEAD).load(Ordering::Acquire)
    }

    /// Hands over what is in the ring up to `head`, at most so many misses.
    fn drain(
        &mut self,
        head: u64,
        misses_max: usize,
        scratch: &mut Vec<u8>,
        handle: &mut dyn FnMut(Miss),
    ) -> usize {
        let mut tail = self.control(DATA_TAIL).load(Ordering::Relaxed);
        let mut count = 0;
        while tail < head && count < misses_max {
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
