//! IPv4 (RFC 791): options are skipped, fragments are told apart.

use super::{Frame, Headers, protocol, upper};
use crate::drop::DropReason;
use crate::key::{self, FlowKey, Fragment, Network};

/// More fragments follow.
const MORE: u16 = 0x2000;
/// Offset of a fragment, in units of 8 bytes.
const OFFSET: u16 = 0x1fff;
const HEADER_LEN_MIN: usize = 20;

/// Fills `key` from the packet at `offset`.
#[inline(always)]
pub fn extract<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let header = frame
        .bytes::<HEADER_LEN_MIN>(offset)
        .ok_or(DropReason::Truncated)?;
    let [version, tos, l0, l1, i0, i1, f0, f1, ttl, protocol, ..] = header;
    let [.., a, b, c, d, e, f, g, h] = header;
    let header_length = usize::from(version & 0x0f) * 4;
    let length = u16::from_be_bytes([l0, l1]);
    if version >> 4 != 4 || header_length < HEADER_LEN_MIN {
        return Err(DropReason::BadHeader);
    }
    if usize::from(length) < header_length {
        // Linux makes packets that are longer than the field holds, with 0 in it ("BIG TCP").
        let is_jumbo = length == 0 && frame.length() > offset + 0xffff;
        return Err(if is_jumbo {
            DropReason::Jumbogram
        } else {
            DropReason::BadHeader
        });
    }
    if offset + usize::from(length) > frame.length() {
        return Err(DropReason::ShortFrame);
    }
    let payload = usize::from(length) - header_length;
    let field = u16::from_be_bytes([f0, f1]);
    let (start, more) = (field & OFFSET, field & MORE != 0);
    let mut headers = Headers {
        ttl,
        l3_offset: offset as u16,
        l3_length: length,
        l4_offset: (offset + header_length) as u16,
        fragment_id: 0,
    };
    let mut fragment = Fragment::Whole;
    if start != 0 || more {
        fragment = super::fragment(start, more, payload, header_length)?;
        headers.fragment_id = u32::from(u16::from_be_bytes([i0, i1]));
        // A second fragment so early would lie over the flags of the first one's TCP header (RFC 1858, 4).
        if start == 1 && protocol == protocol::TCP {
            return Err(DropReason::TinyFragment);
        }
    }
    key.head.class = key::class(0, Network::Ipv4, fragment);
    key.head.protocol = protocol;
    key.head.tos = tos;
    key.set_src_v4([a, b, c, d]);
    key.set_dst_v4([e, f, g, h]);
    if start == 0 {
        upper::extract(frame, offset + header_length, payload, key)?;
    } else {
        headers.l4_offset = 0;
    }
    Ok(headers)
}
