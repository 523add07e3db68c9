//! Frames: a [`Builder`] for what a scenario sends by hand, and [`Frame`], what a judge looks at in one that
//! was seen.
//!
//! Pure; keeps no state. etherparse knows the formats, except GRE, which is here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context, Result};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, LaxNetSlice, LaxSlicedPacket, PacketBuilder,
};

/// EtherType of what has no meaning outside a scenario (IEEE 802, local experimental).
pub const ETHER_TYPE_PROBE: u16 = 0x88b5;
/// IP protocol number of GRE.
pub const PROTOCOL_GRE: u8 = 47;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// GRE's protocol type for Ethernet frames.
pub const GRE_ETHERNET: u16 = 0x6558;
/// GRE flag: a key follows (RFC 2890).
const GRE_KEY: u16 = 0x2000;
/// GRE flags that add 4 bytes each in front of the key (checksum) and behind it (sequence number).
const GRE_CHECKSUM: u16 = 0x8000;
const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// IPv6 extension headers (RFC 8200, 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// The locally administered address that a workload with this IP address gets: `02:00` and its bytes.
    pub fn of_address(address: Ipv4Addr) -> Mac {
        let [a, b, c, d] = address.octets();
        Mac([2, 0, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Mac> {
        let mut bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let mut mac = [0; 6];
        for byte in &mut mac {
            *byte = bytes
                .next()
                .with_context(|| format!("{text:?} is no MAC address"))??;
        }
        anyhow::ensure!(bytes.next().is_none(), "{text:?} is no MAC address");
        Ok(Mac(mac))
    }
}

/// Makes frames from one station to another.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    /// Who sends.
    pub source: Mac,
    /// Who is meant.
    pub destination: Mac,
}

impl Builder {
    /// A frame of [`ETHER_TYPE_PROBE`] that holds a label by which it is recognised.
    pub fn probe(&self, label: &str) -> Vec<u8> {
        let mut payload = label.as_bytes().to_vec();
        payload.resize(payload.len().max(46), 0);
        self.ethernet(ETHER_TYPE_PROBE, &payload)
    }

    /// A frame with any payload.
    pub fn ethernet(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET_LEN + payload.len());
        frame.extend(self.destination.0);
        frame.extend(self.source.0);
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// An ICMP echo request, or the reply to one.
    pub fn echo(
        &self,
        from: Ipv4Addr,
        to: Ipv4Addr,
        echo: Echo,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        let builder = PacketBuilder::ethernet2(self.source.0, self.destination.0).ipv4(
            from.octets(),
            to.octets(),
            64,
        );
        let builder = match echo {
            Echo::Request { id, seq } => builder.icmpv4_echo_request(id, seq),
            Echo::Reply { id, seq } => builder.icmpv4_echo_reply(id, seq),
        };
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload)?;
        Ok(frame)
    }

    /// An ARP message: who sends what to whom.
    pub fn arp(
        &self,
        operation: ArpOperation,
        sender: (Mac, Ipv4Addr),
        target: (Mac, Ipv4Addr),
    ) -> Result<Vec<u8>> {
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            operation,
            &sender.0.0,
            &sender.1.octets(),
            &target.0.0,
            &target.1.octets(),
        )?;
        let builder = PacketBuilder::ethernet2(self.source.0, self.destination.0).arp(arp);
        let mut frame = Vec::with_capacity(builder.size());
        builder.write(&mut frame)?;
        Ok(frame)
    }

    /// A UDP datagram in IPv4; addresses and ports are the sender's and the receiver's.
    pub fn udp(
        &self,
        (from, from_port): (Ipv4Addr, u16),
        (to, to_port): (Ipv4Addr, u16),
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        let builder = PacketBuilder::ethernet2(self.source.0, self.destination.0)
            .ipv4(from.octets(), to.octets(), 64)
            .udp(from_port, to_port);
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload)?;
        Ok(frame)
    }

    /// GRE in IPv4: with a key (all 32 bits of it) or without, and any protocol type and payload.
    pub fn gre(&self, from: Ipv4Addr, to: Ipv4Addr, gre: Gre, payload: &[u8]) -> Result<Vec<u8>> {
        let body = gre.with_payload(payload);
        let builder = PacketBuilder::ethernet2(self.source.0, self.destination.0).ipv4(
            from.octets(),
            to.octets(),
            64,
        );
        let mut frame = Vec::with_capacity(builder.size(body.len()));
        builder.write(&mut frame, PROTOCOL_GRE.into(), &body)?;
        Ok(frame)
    }
}

/// One of the two ICMP echo messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "identifier and sequence number are RFC 792's words"
)]
pub enum Echo {
    /// Type 8.
    Request { id: u16, seq: u16 },
    /// Type 0.
    Reply { id: u16, seq: u16 },
}

/// A GRE header (RFC 2784) without checksum or sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gre {
    /// The key of RFC 2890.
    pub key: Option<u32>,
    /// EtherType of the payload.
    pub protocol: u16,
}

impl Gre {
    /// The header with its payload behind it.
    pub fn with_payload(self, payload: &[u8]) -> Vec<u8> {
        let flags = if self.key.is_some() { GRE_KEY } else { 0 };
        let mut bytes = Vec::with_capacity(8 + payload.len());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.protocol.to_be_bytes());
        bytes.extend(self.key.into_iter().flat_map(u32::to_be_bytes));
        bytes.extend(payload);
        bytes
    }

    /// The header and what follows it; none if it is cut short.
    fn parse(bytes: &[u8]) -> Option<(Gre, &[u8])> {
        let (head, mut rest) = bytes.split_first_chunk::<4>()?;
        let flags = u16::from_be_bytes([head[0], head[1]]);
        if flags & GRE_CHECKSUM != 0 {
            rest = rest.get(4..)?;
        }
        let mut key = None;
        if flags & GRE_KEY != 0 {
            let (bytes, after) = rest.split_first_chunk::<4>()?;
            key = Some(u32::from_be_bytes(*bytes));
            rest = after;
        }
        Some((
            Gre {
                key,
                protocol: u16::from_be_bytes([head[2], head[3]]),
            },
            rest,
        ))
    }
}

/// What a judge looks at in a frame. It may have been cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Source MAC.
    pub source: Mac,
    /// Destination MAC.
    pub destination: Mac,
    /// EtherType.
    pub ether_type: u16,
    /// What is inside.
    pub content: Content,
}

/// What is inside a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// ARP for IPv4.
    Arp {
        /// 1 asks, 2 answers.
        operation: u16,
        /// Who sends it.
        sender: Ipv4Addr,
        /// Whom it is about.
        target: Ipv4Addr,
    },
    /// IPv4.
    Ipv4 {
        /// Source address.
        source: Ipv4Addr,
        /// Destination address.
        destination: Ipv4Addr,
        /// Time to live.
        ttl: u8,
        /// What is inside.
        transport: Transport,
    },
    /// IPv6.
    Ipv6 {
        /// Source address.
        source: Ipv6Addr,
        /// Destination address.
        destination: Ipv6Addr,
        /// Hop limit.
        hop_limit: u8,
        /// What is inside, behind extension headers.
        transport: Transport,
    },
    /// A frame of [`ETHER_TYPE_PROBE`], by its label.
    Probe(String),
    /// Anything else.
    Other,
}

/// What is inside an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields have the RFCs' names")]
pub enum Transport {
    /// ICMP or ICMPv6; id and sequence number where it is an echo message.
    Icmp {
        kind: u8,
        code: u8,
        echo: Option<Echo>,
    },
    /// TCP.
    Tcp { source: u16, destination: u16 },
    /// UDP.
    Udp { source: u16, destination: u16 },
    /// GRE, with the frame inside.
    Gre { gre: Gre, inner: Option<Box<Frame>> },
    /// A fragment that isn't the first: no header to see.
    LaterFragment { protocol: u8 },
    /// Any other protocol.
    Other { protocol: u8 },
}

impl Frame {
    /// Reads a frame; none if not even its Ethernet header is there.
    pub fn parse(bytes: &[u8]) -> Option<Frame> {
        let (header, payload) = bytes.split_first_chunk::<ETHERNET_LEN>()?;
        let ether_type = u16::from_be_bytes([header[12], header[13]]);
        let content = if ether_type == ETHER_TYPE_PROBE {
            let label = payload.split(|&byte| byte == 0).next().unwrap_or_default();
            Content::Probe(String::from_utf8_lossy(label).into_owned())
        } else {
            content_of(bytes).unwrap_or(Content::Other)
        };
        Some(Frame {
            source: mac_at(header, 6),
            destination: mac_at(header, 0),
            ether_type,
            content,
        })
    }

    /// Source and destination address and transport, if it is IPv4.
    pub fn ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr, &Transport)> {
        match &self.content {
            Content::Ipv4 {
                source,
                destination,
                transport,
                ttl: _,
            } => Some((*source, *destination, transport)),
            Content::Arp { .. } | Content::Ipv6 { .. } | Content::Probe(_) | Content::Other => None,
        }
    }

    /// Source and destination address and transport, if it is IPv4 or IPv6.
    pub fn ip(&self) -> Option<(IpAddr, IpAddr, &Transport)> {
        match &self.content {
            Content::Ipv6 {
                source,
                destination,
                transport,
                hop_limit: _,
            } => Some(((*source).into(), (*destination).into(), transport)),
            _ => {
                let (source, destination, transport) = self.ipv4()?;
                Some((source.into(), destination.into(), transport))
            }
        }
    }

    /// Source and destination address and ICMPv6 type, if it is ICMPv6.
    pub fn icmpv6(&self) -> Option<(Ipv6Addr, Ipv6Addr, u8)> {
        match &self.content {
            Content::Ipv6 {
                source,
                destination,
                transport: Transport::Icmp { kind, .. },
                ..
            } => Some((*source, *destination, *kind)),
            _ => None,
        }
    }

    /// The GRE header and the frame inside it, if it is a tunnel packet with a key.
    pub fn tunnelled(&self) -> Option<(u32, Option<&Frame>)> {
        match self.ipv4()? {
            (_, _, Transport::Gre { gre, inner }) if gre.protocol == GRE_ETHERNET => {
                Some((gre.key?, inner.as_deref()))
            }
            _ => None,
        }
    }

    /// Whether it is a probe with this label.
    pub fn is_probe(&self, label: &str) -> bool {
        matches!(&self.content, Content::Probe(found) if found == label)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} > {}, ", self.source, self.destination)?;
        match &self.content {
            Content::Arp {
                operation: 1,
                sender,
                target,
            } => {
                write!(out, "ARP who has {target}, tell {sender}")
            }
            Content::Arp {
                operation,
                sender,
                target,
            } => {
                write!(out, "ARP {operation} from {sender} to {target}")
            }
            Content::Ipv4 {
                source,
                destination,
                ttl,
                transport,
            } => {
                write!(out, "{source} > {destination}, ttl {ttl}, {transport}")
            }
            Content::Ipv6 {
                source,
                destination,
                hop_limit,
                transport,
            } => {
                write!(
                    out,
                    "{source} > {destination}, hop limit {hop_limit}, {transport}"
                )
            }
            Content::Probe(label) => write!(out, "probe {label:?}"),
            Content::Other => write!(out, "type {:#06x}", self.ether_type),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Icmp {
                echo: Some(Echo::Request { id, seq }),
                ..
            } => {
                write!(out, "ICMP echo request, id {id}, seq {seq}")
            }
            Transport::Icmp {
                echo: Some(Echo::Reply { id, seq }),
                ..
            } => {
                write!(out, "ICMP echo reply, id {id}, seq {seq}")
            }
            Transport::Icmp {
                kind,
                code,
                echo: None,
            } => {
                write!(out, "ICMP type {kind}, code {code}")
            }
            Transport::Tcp {
                source,
                destination,
            } => write!(out, "TCP {source} > {destination}"),
            Transport::Udp {
                source,
                destination,
            } => write!(out, "UDP {source} > {destination}"),
            Transport::Gre { gre, inner } => {
                match gre.key {
                    Some(key) => write!(out, "GRE key {key:#x}")?,
                    None => write!(out, "GRE without a key")?,
                }
                write!(out, ", type {:#06x}", gre.protocol)?;
                inner
                    .as_ref()
                    .map_or(Ok(()), |inner| write!(out, " [{inner}]"))
            }
            Transport::LaterFragment { protocol } => {
                write!(out, "later fragment of protocol {protocol}")
            }
            Transport::Other { protocol } => write!(out, "protocol {protocol}"),
        }
    }
}

fn mac_at(header: &[u8; ETHERNET_LEN], at: usize) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(&header[at..at + 6]);
    Mac(mac)
}

fn content_of(bytes: &[u8]) -> Option<Content> {
    let packet = LaxSlicedPacket::from_ethernet(bytes).ok()?;
    match packet.net? {
        LaxNetSlice::Arp(arp) => {
            let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
            Some(Content::Arp {
                operation: arp.operation().0,
                sender: address(arp.sender_protocol_addr())?,
                target: address(arp.target_protocol_addr())?,
            })
        }
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let protocol = ip.payload().ip_number.0;
            let transport = if header.fragments_offset().value() != 0 {
                Transport::LaterFragment { protocol }
            } else if protocol == PROTOCOL_GRE {
                gre_of(ip.payload().payload)
            } else {
                transport_of(protocol, ip.payload().payload)
            };
            Some(Content::Ipv4 {
                source: header.source_addr(),
                destination: header.destination_addr(),
                ttl: header.ttl(),
                transport,
            })
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some(Content::Ipv6 {
                source: header.source_addr(),
                destination: header.destination_addr(),
                hop_limit: header.hop_limit(),
                transport: transport_of_v6(
                    header.next_header().0,
                    bytes.get(ETHERNET_LEN + IPV6_LEN..)?,
                ),
            })
        }
    }
}

/// What is behind the extension headers of IPv6 (RFC 8200, 4).
fn transport_of_v6(mut protocol: u8, mut rest: &[u8]) -> Transport {
    loop {
        let (length, offset) = match (protocol, rest) {
            (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS, [_, length, ..]) => {
                ((usize::from(*length) + 1) * 8, 0)
            }
            (FRAGMENT, [_, _, high, low, ..]) => (8, u16::from_be_bytes([*high, *low]) >> 3),
            _ => return transport_of(protocol, rest),
        };
        protocol = rest[0];
        if offset != 0 {
            return Transport::LaterFragment { protocol };
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn gre_of(payload: &[u8]) -> Transport {
    let Some((gre, rest)) = Gre::parse(payload) else {
        return Transport::Other {
            protocol: PROTOCOL_GRE,
        };
    };
    let inner = (gre.protocol == GRE_ETHERNET)
        .then(|| Frame::parse(rest))
        .flatten();
    Transport::Gre {
        gre,
        inner: inner.map(Box::new),
    }
}

/// The transport header's first 8 bytes, which a first fragment has, too (etherparse leaves fragments alone).
fn transport_of(protocol: u8, payload: &[u8]) -> Transport {
    let Some(&[a, b, c, d, e, f, g, h]) = payload.first_chunk() else {
        return Transport::Other { protocol };
    };
    let number = |high, low| u16::from_be_bytes([high, low]);
    match protocol {
        1 | PROTOCOL_ICMPV6 => {
            let (id, seq) = (number(e, f), number(g, h));
            let echo = match a {
                8 if protocol == 1 => Some(Echo::Request { id, seq }),
                0 if protocol == 1 => Some(Echo::Reply { id, seq }),
                128 if protocol == PROTOCOL_ICMPV6 => Some(Echo::Request { id, seq }),
                129 if protocol == PROTOCOL_ICMPV6 => Some(Echo::Reply { id, seq }),
                _ => None,
            };
            Transport::Icmp {
                kind: a,
                code: b,
                echo,
            }
        }
        6 => Transport::Tcp {
            source: number(a, b),
            destination: number(c, d),
        },
        17 => Transport::Udp {
            source: number(a, b),
            destination: number(c, d),
        },
        _ => Transport::Other { protocol },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
    const BUILDER: Builder = Builder {
        source: ONE,
        destination: TWO,
    };

    #[test]
    fn a_built_frame_reads_as_what_it_is() {
        let echo = Echo::Request { id: 7, seq: 1 };
        let frame = Frame::parse(&BUILDER.echo(A, B, echo, b"payload").unwrap()).unwrap();
        assert_eq!((frame.source, frame.destination), (ONE, TWO));
        let icmp = Transport::Icmp {
            kind: 8,
            code: 0,
            echo: Some(echo),
        };
        assert_eq!(frame.ipv4(), Some((A, B, &icmp)));

        let asked = BUILDER
            .arp(ArpOperation::REQUEST, (ONE, A), (TWO, B))
            .unwrap();
        let arp = Content::Arp {
            operation: 1,
            sender: A,
            target: B,
        };
        assert_eq!(Frame::parse(&asked).unwrap().content, arp);
        assert!(Frame::parse(&BUILDER.probe("one")).unwrap().is_probe("one"));
    }

    #[test]
    fn a_tunnel_packet_shows_its_key_and_the_frame_inside_although_it_is_cut_short() {
        let inner = BUILDER.probe("inside");
        let gre = Gre {
            key: Some(0x1234),
            protocol: GRE_ETHERNET,
        };
        let bytes = BUILDER.gre(A, B, gre, &inner).unwrap();
        let frame = Frame::parse(&bytes[..bytes.len() - 30]).unwrap();
        let (key, inside) = frame.tunnelled().unwrap();
        assert_eq!(key, 0x1234);
        assert!(inside.unwrap().is_probe("inside"), "{frame}");
        let plain = BUILDER
            .gre(
                A,
                B,
                Gre {
                    key: None,
                    protocol: 0x0800,
                },
                &[],
            )
            .unwrap();
        assert_eq!(Frame::parse(&plain).unwrap().tunnelled(), None);
    }

    #[test]
    fn fragments_are_told_apart() {
        let mut bytes = BUILDER
            .echo(A, B, Echo::Reply { id: 1, seq: 2 }, &[0; 64])
            .unwrap();
        bytes[20] = 0x20; // more fragments
        let first = Frame::parse(&bytes).unwrap();
        let echo = Some(Echo::Reply { id: 1, seq: 2 });
        assert_eq!(
            first.ipv4().unwrap().2,
            &Transport::Icmp {
                kind: 0,
                code: 0,
                echo
            }
        );
        bytes[21] = 8; // 64 bytes in
        let later = Frame::parse(&bytes).unwrap();
        assert_eq!(
            later.ipv4().unwrap().2,
            &Transport::LaterFragment { protocol: 1 }
        );
    }
}
