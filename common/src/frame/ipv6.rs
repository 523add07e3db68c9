//! IPv6 (RFC 8200): extension headers are walked through, up to a bound in number and bytes.

use super::{
    EXTENSION_BYTES_MAX, EXTENSION_HEADERS_MAX, Frame, Headers, IPV6_LEN, protocol, upper,
};
use crate::drop::DropReason;
use crate::key::{self, FlowKey, Fragment, Network};

const WHOLE: usize = Fragment::Whole as usize;
const FIRST: usize = Fragment::First as usize;
const LATER: usize = Fragment::Later as usize;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Whether another header follows this one. ESP (50) hides what follows, and behind "no next header" (59), mobility
/// (135), HIP (139) and shim6 (140) nothing does (RFC 6275 6.1.1, 7401 5.1, 5533 5.1): receivers take them for
/// protocols of their own, and so does the key.
#[inline(always)]
pub fn is_extension(number: u8) -> bool {
    number == HOP_BY_HOP
        || number == ROUTING
        || number == FRAGMENT
        || number == AUTHENTICATION
        || number == DESTINATION_OPTIONS
}

/// Where the walk is.
struct Chain {
    /// What lies at `offset`.
    number: u8,
    offset: usize,
    /// Where the packet ends.
    end: usize,
    /// Number of a [`Fragment`].
    fragment: usize,
    id: u32,
}

/// Fills `key` from the packet at `offset`.
#[inline(always)]
pub fn extract<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let header = frame.bytes::<8>(offset).ok_or(DropReason::Truncated)?;
    let src = frame.bytes::<16>(offset + 8).ok_or(DropReason::Truncated)?;
    let dst = frame
        .bytes::<16>(offset + 24)
        .ok_or(DropReason::Truncated)?;
    let [version, class, _, _, l0, l1, number, ttl] = header;
    if version >> 4 != 6 {
        return Err(DropReason::BadHeader);
    }
    let payload = u16::from_be_bytes([l0, l1]);
    let start = offset + IPV6_LEN;
    let is_long = number == HOP_BY_HOP || frame.length() > start + 0xffff;
    if payload == 0 && is_long {
        return Err(DropReason::Jumbogram);
    }
    if start + usize::from(payload) > frame.length() {
        return Err(DropReason::ShortFrame);
    }
    let mut chain = Chain {
        number,
        offset: start,
        end: start + usize::from(payload),
        fragment: WHOLE,
        id: 0,
    };
    if is_extension(number) {
        walk(frame, start, &mut chain)?;
    }
    key.head.class = key::class(0, Network::Ipv6, Fragment::Whole) | chain.fragment as u8;
    key.head.protocol = chain.number;
    key.head.tos = (version << 4) | (class >> 4);
    key.src = src;
    key.dst = dst;
    let is_later = chain.fragment == LATER;
    if !is_later {
        upper::extract(frame, chain.offset, chain.end - chain.offset, key)?;
    }
    Ok(Headers {
        ttl,
        l3_offset: offset as u16,
        l3_length: payload.saturating_add(IPV6_LEN as u16),
        l4_offset: if is_later { 0 } else { chain.offset as u16 },
        fragment_id: chain.id,
    })
}

/// Goes on to the upper-layer header, or to the end of a later fragment's known headers.
#[inline(always)]
fn walk<F: Frame + ?Sized>(frame: &F, start: usize, chain: &mut Chain) -> Result<(), DropReason> {
    for place in 0..EXTENSION_HEADERS_MAX {
        if !is_extension(chain.number) || chain.fragment == LATER {
            return Ok(());
        }
        // Only the first header may be hop-by-hop options (RFC 8200, 4.1).
        if chain.number == HOP_BY_HOP && place != 0 {
            return Err(DropReason::BadExtension);
        }
        pass(frame, start, chain)?;
        chain.offset = frame.blurred(chain.offset);
        chain.fragment = frame.blurred(chain.fragment);
    }
    if is_extension(chain.number) && chain.fragment != LATER {
        return Err(DropReason::TooManyExtensions);
    }
    Ok(())
}

/// Passes one header.
#[inline(always)]
fn pass<F: Frame + ?Sized>(frame: &F, start: usize, chain: &mut Chain) -> Result<(), DropReason> {
    let is_cut = chain.fragment == FIRST;
    let beyond = if is_cut {
        DropReason::TinyFragment
    } else {
        DropReason::BadExtension
    };
    if chain.offset + 8 > chain.end {
        return Err(beyond);
    }
    let bytes = frame
        .bytes::<8>(chain.offset)
        .ok_or(DropReason::Truncated)?;
    let [next, length, o0, o1, i0, i1, i2, i3] = bytes;
    let size = if chain.number == FRAGMENT {
        8
    } else if chain.number == AUTHENTICATION {
        (usize::from(length) + 2) * 4
    } else {
        (usize::from(length) + 1) * 8
    };
    let after = chain.offset + size;
    if after > chain.end {
        return Err(beyond);
    }
    if after > start + EXTENSION_BYTES_MAX {
        return Err(DropReason::TooManyExtensions);
    }
    if chain.number == FRAGMENT {
        let field = u16::from_be_bytes([o0, o1]);
        let (place, more) = (field >> 3, field & 1 != 0);
        // A fragment of a fragment is nobody's (RFC 8200, 4.5).
        if is_cut {
            return Err(DropReason::BadExtension);
        }
        // With neither it is whole: RFC 6946.
        if place != 0 || more {
            // The fragment's headers are part of the length that a packet of all fragments has.
            chain.fragment =
                super::fragment(place, more, chain.end - after, after - start - 8)? as usize;
            chain.id = u32::from_be_bytes([i0, i1, i2, i3]);
            if place == 1 && next == protocol::TCP {
                return Err(DropReason::TinyFragment);
            }
        }
    }
    chain.number = next;
    chain.offset = after;
    Ok(())
}
