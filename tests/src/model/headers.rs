//! What a frame's headers say, read slowly and by the RFCs' words: the other opinion for the differential tests and
//! for the fuzz target `extract`. Shares no code with `weft_common::extract`, and no way of reading: it takes a frame
//! apart into lists of headers and judges them afterwards.
//!
//! Only `std`: the fuzz crate includes this file by its path.

/// What kind of packet, and what of it decides where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An opaque frame of this Ethernet type; 0 for a frame with a length.
    Other(u16),
    /// ARP (RFC 826): operation as far as it fits a byte, sender, target.
    Arp(u8, [u8; 4], [u8; 4]),
    /// IPv4 or IPv6.
    Ip(Ip),
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// 4 or 16 bytes.
    pub src: Vec<u8>,
    /// 4 or 16 bytes.
    pub dst: Vec<u8>,
    /// Of the upper layer, or what a later fragment names.
    pub protocol: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// 0 whole, 1 first, 2 later.
    pub fragment: u8,
    /// Identification of a fragment, else 0.
    pub id: u32,
    /// What the first 4 bytes of the upper layer are to the key: ports, or type and code and the echo identifier.
    pub ports: (u16, u16),
    /// Bytes from the start of the frame to the upper layer; 0 for later fragments.
    pub upper: usize,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// VLAN id of the outermost tag.
    pub vlan: Option<u16>,
    /// Bytes from the start of the frame to the network header.
    pub network: usize,
    /// The rest.
    pub kind: Kind,
}

/// Name of a drop reason.
pub type Refusal = &'static str;

/// A packet as a list of numbers that can run out.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.0.get(..count)?;
        self.0 = &self.0[count..];
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let taken = self.take(bytes)?;
        Some(
            taken
                .iter()
                .fold(0, |sum, &byte| sum * 256 + u64::from(byte)),
        )
    }
}

/// Reads a frame; `metadata` is the VLAN id of a tag that isn't in its bytes.
pub fn read(frame: &[u8], metadata: Option<u16>) -> Result<Headers, Refusal> {
    let mut rest = Reader(frame);
    let dst_mac = rest.take(6).ok_or("truncated")?.try_into().unwrap();
    let src_mac = rest.take(6).ok_or("truncated")?.try_into().unwrap();
    let mut ethertype = rest.number(2).ok_or("truncated")?;
    let mut vlan = metadata;
    if vlan.is_none() && [0x8100, 0x88a8].contains(&ethertype) {
        vlan = Some(rest.number(2).ok_or("truncated")? as u16 % 4096);
        ethertype = rest.number(2).ok_or("truncated")?;
    }
    let network = frame.len() - rest.0.len();
    let kind = match ethertype {
        0x0800 => Kind::Ip(ipv4(rest.0, network)?),
        0x86dd => Kind::Ip(ipv6(rest.0, network)?),
        0x0806 => arp(rest)?,
        0..=1535 => Kind::Other(0),
        other => Kind::Other(other as u16),
    };
    Ok(Headers {
        dst_mac,
        src_mac,
        vlan,
        network,
        kind,
    })
}

fn arp(mut rest: Reader<'_>) -> Result<Kind, Refusal> {
    if rest.0.len() < 28 {
        return Err("truncated");
    }
    let hardware = rest.number(2);
    let protocol = rest.number(2);
    let lengths = (rest.number(1), rest.number(1));
    if (hardware, protocol, lengths) != (Some(1), Some(0x0800), (Some(6), Some(4))) {
        return Err("bad_arp");
    }
    let operation = rest.number(2).unwrap().min(255) as u8;
    rest.take(6);
    let sender = rest.take(4).unwrap().try_into().unwrap();
    rest.take(6);
    let target = rest.take(4).unwrap().try_into().unwrap();
    Ok(Kind::Arp(operation, sender, target))
}

/// RFC 791, 3.1.
fn ipv4(bytes: &[u8], network: usize) -> Result<Ip, Refusal> {
    let mut fixed = Reader(bytes.get(..20).ok_or("truncated")?);
    let first = fixed.number(1).unwrap();
    let (version, words) = (first / 16, first % 16);
    if version != 4 || words < 5 {
        return Err("bad_header");
    }
    let header = words as usize * 4;
    let tos = fixed.number(1).unwrap() as u8;
    let total = fixed.number(2).unwrap() as usize;
    if total == 0 && bytes.len() > 65_535 {
        return Err("jumbogram");
    }
    if total < header {
        return Err("bad_header");
    }
    if total > bytes.len() {
        return Err("short_frame");
    }
    let id = fixed.number(2).unwrap() as u32;
    let flags_and_offset = fixed.number(2).unwrap();
    let more = flags_and_offset / 0x2000 % 2 == 1;
    let start = flags_and_offset as usize % 0x2000 * 8;
    let ttl = fixed.number(1).unwrap() as u8;
    let protocol = fixed.number(1).unwrap() as u8;
    fixed.take(2);
    let src = fixed.take(4).unwrap().to_vec();
    let dst = fixed.take(4).unwrap().to_vec();
    let payload = &bytes[header..total];
    let fragment = judge_fragment(start, more, payload.len(), header, protocol)?;
    let ports = match fragment {
        2 => (0, 0),
        _ => upper(protocol, payload, fragment == 1)?,
    };
    Ok(Ip {
        src,
        dst,
        protocol,
        tos,
        ttl,
        fragment,
        id: if fragment == 0 { 0 } else { id },
        ports,
        upper: if fragment == 2 { 0 } else { network + header },
    })
}

/// 0 whole, 1 first, 2 later. `overhead` is what counts for the whole packet's length besides the payload.
fn judge_fragment(
    start: usize,
    more: bool,
    payload: usize,
    overhead: usize,
    protocol: u8,
) -> Result<u8, Refusal> {
    if start == 0 && !more {
        return Ok(0);
    }
    if payload == 0 || (more && !payload.is_multiple_of(8)) || start + payload + overhead > 65_535 {
        return Err("bad_fragment");
    }
    // RFC 1858, 4.2: TCP's flags are in bytes 8 to 16.
    if protocol == 6 && start == 8 {
        return Err("tiny_fragment");
    }
    Ok(if start == 0 { 1 } else { 2 })
}

/// RFC 8200, 3 and 4.
fn ipv6(bytes: &[u8], network: usize) -> Result<Ip, Refusal> {
    let mut fixed = Reader(bytes.get(..40).ok_or("truncated")?);
    let first = fixed.number(4).unwrap();
    if first >> 28 != 6 {
        return Err("bad_header");
    }
    let tos = (first >> 20) as u8;
    let length = fixed.number(2).unwrap() as usize;
    let next = fixed.number(1).unwrap() as u8;
    let ttl = fixed.number(1).unwrap() as u8;
    let src = fixed.take(16).unwrap().to_vec();
    let dst = fixed.take(16).unwrap().to_vec();
    if length == 0 && (next == 0 || bytes.len() - 40 > 65_535) {
        return Err("jumbogram");
    }
    let packet = bytes.get(40..40 + length).ok_or("short_frame")?;
    let Chain {
        next,
        passed,
        fragment,
        id,
    } = chain(packet, next)?;
    let ports = match fragment {
        2 => (0, 0),
        _ => upper(next, &packet[passed..], fragment == 1)?,
    };
    Ok(Ip {
        src,
        dst,
        protocol: next,
        tos,
        ttl,
        fragment,
        id,
        ports,
        upper: if fragment == 2 {
            0
        } else {
            network + 40 + passed
        },
    })
}

/// What lies behind a chain of extension headers.
struct Chain {
    next: u8,
    passed: usize,
    fragment: u8,
    id: u32,
}

fn chain(packet: &[u8], mut next: u8) -> Result<Chain, Refusal> {
    let (mut passed, mut count) = (0, 0);
    let (mut fragment, mut id) = (0, 0);
    while fragment != 2 && [0, 43, 44, 51, 60].contains(&next) {
        count += 1;
        if count > 6 {
            return Err("too_many_extensions");
        }
        if next == 0 && count != 1 {
            return Err("bad_extension");
        }
        let cut = if fragment == 1 {
            "tiny_fragment"
        } else {
            "bad_extension"
        };
        let mut header = Reader(&packet[passed..]);
        let fields = header.take(8).ok_or(cut)?;
        let size = match next {
            44 => 8,
            51 => 8 + 4 * usize::from(fields[1]),
            _ => 8 + 8 * usize::from(fields[1]),
        };
        header.take(size - 8).ok_or(cut)?;
        passed += size;
        if passed > 256 {
            return Err("too_many_extensions");
        }
        let named = fields[0];
        if next == 44 {
            if fragment == 1 {
                return Err("bad_extension");
            }
            let field = usize::from(fields[2]) * 256 + usize::from(fields[3]);
            let (start, more) = (field / 8 * 8, field % 2 == 1);
            let rest = packet.len() - passed;
            fragment = judge_fragment(start, more, rest, passed - 8, named)?;
            if fragment != 0 {
                id = fields[4..]
                    .iter()
                    .fold(0, |sum, &byte| sum << 8 | u32::from(byte));
            }
        }
        next = named;
    }
    Ok(Chain {
        next,
        passed,
        fragment,
        id,
    })
}

/// Ports of TCP, UDP and SCTP; type, code and echo identifier of ICMP and ICMPv6.
fn upper(protocol: u8, payload: &[u8], is_first: bool) -> Result<(u16, u16), Refusal> {
    let shortest = match protocol {
        6 => 20,
        132 => 12,
        17 | 1 | 58 => 8,
        _ => return Ok((0, 0)),
    };
    if payload.len() < shortest {
        return Err(if is_first {
            "tiny_fragment"
        } else {
            "truncated"
        });
    }
    let word =
        |index: usize| u16::from(payload[2 * index]) * 256 + u16::from(payload[2 * index + 1]);
    let is_echo = match protocol {
        1 => [0, 8].contains(&payload[0]),
        58 => [128, 129].contains(&payload[0]),
        _ => return Ok((word(0), word(1))),
    };
    Ok((word(0), if is_echo { word(2) } else { 0 }))
}
