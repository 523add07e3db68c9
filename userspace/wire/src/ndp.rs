//! Neighbour discovery for IPv6 over Ethernet (RFC 4861), as far as hosts and routers of one link need it:
//! solicitations and advertisements of neighbours and of routers.
//!
//! No state. Called where a bridge or router answers for an address, asks for one, learns one, or advertises itself.
//! What is parsed has passed the checks of RFC 4861, 6.1 and 7.1, but for those that need to know the receiver.

use crate::ethernet;
use etherparse::icmpv6::{
    Icmpv6PayloadSlice, NdpOptionSlice, NdpOptionType, NdpOptionsIterator,
    NeighborAdvertisementHeader, NeighborSolicitationPayload, RouterAdvertisementHeader,
};
use etherparse::{EtherType, Icmpv6Header, Icmpv6Slice, Icmpv6Type, IpNumber, Ipv6Header};
use std::fmt;
use std::net::Ipv6Addr;

pub use etherparse::icmpv6::PrefixInformation;

/// Hop limit of every packet of neighbour discovery: a router in between would have made it less.
pub const HOP_LIMIT: u8 = 255;
/// Every node of the link (RFC 4291, 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every router of the link (RFC 4291, 2.7.1).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// ICMPv6 type numbers (RFC 4861, 4).
pub mod icmp_type {
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// A packet of neighbour discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nd {
    /// IPv6 source; unspecified (`::`) in a probe and from a host that has no address yet.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// What it says.
    pub message: Message,
}

/// What a packet of neighbour discovery says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Which routers are there?
    RouterSolicitation {
        /// The sender's MAC.
        source_mac: Option<[u8; 6]>,
    },
    /// The sender is a router.
    RouterAdvertisement(RouterAdvertisement),
    /// Who has `target`?
    NeighbourSolicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The sender's MAC.
        source_mac: Option<[u8; 6]>,
    },
    /// `target` is there.
    NeighbourAdvertisement {
        /// The sender is a router.
        router: bool,
        /// It was asked.
        solicited: bool,
        /// The MAC replaces one that is known.
        replaces: bool,
        /// The address spoken of.
        target: Ipv6Addr,
        /// Its MAC.
        target_mac: Option<[u8; 6]>,
    },
}

/// What a router says of itself and its link. Of what others may say besides (timers of neighbours, options) nothing
/// is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Hop limit that hosts should use; 0 for none in particular.
    pub hop_limit: u8,
    /// Seconds for which it is a default router; 0 for not at all.
    pub lifetime_secs: u16,
    /// The router's MAC.
    pub source_mac: Option<[u8; 6]>,
    /// Largest packet of the link, in bytes.
    pub mtu: Option<u32>,
    /// Prefixes of the link.
    pub prefixes: Vec<PrefixInformation>,
}

/// Why a packet is no valid packet of neighbour discovery (RFC 4861, 6.1 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NdError {
    /// It isn't a whole packet, or has extension headers (RFC 6980 forbids fragments, and nobody sends others).
    #[error("the packet is cut short, in fragments or behind extension headers")]
    Malformed,
    /// It came from another link.
    #[error("hop limit {hop_limit}, expected 255")]
    HopLimit {
        /// The one that it has.
        hop_limit: u8,
    },
    /// Its checksum is wrong.
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
    /// It is none of the four messages, or has a code.
    #[error("ICMPv6 type {icmp_type} code {code}, expected a type from 133 to 136 with code 0")]
    Type {
        /// Its type.
        icmp_type: u8,
        /// Its code.
        code: u8,
    },
    /// It speaks of a group, which nobody has.
    #[error("the target is a group")]
    GroupTarget,
    /// An option ends beyond the packet, or has no length.
    #[error("an option is malformed")]
    Option,
    /// Source, destination and contents don't fit together.
    #[error("{0}")]
    Addresses(&'static str),
}

impl Nd {
    /// The packet in these bytes, which begin with the IPv6 header and may be followed by padding.
    ///
    /// # Errors
    /// [`NdError`].
    pub fn parse(packet: &[u8]) -> Result<Nd, NdError> {
        let (header, rest) = Ipv6Header::from_slice(packet).map_err(|_| NdError::Malformed)?;
        let length = usize::from(header.payload_length);
        let body = rest.get(..length).ok_or(NdError::Malformed)?;
        if header.next_header != IpNumber::IPV6_ICMP {
            return Err(NdError::Malformed);
        }
        let icmp = Icmpv6Slice::from_slice(body).map_err(|_| NdError::Malformed)?;
        let (icmp_type, code) = (icmp.type_u8(), icmp.code_u8());
        if code != 0 {
            return Err(NdError::Type { icmp_type, code });
        }
        if header.hop_limit != HOP_LIMIT {
            let hop_limit = header.hop_limit;
            return Err(NdError::HopLimit { hop_limit });
        }
        if !icmp.is_checksum_valid(header.source, header.destination) {
            return Err(NdError::Checksum);
        }
        let nd = Nd {
            source: header.source.into(),
            destination: header.destination.into(),
            message: Message::parse(&icmp)?,
        };
        nd.check().map(|()| nd)
    }

    /// The packet with its IPv6 header.
    pub fn emit(&self) -> Vec<u8> {
        let (kind, body) = self.message.emit();
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let icmp = Icmpv6Header {
            // The sum fails for bodies of 4 GiB only.
            checksum: kind.calc_checksum(source, destination, &body).unwrap_or(0),
            icmp_type: kind,
        };
        let header = Ipv6Header {
            payload_length: (Icmpv6Header::MIN_LEN + body.len()) as u16,
            next_header: IpNumber::IPV6_ICMP,
            hop_limit: HOP_LIMIT,
            source,
            destination,
            ..Ipv6Header::default()
        };
        [&header.to_bytes()[..], &icmp.to_bytes(), &body].concat()
    }

    /// The packet in a frame.
    pub fn frame(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        ethernet::frame(destination, source, EtherType::IPV6.0, &self.emit())
    }

    /// The question who has `target`, to the group of those who may.
    pub fn solicitation(source: Ipv6Addr, source_mac: [u8; 6], target: Ipv6Addr) -> Nd {
        Nd {
            source,
            destination: solicited_node(target),
            message: Message::NeighbourSolicitation {
                target,
                source_mac: Some(source_mac),
            },
        }
    }

    /// The answer to who asked for `target`: `mac` has it. A probe (RFC 4862, 5.4.3), which comes from nobody, is
    /// answered to everyone.
    pub fn advertisement(target: Ipv6Addr, mac: [u8; 6], router: bool, asker: Ipv6Addr) -> Nd {
        let is_probe = asker.is_unspecified();
        Nd {
            source: target,
            destination: if is_probe { ALL_NODES } else { asker },
            message: Message::NeighbourAdvertisement {
                router,
                solicited: !is_probe,
                replaces: true,
                target,
                target_mac: Some(mac),
            },
        }
    }

    /// What RFC 4861 asks of addresses: 6.1.1, 6.1.2, 7.1.1, 7.1.2.
    fn check(&self) -> Result<(), NdError> {
        let from_nobody = self.source.is_unspecified();
        match &self.message {
            Message::RouterSolicitation { source_mac } => {
                if from_nobody && source_mac.is_some() {
                    return Err(NdError::Addresses("a MAC for the unspecified address"));
                }
            }
            Message::RouterAdvertisement(_) => {
                if !self.source.is_unicast_link_local() {
                    return Err(NdError::Addresses("a router that isn't link-local"));
                }
            }
            Message::NeighbourSolicitation { target, source_mac } => {
                if target.is_multicast() {
                    return Err(NdError::GroupTarget);
                }
                if from_nobody && source_mac.is_some() {
                    return Err(NdError::Addresses("a MAC for the unspecified address"));
                }
                if from_nobody && self.destination != solicited_node(*target) {
                    return Err(NdError::Addresses("a probe outside of the target's group"));
                }
            }
            Message::NeighbourAdvertisement {
                solicited, target, ..
            } => {
                if target.is_multicast() {
                    return Err(NdError::GroupTarget);
                }
                if *solicited && self.destination.is_multicast() {
                    return Err(NdError::Addresses("an answer to everyone"));
                }
            }
        }
        Ok(())
    }
}

impl Message {
    fn parse(icmp: &Icmpv6Slice<'_>) -> Result<Message, NdError> {
        let payload = icmp.payload_slice().map_err(|_| NdError::Malformed)?;
        Ok(match payload {
            Icmpv6PayloadSlice::RouterSolicitation(it) => Message::RouterSolicitation {
                source_mac: Options::parse(it.options_iterator())?.source_mac,
            },
            Icmpv6PayloadSlice::NeighborSolicitation(it) => Message::NeighbourSolicitation {
                target: it.target_address(),
                source_mac: Options::parse(it.options_iterator())?.source_mac,
            },
            Icmpv6PayloadSlice::NeighborAdvertisement(it) => {
                let flags = NeighborAdvertisementHeader::from_bytes(icmp.bytes5to8());
                Message::NeighbourAdvertisement {
                    router: flags.router,
                    solicited: flags.solicited,
                    replaces: flags.r#override,
                    target: it.target_address(),
                    target_mac: Options::parse(it.options_iterator())?.target_mac,
                }
            }
            Icmpv6PayloadSlice::RouterAdvertisement(it) => {
                let fields = RouterAdvertisementHeader::from_bytes(icmp.bytes5to8());
                let options = Options::parse(it.options_iterator())?;
                Message::RouterAdvertisement(RouterAdvertisement {
                    hop_limit: fields.cur_hop_limit,
                    lifetime_secs: fields.router_lifetime,
                    source_mac: options.source_mac,
                    mtu: options.mtu,
                    prefixes: options.prefixes,
                })
            }
            _ => {
                return Err(NdError::Type {
                    icmp_type: icmp.type_u8(),
                    code: icmp.code_u8(),
                });
            }
        })
    }

    /// Type with flags, and what follows the first 8 bytes.
    fn emit(&self) -> (Icmpv6Type, Vec<u8>) {
        let mut body = Vec::new();
        match self {
            Message::RouterSolicitation { source_mac } => {
                put_mac(
                    &mut body,
                    NdpOptionType::SOURCE_LINK_LAYER_ADDRESS,
                    source_mac,
                );
                (Icmpv6Type::RouterSolicitation, body)
            }
            Message::NeighbourSolicitation { target, source_mac } => {
                let target_address = *target;
                body.extend(NeighborSolicitationPayload { target_address }.to_bytes());
                put_mac(
                    &mut body,
                    NdpOptionType::SOURCE_LINK_LAYER_ADDRESS,
                    source_mac,
                );
                (Icmpv6Type::NeighborSolicitation, body)
            }
            Message::NeighbourAdvertisement {
                router,
                solicited,
                replaces,
                target,
                target_mac,
            } => {
                body.extend(target.octets());
                put_mac(
                    &mut body,
                    NdpOptionType::TARGET_LINK_LAYER_ADDRESS,
                    target_mac,
                );
                let flags = NeighborAdvertisementHeader {
                    router: *router,
                    solicited: *solicited,
                    r#override: *replaces,
                };
                (Icmpv6Type::NeighborAdvertisement(flags), body)
            }
            Message::RouterAdvertisement(it) => {
                let fields = RouterAdvertisementHeader {
                    cur_hop_limit: it.hop_limit,
                    managed_address_config: false,
                    other_config: false,
                    router_lifetime: it.lifetime_secs,
                };
                (Icmpv6Type::RouterAdvertisement(fields), it.emit())
            }
        }
    }
}

impl RouterAdvertisement {
    /// What follows the first 8 bytes.
    fn emit(&self) -> Vec<u8> {
        // Reachable time and retransmission timer: unspecified.
        let mut body = vec![0; 8];
        put_mac(
            &mut body,
            NdpOptionType::SOURCE_LINK_LAYER_ADDRESS,
            &self.source_mac,
        );
        if let Some(mtu) = self.mtu {
            // Length in units of 8 bytes, then two reserved bytes (RFC 4861, 4.6.4).
            body.extend([NdpOptionType::MTU.0, 1, 0, 0]);
            body.extend(mtu.to_be_bytes());
        }
        body.extend(self.prefixes.iter().flat_map(PrefixInformation::to_bytes));
        body
    }
}

/// What options may say; of one that comes twice the first counts.
#[derive(Default)]
struct Options {
    source_mac: Option<[u8; 6]>,
    target_mac: Option<[u8; 6]>,
    mtu: Option<u32>,
    prefixes: Vec<PrefixInformation>,
}

impl Options {
    fn parse(options: NdpOptionsIterator<'_>) -> Result<Options, NdError> {
        let mut found = Options::default();
        for option in options {
            let mac = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).map_err(|_| NdError::Option);
            match option.map_err(|_| NdError::Option)? {
                NdpOptionSlice::SourceLinkLayerAddress(it) => {
                    let mac = mac(it.link_layer_address())?;
                    found.source_mac.get_or_insert(mac);
                }
                NdpOptionSlice::TargetLinkLayerAddress(it) => {
                    let mac = mac(it.link_layer_address())?;
                    found.target_mac.get_or_insert(mac);
                }
                NdpOptionSlice::Mtu(it) => _ = found.mtu.get_or_insert(it.mtu()),
                NdpOptionSlice::PrefixInformation(it) => {
                    found.prefixes.push(it.prefix_information());
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// An option with a MAC (RFC 4861, 4.6.1): type, length in units of 8 bytes, the MAC.
fn put_mac(body: &mut Vec<u8>, kind: NdpOptionType, mac: &Option<[u8; 6]>) {
    if let Some(mac) = mac {
        body.extend([kind.0, 1]);
        body.extend(mac);
    }
}

/// The group in which everyone listens whose address ends like this one (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

impl fmt::Display for Nd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source;
        match &self.message {
            Message::RouterSolicitation { source_mac: _ } => {
                write!(out, "{source} asks for routers")
            }
            Message::RouterAdvertisement(it) => {
                write!(out, "{source} is a router for {} s", it.lifetime_secs)?;
                for prefix in &it.prefixes {
                    let address = Ipv6Addr::from_octets(prefix.prefix);
                    write!(out, ", prefix {address}/{}", prefix.prefix_length)?;
                }
                Ok(())
            }
            Message::NeighbourSolicitation { target, .. } => {
                write!(out, "{source} who-has {target}")
            }
            Message::NeighbourAdvertisement {
                target,
                target_mac: Some([a, b, c, d, e, f]),
                ..
            } => write!(
                out,
                "{target} is-at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
            ),
            Message::NeighbourAdvertisement { target, .. } => write!(out, "{target} is there"),
        }
    }
}

#[cfg(test)]
mod tests;
