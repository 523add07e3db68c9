//! Lowering the maximum segment size that a TCP sender offers (RFC 9293, 3.7.1), for workloads whose path MTU
//! discovery doesn't work.

use crate::packet::Packet;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_loop, bpf_skb_load_bytes, bpf_skb_store_bytes};
use core::ffi::c_void;
use weft_common::frame::protocol;

/// Flags byte of the TCP header, and SYN in it.
const FLAGS_OFFSET: usize = 13;
const SYN: u8 = 0x02;
/// Where the TCP header's checksum lies.
const CHECKSUM_OFFSET: usize = 16;
const TCP_LEN: usize = 20;
/// Most bytes of TCP options: each step of the search takes at least one.
const OPTIONS_LEN_MAX: u32 = 40;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;
/// `bpf_loop` goes on, or ends.
const CONTINUE: i64 = 0;
const BREAK: i64 = 1;

/// The search for the option.
struct Search {
    skb: *mut __sk_buff,
    /// Where the TCP header begins.
    tcp: u32,
    /// Where the next option begins.
    offset: u32,
    /// End of the options.
    end: u32,
    /// Most that may be offered.
    mss: u16,
}

/// Lowers the MSS in a SYN to what `mtu` (bytes of inner IP; 0: leave it) carries. A SYN without the option stays:
/// its sender's peer takes 536, or 1220 for IPv6, which fit everywhere.
#[inline(always)]
pub fn clamp_mss(packet: &Packet, mtu: u16) {
    let tcp = packet.l4_offset();
    if mtu == 0 || packet.key.head.protocol != protocol::TCP || tcp == 0 {
        return;
    }
    let Some([data_offset, flags]) = packet.read::<2>(tcp + FLAGS_OFFSET - 1) else {
        return;
    };
    if flags & SYN != 0 {
        let headers = (tcp + TCP_LEN).saturating_sub(packet.l3_offset()) as u16;
        search(
            packet.skb(),
            tcp as u32,
            data_offset,
            mtu.saturating_sub(headers),
        );
    }
}

/// SYNs only: a function of its own keeps the path of all other packets short.
#[inline(never)]
fn search(skb: *mut __sk_buff, tcp: u32, data_offset: u8, mss: u16) {
    let mut search = Search {
        skb,
        tcp,
        offset: tcp + TCP_LEN as u32,
        end: tcp + u32::from(data_offset >> 4) * 4,
        mss,
    };
    // SAFETY: the callback takes what is handed over here, and `search` outlives the loop.
    unsafe {
        bpf_loop(
            OPTIONS_LEN_MAX,
            look_at_option as *mut c_void,
            core::ptr::from_mut(&mut search).cast(),
            0,
        );
    }
}

/// One option: lowers the MSS, skips others.
unsafe extern "C" fn look_at_option(_step: u32, search: *mut c_void) -> i64 {
    // SAFETY: `search` hands over a `Search`.
    let search = unsafe { &mut *search.cast::<Search>() };
    if search.offset + 2 > search.end {
        return BREAK;
    }
    let Some([kind, length]) = load(search.skb, search.offset) else {
        return BREAK;
    };
    if kind == OPTION_NOTHING {
        search.offset += 1;
        return CONTINUE;
    }
    if kind == OPTION_END || length < 2 {
        return BREAK;
    }
    if kind == OPTION_MSS && length == 4 {
        lower(search);
        return BREAK;
    }
    search.offset += u32::from(length);
    CONTINUE
}

/// Writes the smaller MSS and mends the checksum; where that is left to the device (`CHECKSUM_PARTIAL`),
/// `bpf_l4_csum_replace` leaves it alone.
#[inline(always)]
fn lower(search: &Search) {
    let place = search.offset + 2;
    let Some(old) = load(search.skb, place) else {
        return;
    };
    if place + 2 > search.end || u16::from_be_bytes(old) <= search.mss {
        return;
    }
    let mut new = search.mss.to_be_bytes();
    // SAFETY: two bytes of this function's, which the helper reads; it checks the packet.
    let stored = unsafe { bpf_skb_store_bytes(search.skb, place, new.as_mut_ptr().cast(), 2, 0) };
    if stored != 0 {
        return;
    }
    let (mut from, mut to) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    // At an odd place each byte counts in the other half of the sum's words.
    if (place - search.tcp) & 1 != 0 {
        (from, to) = (from.swap_bytes(), to.swap_bytes());
    }
    // SAFETY: plain numbers; the helper checks the packet.
    unsafe {
        bpf_l4_csum_replace(
            search.skb,
            search.tcp + CHECKSUM_OFFSET as u32,
            u64::from(from),
            u64::from(to),
            2,
        );
    }
}

#[inline(always)]
fn load(skb: *mut __sk_buff, offset: u32) -> Option<[u8; 2]> {
    let mut bytes = [0; 2];
    // SAFETY: two bytes of this function's, which the helper fills or leaves.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), 2) };
    (result == 0).then_some(bytes)
}
