//! ARP for IPv4 over Ethernet (RFC 826), with probes and announcements (RFC 5227).
//!
//! No state. Called where a bridge or router answers for an address, asks for one, or learns one.

use crate::ethernet;
use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, EtherType};
use std::fmt;
use std::net::Ipv4Addr;

/// What a packet wants. Numbers of RFC 826.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
    /// Any other.
    Other(u16),
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// What it wants.
    pub operation: Operation,
    /// Sender hardware address.
    pub sender_mac: [u8; 6],
    /// Sender protocol address; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// Target hardware address; zero in a request.
    pub target_mac: [u8; 6],
    /// Target protocol address.
    pub target: Ipv4Addr,
}

/// Bytes that are no ARP packet for IPv4 over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// Cut short.
    #[error("ARP packet of {length} bytes is cut short")]
    Truncated {
        /// Bytes there were.
        length: usize,
    },
    /// Other addresses than Ethernet's and IPv4's.
    #[error("ARP packet isn't for IPv4 over Ethernet")]
    OtherAddresses,
}

impl Arp {
    /// The packet in these bytes, which begin after the Ethernet header and may be followed by padding.
    ///
    /// # Errors
    /// [`ArpError`].
    pub fn parse(bytes: &[u8]) -> Result<Arp, ArpError> {
        let slice = ArpPacketSlice::from_slice(bytes).map_err(|_| ArpError::Truncated {
            length: bytes.len(),
        })?;
        let packet = slice
            .to_packet()
            .try_eth_ipv4()
            .map_err(|_| ArpError::OtherAddresses)?;
        Ok(Arp {
            operation: Operation::from_number(packet.operation.0),
            sender_mac: packet.sender_mac,
            sender: packet.sender_ipv4.into(),
            target_mac: packet.target_mac,
            target: packet.target_ipv4.into(),
        })
    }

    /// The packet's 28 bytes.
    pub fn emit(&self) -> [u8; 28] {
        let packet = ArpEthIpv4Packet {
            operation: ArpOperation(self.operation.number()),
            sender_mac: self.sender_mac,
            sender_ipv4: self.sender.octets(),
            target_mac: self.target_mac,
            target_ipv4: self.target.octets(),
        };
        packet.to_bytes()
    }

    /// The question who has `target`.
    pub fn request(sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Arp {
        Arp {
            operation: Operation::Request,
            sender_mac,
            sender,
            target_mac: [0; 6],
            target,
        }
    }

    /// The answer to this request: `mac` has the address asked for.
    pub fn answered_by(&self, mac: [u8; 6]) -> Arp {
        Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// The packet in a frame to `destination`, from its sender.
    pub fn frame(&self, destination: [u8; 6]) -> Vec<u8> {
        ethernet::frame(destination, self.sender_mac, EtherType::ARP.0, &self.emit())
    }
}

impl Operation {
    /// The operation with this number.
    pub const fn from_number(number: u16) -> Operation {
        match number {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => Operation::Other(other),
        }
    }

    /// Its number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Operation::Request => 1,
            Operation::Reply => 2,
            Operation::Other(number) => number,
        }
    }
}

impl fmt::Display for Arp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arp {
            operation,
            sender_mac,
            sender,
            target_mac: _,
            target,
        } = self;
        let [a, b, c, d, e, f] = sender_mac;
        match operation {
            Operation::Request => write!(out, "{sender} who-has {target}"),
            Operation::Reply => {
                write!(
                    out,
                    "{sender} is-at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
                )
            }
            Operation::Other(number) => write!(out, "{sender} operation {number} {target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 28] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, // Ethernet, IPv4, 6, 4, request
        0x02, 0x00, 0x00, 0x00, 0x01, 0x0b, 0x0a, 0x00, 0x01, 0x0b, // 10.0.1.11
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x01, 0x01, // 10.0.1.1
    ];
    const REPLY: [u8; 28] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x02, //
        0x02, 0x00, 0x00, 0x00, 0x01, 0x01, 0x0a, 0x00, 0x01, 0x01, //
        0x02, 0x00, 0x00, 0x00, 0x01, 0x0b, 0x0a, 0x00, 0x01, 0x0b,
    ];
    const ASKER: [u8; 6] = [2, 0, 0, 0, 1, 0x0b];
    const OWNER: [u8; 6] = [2, 0, 0, 0, 1, 1];

    #[test]
    fn a_request_has_these_bytes() {
        let request = Arp::request(
            ASKER,
            Ipv4Addr::new(10, 0, 1, 11),
            Ipv4Addr::new(10, 0, 1, 1),
        );
        assert_eq!(request.emit(), REQUEST);
        assert_eq!(Arp::parse(&REQUEST), Ok(request));
        assert_eq!(request.to_string(), "10.0.1.11 who-has 10.0.1.1");
    }

    #[test]
    fn the_answer_swaps_the_sides() {
        let reply = Arp::parse(&REQUEST).unwrap().answered_by(OWNER);
        assert_eq!(reply.emit(), REPLY);
        assert_eq!(reply.to_string(), "10.0.1.1 is-at 02:00:00:00:01:01");
        let frame = reply.frame(ASKER);
        let header = [2, 0, 0, 0, 1, 0x0b, 2, 0, 0, 0, 1, 1, 0x08, 0x06];
        assert_eq!(frame, [&header[..], &REPLY[..]].concat());
    }

    #[test]
    fn padding_is_not_part_of_it() {
        let padded = [&REQUEST[..], &[0; 18][..]].concat();
        assert_eq!(Arp::parse(&padded), Arp::parse(&REQUEST));
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        for length in 0..REQUEST.len() {
            let refused = Arp::parse(&REQUEST[..length]);
            assert_eq!(refused, Err(ArpError::Truncated { length }));
        }
        let mut token_ring = REQUEST;
        token_ring[1] = 6;
        assert_eq!(Arp::parse(&token_ring), Err(ArpError::OtherAddresses));
    }
}
