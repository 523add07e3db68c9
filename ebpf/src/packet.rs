//! A packet on its way through a program: checked access to its bytes, its key and its headers.

use crate::maps::SCRATCH;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::{
    bpf_skb_adjust_room, bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use weft_common::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, header_bytes};
use weft_common::{FlowKey, FragmentPorts, Frame, Headers, extract};

/// `BPF_ADJ_ROOM_MAC`: the room is made, or taken, right after the Ethernet header.
pub const ADJ_ROOM_MAC: u32 = 1;
/// Bytes by which an IPv6 header is longer than an IPv4 header.
const FAMILY_DIFFERENCE: u32 = 20;

/// Bytes of the shortest frame from which the kernel takes what is in front of it: Ethernet and an IPv4 header.
const STRIPPED_LEN_MIN: u32 = ETHERNET_LEN as u32 + 20;
/// No less than those 20 bytes, and a power of two.
const PADDING_MAX: usize = 32;

/// The packet of this program run.
pub struct Packet<'a> {
    ctx: &'a TcContext,
    /// What the packet is matched by, after [`Packet::extract`].
    pub key: &'a mut FlowKey,
    /// Offsets and TTL, after [`Packet::extract`].
    pub headers: &'a mut Headers,
    /// What is known of a later fragment's first one, after `fragments::track`.
    pub fragment: &'a mut FragmentPorts,
    blur: *mut u64,
}

/// Key and headers of the packet that a CPU works on. In a map, not on the stack: the verifier would walk through
/// everything after the extraction once for each way through it that leaves other known values behind.
#[repr(C)]
pub struct Scratch {
    key: FlowKey,
    headers: Headers,
    fragment: FragmentPorts,
    /// A number of which the verifier knows nothing when it comes out again.
    blur: u64,
}

/// Packet memory, read with the bounds that the verifier wants to see.
pub struct Bytes {
    start: usize,
    end: usize,
    length: usize,
    /// `Scratch::blur`
    blur: *mut u64,
}

impl Frame for Bytes {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the N bytes at `at` lie before the end of the packet's linear part.
        Some(unsafe { core::ptr::read_unaligned(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn blurred(&self, number: usize) -> usize {
        // SAFETY: this CPU's own, in a map.
        let blurred = unsafe {
            self.blur.write_volatile(number as u64);
            self.blur.read_volatile()
        };
        bounded(blurred as usize)
    }
}

/// A number below 512 of which the verifier knows just that: it refuses packet offsets without a bound.
#[inline(always)]
fn bounded(number: usize) -> usize {
    let mut bounded = number as u64;
    // SAFETY: plain arithmetic.
    unsafe { core::arch::asm!("{0} &= 511", inout(reg) bounded) };
    bounded as usize
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Option<Packet<'a>> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: this CPU's own, and programs run one after the other on it.
        let Scratch {
            key,
            headers,
            fragment,
            blur,
        } = unsafe { &mut *scratch };
        Some(Packet {
            ctx,
            key,
            headers,
            fragment,
            blur,
        })
    }

    /// The kernel's view of the packet.
    #[inline(always)]
    pub fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// The context for helpers that take any.
    #[inline(always)]
    pub fn context(&self) -> *mut core::ffi::c_void {
        self.ctx.as_ptr()
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        self.ctx.len()
    }

    /// Interface on which the frame came in.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the whole program run.
        unsafe { (*self.skb()).ifindex }
    }

    /// Payload bytes of each segment of a GSO packet, else 0.
    #[inline(always)]
    pub fn gso_size(&self) -> u32 {
        // SAFETY: the context is valid for the whole program run.
        unsafe { (*self.skb()).gso_size }
    }

    /// The tag that the kernel took out of the frame.
    #[inline(always)]
    pub fn vlan_tci(&self) -> Option<u16> {
        // SAFETY: the context is valid for the whole program run.
        unsafe { ((*self.skb()).vlan_present != 0).then(|| (*self.skb()).vlan_tci as u16) }
    }

    /// Makes sure that all headers lie in the linear part of the packet.
    #[inline(always)]
    pub fn pull_headers(&self, bytes: u32) {
        let linear = (self.ctx.data_end() - self.ctx.data()) as u32;
        let wanted = if self.length() < bytes {
            self.length()
        } else {
            bytes
        };
        if linear < wanted {
            // A failure shows as a truncated header in the extraction.
            let _ = self.ctx.pull_data(wanted);
        }
    }

    /// Fills key and headers. The number of the `DropReason` of a packet that can't be one, else 0.
    ///
    /// A function of its own, as what is on the stack here would be there all along: one packet may be extracted, judged,
    /// rewritten, extracted and judged again within 512 bytes.
    #[inline(never)]
    pub fn extract(&mut self, port: u16) -> u8 {
        self.pull_headers(header_bytes(&self.frame()) as u32);
        *self.fragment = FragmentPorts::default();
        match extract(&self.frame(), port, self.vlan_tci(), self.key) {
            Ok(headers) => {
                *self.headers = headers;
                0
            }
            Err(reason) => reason as u8,
        }
    }

    /// Where the network header begins, as an offset that the verifier takes.
    #[inline(always)]
    pub fn l3_offset(&self) -> usize {
        bounded(usize::from(self.headers.l3_offset))
    }

    /// Where the upper-layer header begins (0: there is none), as an offset that the verifier takes.
    #[inline(always)]
    pub fn l4_offset(&self) -> usize {
        bounded(usize::from(self.headers.l4_offset))
    }

    /// Takes off the first `length` bytes, behind which another frame starts: `ethernet` is that frame's header.
    /// False when the kernel refuses.
    ///
    /// The kernel goes on with the protocol that it took the whole packet for (`skb->protocol`), and with an IPv6
    /// GSO packet that it takes for IPv4 it loses all of it. `bpf_skb_change_proto` sets the protocol, on every
    /// kernel (`BPF_F_ADJ_ROOM_DECAP_L3_IPV6` is of Linux 6.3), and makes or takes 20 bytes on the way.
    /// All but IPv6 goes as IPv4: `bpf_skb_adjust_room` wants one of the two, and 20 bytes left suffice for it then.
    /// A frame with less behind its Ethernet header gets zeros up to that, as on a wire, where it has 60 bytes at least.
    #[inline(always)]
    pub fn strip(&self, length: u32, ethernet: [u8; ETHERNET_LEN]) -> bool {
        if !self.pad(length + STRIPPED_LEN_MIN) {
            return false;
        }
        let [.., t0, t1] = ethernet;
        let is_ipv6 = u16::from_be_bytes([t0, t1]) == ETHERTYPE_IPV6;
        let wanted = if is_ipv6 {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        };
        // SAFETY: the context is valid for the whole program run.
        let found = u16::from_be(unsafe { (*self.skb()).protocol } as u16);
        let mut surplus = length as i32;
        if found != wanted {
            // SAFETY: plain numbers; the helper checks the packet.
            if unsafe { bpf_skb_change_proto(self.skb(), wanted.to_be(), 0) } != 0 {
                return false;
            }
            surplus += if is_ipv6 {
                FAMILY_DIFFERENCE as i32
            } else {
                -(FAMILY_DIFFERENCE as i32)
            };
        }
        // SAFETY: the helper checks length and layout.
        let result = unsafe {
            bpf_skb_adjust_room(
                self.skb(),
                -surplus,
                ADJ_ROOM_MAC,
                u64::from(BPF_F_ADJ_ROOM_FIXED_GSO),
            )
        };
        result == 0 && self.write(0, ethernet).is_some()
    }

    /// Makes the packet that long with zeros, if it is shorter. False when the kernel refuses.
    #[inline(always)]
    fn pad(&self, length: u32) -> bool {
        let old = self.length();
        if old >= length {
            return true;
        }
        // SAFETY: plain numbers; the helper checks the packet.
        if unsafe { bpf_skb_change_tail(self.skb(), length, 0) } != 0 {
            return false;
        }
        // The kernel leaves in the new bytes what lay there.
        let zeros = [0_u8; PADDING_MAX];
        let missing = ((length - old - 1) & (PADDING_MAX as u32 - 1)) + 1;
        // SAFETY: `missing` is from 1 to the length of `zeros`, which the helper reads; it checks the packet.
        let result =
            unsafe { bpf_skb_store_bytes(self.skb(), old, zeros.as_ptr().cast(), missing, 0) };
        result == 0
    }

    /// The packet's bytes, as far as they lie in its linear part.
    #[inline(always)]
    pub fn frame(&self) -> Bytes {
        Bytes {
            start: self.ctx.data(),
            end: self.ctx.data_end(),
            length: self.length() as usize,
            blur: self.blur,
        }
    }

    /// `N` bytes at `offset`, or none.
    #[inline(always)]
    pub fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.frame().bytes::<N>(offset)
    }

    /// A big-endian number at `offset`, or none.
    #[inline(always)]
    pub fn number(&self, offset: usize) -> Option<u16> {
        self.read::<2>(offset).map(u16::from_be_bytes)
    }

    /// Writes bytes at `offset` and keeps the sum right that a device may have made of the packet. False when the
    /// packet is shorter.
    #[inline(always)]
    pub fn store<const N: usize>(&self, offset: usize, mut bytes: [u8; N]) -> bool {
        // SAFETY: N bytes of this function's, which the helper reads; it checks the packet.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.skb(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            )
        };
        result == 0
    }

    /// Writes bytes at `offset`; none when the linear part is shorter.
    #[inline(always)]
    pub fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> Option<()> {
        write(self.skb(), offset, bytes)
    }
}

/// Writes bytes at `offset` of a packet's linear part; none when that is shorter.
#[inline(always)]
pub fn write<const N: usize>(skb: *mut __sk_buff, offset: usize, bytes: [u8; N]) -> Option<()> {
    // SAFETY: the kernel's view of this program run's packet is valid all along.
    let (data, data_end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let at = data + offset;
    if at + N > data_end {
        return None;
    }
    // SAFETY: the N bytes at `at` lie before the end of the packet's linear part.
    unsafe { core::ptr::write_unaligned(at as *mut [u8; N], bytes) };
    Some(())
}
