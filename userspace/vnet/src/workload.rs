//! From a packet that a person typed to the frame that a real workload would send.
//!
//! No state. Called for `weft trace`, by the tests and by what-if commands. The forms are those of INTERFACE.md:
//! `tcp 10.0.1.11:40000 > 10.0.2.11:80 [syn]`, `udp A:PORT > B:PORT`, `icmp A > B echo`, `arp A who-has B` and
//! `nd A who-has B`; the IP forms may end in `ttl N`. IPv6 with ports is written `[fd00:1::b]:80`.

use crate::flow_state::FlowState;
use crate::id::PortId;
use crate::mac::Mac;
use crate::model::{DeviceId, Port};
use crate::snapshot::{FloodDomain, Snapshot};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use weft_wire::ndp::solicited_node;
use weft_wire::{Arp, Nd};

/// TTL of most systems.
const TTL_DEFAULT: u8 = 64;
/// Who speaks on a router's exterior port when nothing is known about it.
const STRANGER: Mac = Mac([0x02, 0, 0, 0, 0, 0xfe]);
/// What pings carry: enough to look at, and the same each time.
const PING_DATA: &[u8; 16] = b"weft weft weft  ";
const PING_IDENTIFIER: u16 = 1;
const PING_SEQUENCE: u16 = 1;
const TCP_WINDOW: u16 = 64_240;

/// Why there is no such frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text isn't a packet.
    #[error("column {column}: expected {expected}, found {found}")]
    Syntax {
        /// Where, in characters from 1.
        column: usize,
        /// What would have been right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The port doesn't exist.
    #[error("there is no port with the id {port}")]
    UnknownPort {
        /// Its id.
        port: PortId,
    },
    /// A workload would ask by ARP or neighbour discovery, and nobody is known to answer.
    #[error(
        "nobody is known to have {address} on this network: send an ARP or ND packet, or give the frame in hex"
    )]
    UnknownNeighbour {
        /// Who is asked for.
        address: IpAddr,
    },
}

/// The frame that the workload on `port` would send for `text`, with valid checksums.
///
/// Its source is the port's MAC. Its destination is that of the IP destination where that is in the same subnet,
/// else that of the router's port in the sender's subnet; for ARP everyone, for ND the target's group.
///
/// # Errors
/// [`TextError`], with the column where the text is wrong.
pub fn frame_for(
    snapshot: &Snapshot,
    state: &FlowState,
    port: PortId,
    text: &str,
) -> Result<Vec<u8>, TextError> {
    let port = snapshot.port(port).ok_or(TextError::UnknownPort { port })?;
    let request = Words::new(text).packet()?;
    let ends = Ends {
        snapshot,
        state,
        port,
    };
    let source = ends.source(request.source());
    match request {
        Request::Arp { sender, target } => {
            let arp = Arp::request(source.0, sender, target);
            Ok(arp.frame(Mac::BROADCAST.0))
        }
        Request::Nd { sender, target } => {
            let group = Mac::of_group(solicited_node(target));
            Ok(Nd::solicitation(sender, source.0, target).frame(group.0, source.0))
        }
        Request::Ip(packet) => {
            let destination = ends.destination(packet.source, packet.destination)?;
            Ok(packet.frame(source, destination))
        }
    }
}

/// A packet as typed.
#[derive(Clone, Copy, Debug)]
enum Request {
    Arp { sender: Ipv4Addr, target: Ipv4Addr },
    Nd { sender: Ipv6Addr, target: Ipv6Addr },
    Ip(IpPacket),
}

/// An IP packet as typed; both addresses are of one family.
#[derive(Clone, Copy, Debug)]
struct IpPacket {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Tcp {
        source: u16,
        destination: u16,
        flags: TcpFlags,
    },
    Udp {
        source: u16,
        destination: u16,
    },
    Echo,
    EchoReply,
}

#[derive(Clone, Copy, Debug, Default)]
struct TcpFlags {
    syn: bool,
    ack: bool,
    fin: bool,
    rst: bool,
    psh: bool,
}

impl Request {
    fn source(&self) -> IpAddr {
        match *self {
            Request::Arp { sender, .. } => sender.into(),
            Request::Nd { sender, .. } => sender.into(),
            Request::Ip(IpPacket { source, .. }) => source,
        }
    }
}

impl IpPacket {
    fn frame(&self, source: Mac, destination: Mac) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(source.0, destination.0);
        let ip = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ethernet.ipv4(from.octets(), to.octets(), self.ttl)
            }
            (from, to) => ethernet.ipv6(v6_octets(from), v6_octets(to), self.ttl),
        };
        let is_v4 = self.source.is_ipv4();
        let mut frame = Vec::new();
        let written = match self.body {
            Body::Tcp {
                source,
                destination,
                flags,
            } => {
                let TcpFlags {
                    syn,
                    ack,
                    fin,
                    rst,
                    psh,
                } = flags;
                let mut header = etherparse::TcpHeader::new(source, destination, 0, TCP_WINDOW);
                (header.syn, header.ack, header.fin) = (syn, ack, fin);
                (header.rst, header.psh) = (rst, psh);
                ip.tcp_header(header).write(&mut frame, &[])
            }
            Body::Udp {
                source,
                destination,
            } => ip.udp(source, destination).write(&mut frame, &[]),
            Body::Echo if !is_v4 => ip
                .icmpv6_echo_request(PING_IDENTIFIER, PING_SEQUENCE)
                .write(&mut frame, PING_DATA),
            Body::EchoReply if !is_v4 => ip
                .icmpv6_echo_reply(PING_IDENTIFIER, PING_SEQUENCE)
                .write(&mut frame, PING_DATA),
            Body::Echo => ip
                .icmpv4_echo_request(PING_IDENTIFIER, PING_SEQUENCE)
                .write(&mut frame, PING_DATA),
            Body::EchoReply => ip
                .icmpv4_echo_reply(PING_IDENTIFIER, PING_SEQUENCE)
                .write(&mut frame, PING_DATA),
        };
        // Writing into memory fails only for payloads that are too long.
        debug_assert!(written.is_ok(), "{written:?}");
        frame
    }
}

/// An address as IPv6 carries it.
fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(it) => it.to_ipv6_mapped().octets(),
        IpAddr::V6(it) => it.octets(),
    }
}

/// Who the MACs at both ends belong to.
struct Ends<'a> {
    snapshot: &'a Snapshot,
    state: &'a FlowState,
    port: &'a Port,
}

impl Ends<'_> {
    fn source(&self, address: IpAddr) -> Mac {
        match self.port.device {
            DeviceId::Bridge(_) => self.port.mac,
            // Outside of a router's port is a machine of which only ARP and ND have told.
            DeviceId::Router(_) => {
                let known = |id, its| (id == self.port.id).then_some(its);
                let exact = self.state.neighbour(self.port.id, address);
                let any = || {
                    self.state
                        .neighbours()
                        .filter_map(|(id, _, mac)| known(id, mac))
                        .min()
                };
                exact.or_else(any).unwrap_or(STRANGER)
            }
        }
    }

    fn destination(&self, source: IpAddr, destination: IpAddr) -> Result<Mac, TextError> {
        let DeviceId::Bridge(bridge) = self.port.device else {
            return Ok(self.port.mac);
        };
        let unknown = |address| TextError::UnknownNeighbour { address };
        match destination {
            IpAddr::V4(it) if it.is_broadcast() => return Ok(Mac::BROADCAST),
            IpAddr::V6(it) if it.is_multicast() => return Ok(Mac::of_group(it)),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        let domain = self
            .snapshot
            .flood_domain_of(bridge)
            .ok_or(unknown(destination))?;
        match self.gateway(domain, source, destination) {
            Some(gateway) => Ok(gateway),
            None => self
                .neighbour(domain, destination)
                .ok_or(unknown(destination)),
        }
    }

    /// The MAC of the router's port in the sender's subnet, unless the destination is in it, too. A sender
    /// with an address of elsewhere uses the gateway that the port's own address would use.
    fn gateway(&self, domain: &FloodDomain, source: IpAddr, destination: IpAddr) -> Option<Mac> {
        let own = self.port.addresses.iter().map(|own| own.address);
        let same_family = own.filter(|own| own.is_ipv4() == destination.is_ipv4());
        let sources = [source].into_iter().chain(same_family);
        let (gateway, network) = sources
            .into_iter()
            .find_map(|it| self.router_of(domain, it))?;
        let is_near = network.contains(&destination) || is_link_local(destination);
        (!is_near).then_some(gateway)
    }

    /// The router port in whose prefix an address is: its MAC and the prefix.
    fn router_of(&self, domain: &FloodDomain, address: IpAddr) -> Option<(Mac, IpNet)> {
        let ports = domain
            .router_ports
            .iter()
            .filter_map(|id| self.snapshot.port(*id));
        let networks = ports.flat_map(|port| port.networks().map(|it| (port.mac, it)));
        networks
            .filter(|(_, network)| network.contains(&address))
            .max_by_key(|(_, network)| network.prefix_len())
    }

    fn neighbour(&self, domain: &FloodDomain, address: IpAddr) -> Option<Mac> {
        let declared = domain.addresses.get(&address).map(|seed| seed.mac);
        let heard = || {
            domain
                .router_ports
                .iter()
                .find_map(|id| self.state.neighbour(*id, address))
        };
        declared.or_else(heard)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(it) if it.is_unicast_link_local())
}

/// The words of a text, each with its column.
struct Words<'a> {
    words: Vec<(usize, &'a str)>,
    next: usize,
    /// Column after the last word, where a missing one is missed.
    end: usize,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let base = text.as_ptr() as usize;
        let column = |word: &str| {
            let bytes = word.as_ptr() as usize - base;
            text[..bytes].chars().count() + 1
        };
        let words = text
            .split_whitespace()
            .map(|word| (column(word), word))
            .collect();
        Words {
            words,
            next: 0,
            end: text.trim_end().chars().count() + 1,
        }
    }

    fn packet(mut self) -> Result<Request, TextError> {
        const KINDS: &str = "`tcp`, `udp`, `icmp`, `arp` or `nd`";
        let request = match self.take(KINDS)? {
            (_, "tcp") => {
                let (source, destination) = self.sockets()?;
                let flags = self.flags()?;
                let (from, to) = (source.port(), destination.port());
                let body = Body::Tcp {
                    source: from,
                    destination: to,
                    flags,
                };
                self.ip(source.ip(), destination.ip(), body)?
            }
            (_, "udp") => {
                let (source, destination) = self.sockets()?;
                let body = Body::Udp {
                    source: source.port(),
                    destination: destination.port(),
                };
                self.ip(source.ip(), destination.ip(), body)?
            }
            (_, "icmp") => {
                let (source, destination) = self.pair(">", "`>`", "an IP address")?;
                self.same_family(source, destination)?;
                let body = self.icmp()?;
                self.ip(source, destination, body)?
            }
            (_, "arp") => {
                let (sender, target) = self.pair("who-has", "`who-has`", "an IPv4 address")?;
                Request::Arp { sender, target }
            }
            (_, "nd") => {
                let (sender, target) = self.pair("who-has", "`who-has`", "an IPv6 address")?;
                Request::Nd { sender, target }
            }
            (column, word) => return Err(wrong(column, KINDS, word)),
        };
        match self.peek() {
            None => Ok(request),
            Some((column, word)) => Err(wrong(column, "nothing more", word)),
        }
    }

    fn ip(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        body: Body,
    ) -> Result<Request, TextError> {
        let mut ttl = TTL_DEFAULT;
        if self.skip("ttl") {
            ttl = self.parse("a TTL from 0 to 255")?;
        }
        Ok(Request::Ip(IpPacket {
            source,
            destination,
            ttl,
            body,
        }))
    }

    fn icmp(&mut self) -> Result<Body, TextError> {
        match self.peek() {
            None | Some((_, "ttl")) => Ok(Body::Echo),
            Some((_, "echo")) => {
                self.next += 1;
                Ok(Body::Echo)
            }
            Some((_, "reply")) => {
                self.next += 1;
                Ok(Body::EchoReply)
            }
            Some((column, word)) => Err(wrong(column, "`echo` or `reply`", word)),
        }
    }

    fn sockets(&mut self) -> Result<(SocketAddr, SocketAddr), TextError> {
        let expected = "ADDRESS:PORT, like 10.0.1.11:40000 or [fd00:1::b]:40000";
        let (source, destination): (SocketAddr, SocketAddr) = self.pair(">", "`>`", expected)?;
        self.same_family(source.ip(), destination.ip())?;
        Ok((source, destination))
    }

    /// Refuses a destination, the word just taken, of another family than the source.
    fn same_family(&self, source: IpAddr, destination: IpAddr) -> Result<(), TextError> {
        if source.is_ipv4() == destination.is_ipv4() {
            return Ok(());
        }
        let expected = if source.is_ipv4() {
            "an IPv4 address, as the source is one"
        } else {
            "an IPv6 address, as the source is one"
        };
        let (column, word) = self.words[self.next - 1];
        Err(wrong(column, expected, word))
    }

    fn pair<V: FromStr>(
        &mut self,
        between: &str,
        between_text: &'static str,
        what: &'static str,
    ) -> Result<(V, V), TextError> {
        let first = self.parse(what)?;
        match self.take(between_text)? {
            (_, word) if word == between => {}
            (column, word) => return Err(wrong(column, between_text, word)),
        }
        Ok((first, self.parse(what)?))
    }

    /// `[syn,ack]`; without it a plain `[syn]`, the first packet of a connection.
    fn flags(&mut self) -> Result<TcpFlags, TextError> {
        const EXPECTED: &str = "flags like [syn] or [syn,ack], of syn, ack, fin, rst and psh";
        let mut flags = TcpFlags::default();
        let Some((column, word)) = self.peek().filter(|(_, word)| *word != "ttl") else {
            flags.syn = true;
            return Ok(flags);
        };
        self.next += 1;
        let inner = word
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let inner = inner.ok_or_else(|| wrong(column, EXPECTED, word))?;
        for flag in inner.split(',').filter(|flag| !flag.is_empty()) {
            match flag {
                "syn" => flags.syn = true,
                "ack" => flags.ack = true,
                "fin" => flags.fin = true,
                "rst" => flags.rst = true,
                "psh" => flags.psh = true,
                _ => return Err(wrong(column, EXPECTED, word)),
            }
        }
        Ok(flags)
    }

    fn peek(&self) -> Option<(usize, &'a str)> {
        self.words.get(self.next).copied()
    }

    fn skip(&mut self, expected: &str) -> bool {
        let there = self.peek().is_some_and(|(_, word)| word == expected);
        self.next += usize::from(there);
        there
    }

    fn take(&mut self, expected: &'static str) -> Result<(usize, &'a str), TextError> {
        let end = TextError::Syntax {
            column: self.end,
            expected,
            found: "the end".to_owned(),
        };
        let word = self.peek().ok_or(end)?;
        self.next += 1;
        Ok(word)
    }

    fn parse<V: FromStr>(&mut self, expected: &'static str) -> Result<V, TextError> {
        let (column, word) = self.take(expected)?;
        word.parse().map_err(|_| wrong(column, expected, word))
    }
}

fn wrong(column: usize, expected: &'static str, found: &str) -> TextError {
    TextError::Syntax {
        column,
        expected,
        found: format!("`{found}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Topology;
    use etherparse::checksum::Sum16BitWords;

    fn error(text: &str) -> String {
        let topology = Topology::two_subnets();
        let port = topology.id("web/web-1");
        frame_for(&topology.snapshot(), &topology.state, port, text)
            .unwrap_err()
            .to_string()
    }

    /// The ones' complement sum over a pseudo header and everything after the IP header.
    fn l4_sum(frame: &[u8]) -> u16 {
        let length = u16::try_from(frame.len() - 34).unwrap().to_be_bytes();
        Sum16BitWords::new()
            .add_slice(&frame[26..34])
            .add_2bytes([0, frame[23]])
            .add_2bytes(length)
            .add_slice(&frame[34..])
            .ones_complement()
    }

    #[test]
    fn checksums_are_valid() {
        let topology = Topology::two_subnets();
        for text in [
            "tcp 10.0.1.11:40000 > 10.0.2.11:80 [syn]",
            "udp 10.0.1.11:1 > 10.0.1.12:2",
        ] {
            let frame = topology.frame("web/web-1", text);
            let header = Sum16BitWords::new()
                .add_slice(&frame[14..34])
                .ones_complement();
            assert_eq!((header, l4_sum(&frame)), (0, 0), "{text}");
        }
        let ping = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.2.11 echo");
        assert_eq!(
            Sum16BitWords::new()
                .add_slice(&ping[34..])
                .ones_complement(),
            0
        );
        assert_eq!(ping[34], 8);
    }

    /// The same for IPv6 (RFC 8200, 8.1).
    fn l4_sum_v6(frame: &[u8]) -> u16 {
        Sum16BitWords::new()
            .add_slice(&frame[22..54])
            .add_2bytes([frame[18], frame[19]])
            .add_2bytes([0, frame[20]])
            .add_slice(&frame[54..])
            .ones_complement()
    }

    #[test]
    fn ipv6_is_written_as_elsewhere() {
        let mut topology = Topology::two_subnets();
        let added = [
            ("web/web-1", "fd00:1::b"),
            ("web/web-2", "fd00:1::c"),
            ("core/web", "fd00:1::1/64"),
        ];
        for (path, address) in added {
            topology.change(path, |port| port.addresses.push(address.parse().unwrap()));
        }
        let (gateway, near) = (topology.mac("core/web").0, topology.mac("web/web-2").0);
        for (text, mac, protocol) in [
            ("icmp fd00:1::b > fd00:2::b echo", gateway, 58),
            ("icmp fd00:1::b > fd00:1::c reply ttl 9", near, 58),
            ("tcp [fd00:1::b]:40000 > [fd00:2::b]:80", gateway, 6),
            ("udp [fd00:1::b]:1 > [fd00:1::c]:2", near, 17),
            (
                "nd fd00:1::b who-has fd00:1::1",
                [0x33, 0x33, 0xff, 0, 0, 1],
                58,
            ),
        ] {
            let frame = topology.frame("web/web-1", text);
            assert_eq!((&frame[..6], frame[20]), (&mac[..], protocol), "{text}");
            assert_eq!(frame[6..12], topology.mac("web/web-1").0);
            assert_eq!(l4_sum_v6(&frame), 0, "{text}");
        }
        let reply = topology.frame("web/web-1", "icmp fd00:1::b > fd00:1::c reply ttl 9");
        assert_eq!((reply[21], reply[54]), (9, 129));
        assert_eq!(
            error("icmp 10.0.1.11 > fd00:2::b"),
            "column 18: expected an IPv4 address, as the source is one, found `fd00:2::b`"
        );
        assert_eq!(
            error("udp [fd00:1::b]:1 > 10.0.1.11:2"),
            "column 21: expected an IPv6 address, as the source is one, found `10.0.1.11:2`"
        );
        assert_eq!(
            error("nd 10.0.1.11 who-has fd00:1::1"),
            "column 4: expected an IPv6 address, found `10.0.1.11`"
        );
    }

    #[test]
    fn macs_are_those_of_a_real_workload() {
        let topology = Topology::two_subnets();
        let destination =
            |text: &str| Mac(topology.frame("web/web-1", text)[..6].try_into().unwrap());
        assert_eq!(
            destination("icmp 10.0.1.11 > 10.0.1.12"),
            topology.mac("web/web-2")
        );
        assert_eq!(
            destination("icmp 10.0.1.11 > 10.0.2.11"),
            topology.mac("core/web")
        );
        assert_eq!(
            destination("icmp 10.0.1.11 > 10.0.1.1"),
            topology.mac("core/web")
        );
        assert_eq!(
            destination("icmp 203.0.113.1 > 10.0.2.11"),
            topology.mac("core/web")
        );
        assert_eq!(
            destination("arp 10.0.1.11 who-has 10.0.1.1"),
            Mac::BROADCAST
        );
        let frame = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.1.12");
        assert_eq!(frame[6..12], topology.mac("web/web-1").0);
    }

    #[test]
    fn flags_and_ttl_are_taken() {
        let topology = Topology::two_subnets();
        let text = "tcp 10.0.1.11:1 > 10.0.1.12:2 [syn,ack] ttl 7";
        let frame = topology.frame("web/web-1", text);
        assert_eq!((frame[22], frame[47]), (7, 0x12));
        let plain = topology.frame("web/web-1", "tcp 10.0.1.11:1 > 10.0.1.12:2");
        assert_eq!((plain[22], plain[47]), (64, 0x02));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_column() {
        let cases = [
            (
                "",
                "column 1: expected `tcp`, `udp`, `icmp`, `arp` or `nd`, found the end",
            ),
            (
                "sctp 1",
                "column 1: expected `tcp`, `udp`, `icmp`, `arp` or `nd`, found `sctp`",
            ),
            (
                "icmp 10.0.1.300 > 1",
                "column 6: expected an IP address, found `10.0.1.300`",
            ),
            (
                "icmp 10.0.1.11  10.0.1.12",
                "column 17: expected `>`, found `10.0.1.12`",
            ),
            (
                "icmp 10.0.1.11 >",
                "column 17: expected an IP address, found the end",
            ),
            (
                "icmp 10.0.1.11 > 10.0.1.12 pong",
                "column 28: expected `echo` or `reply`, found `pong`",
            ),
            (
                "udp 10.0.1.11 > 10.0.1.12:2",
                "column 5: expected ADDRESS:PORT, like 10.0.1.11:40000 or [fd00:1::b]:40000, found `10.0.1.11`",
            ),
            (
                "arp 10.0.1.11 has 10.0.1.12",
                "column 15: expected `who-has`, found `has`",
            ),
            (
                "arp 10.0.1.11 who-has 10.0.1.12 now",
                "column 33: expected nothing more, found `now`",
            ),
            (
                "icmp 10.0.1.11 > 10.0.1.12 ttl x",
                "column 32: expected a TTL from 0 to 255, found `x`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected);
        }
        assert!(
            error("tcp 10.0.1.11:1 > 10.0.1.12:2 [sin]").starts_with("column 31: expected flags")
        );
        assert!(error("icmp 10.0.1.11 > 10.0.1.99").contains("nobody is known to have 10.0.1.99"));
    }
}
