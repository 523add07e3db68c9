//! A packet in the agent's hands, and how it goes back through the inject TAP without losing what the kernel
//! knew about it: segments still to be cut (GSO) and checksums still to be filled in.

use weft_common::event::InjectPrefix;
use weft_common::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, protocol};
use weft_common::{FlowKey, Fragment, FragmentPorts, Headers, Network, SlotRef, extract};
use zerocopy::IntoBytes;

/// Bytes of `struct virtio_net_hdr` (virtio 1.2, 5.1.6).
pub const VNET_HEADER_LEN: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// A frame with the kernel's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldPacket {
    /// The frame, from its Ethernet header on.
    pub frame: Vec<u8>,
    /// Payload bytes of each segment; 0 for a packet that isn't a GSO packet.
    pub gso_size: u16,
    /// Tag that the kernel took out of the frame.
    pub vlan_tci: Option<u16>,
    /// What the kernel knew of a later fragment's packet.
    pub fragment: FragmentPorts,
}

impl HeldPacket {
    /// A frame that the network made itself.
    pub fn made(frame: Vec<u8>) -> HeldPacket {
        HeldPacket {
            frame,
            gso_size: 0,
            vlan_tci: None,
            fragment: FragmentPorts::default(),
        }
    }

    /// Bytes of the network packet, or of one segment of a GSO packet: what a flow's size guard judges.
    pub fn l3_size(&self) -> usize {
        let mut key = FlowKey::default();
        let Ok(headers) = extract(self.frame.as_slice(), 0, self.vlan_tci, &mut key) else {
            return 0;
        };
        let l3 = usize::from(headers.l3_offset);
        match l4_offset(&key, &headers) {
            Some(l4) if self.gso_size != 0 => {
                l4 - l3 + l4_length(&self.frame, &key, l4) + usize::from(self.gso_size)
            }
            _ => self.frame.len() - l3,
        }
    }

    /// The packet with its L4 checksum filled in, where the sender's kernel left that to a device.
    pub fn with_checksum(&self) -> HeldPacket {
        let mut whole = self.clone();
        let mut key = FlowKey::default();
        let Ok(headers) = extract(self.frame.as_slice(), 0, self.vlan_tci, &mut key) else {
            return whole;
        };
        let place = l4_offset(&key, &headers).zip(checksum_offset(key.head.protocol));
        let Some((l4, offset)) = place else {
            return whole;
        };
        if self.gso_size != 0 || !has_partial_checksum(&self.frame, &key, l4, offset) {
            return whole;
        }
        // The field holds the pseudo header's sum: what is missing is that of the bytes behind it. No sum but zero
        // means "none" for UDP (RFC 768).
        let checksum = match !fold(sum(&self.frame[l4..])) {
            0 => u16::MAX,
            checksum => checksum,
        };
        if let Some(field) = whole.frame.get_mut(l4 + offset..l4 + offset + 2) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
        whole
    }

    /// The bytes to write to the inject TAP: virtio header, prefix, frame.
    pub fn to_inject(&self, target: SlotRef, port: u16) -> Vec<u8> {
        let prefix = InjectPrefix {
            slot: target.slot.to_ne_bytes(),
            generation: target.generation.to_ne_bytes(),
            port: port.to_ne_bytes(),
            flags: [0; 2],
            ethertype: ETHERTYPE_IPV4.to_be_bytes(),
        };
        let tag = self
            .vlan_tci
            .map(|tci| [0x81, 0, (tci >> 8) as u8, tci as u8]);
        let mut bytes = Vec::with_capacity(VNET_HEADER_LEN + ETHERNET_LEN + self.frame.len() + 4);
        bytes.extend_from_slice(&self.vnet_header(tag.map_or(0, |tag| tag.len())));
        bytes.extend_from_slice(prefix.as_bytes());
        match tag {
            Some(tag) if self.frame.len() >= 12 => {
                bytes.extend_from_slice(&self.frame[..12]);
                bytes.extend_from_slice(&tag);
                bytes.extend_from_slice(&self.frame[12..]);
            }
            _ => bytes.extend_from_slice(&self.frame),
        }
        bytes
    }

    /// Offsets count from the prefix, which stands where the kernel expects the frame.
    fn vnet_header(&self, tag_len: usize) -> [u8; VNET_HEADER_LEN] {
        let mut header = [0; VNET_HEADER_LEN];
        let mut key = FlowKey::default();
        let Ok(headers) = extract(self.frame.as_slice(), 0, self.vlan_tci, &mut key) else {
            return header;
        };
        let Some(l4) = l4_offset(&key, &headers) else {
            return header;
        };
        let Some(checksum_offset) = checksum_offset(key.head.protocol) else {
            return header;
        };
        let is_gso = self.gso_size != 0;
        if !is_gso && !has_partial_checksum(&self.frame, &key, l4, checksum_offset) {
            return header;
        }
        let added = ETHERNET_LEN + tag_len;
        header[0] = NEEDS_CHECKSUM;
        header[1] = if is_gso { gso_type(&key) } else { GSO_NONE };
        let l4_length = l4_length(&self.frame, &key, l4);
        header[2..4].copy_from_slice(&((l4 + l4_length + added) as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        header[6..8].copy_from_slice(&((l4 + added) as u16).to_ne_bytes());
        header[8..10].copy_from_slice(&(checksum_offset as u16).to_ne_bytes());
        header
    }
}

/// Bytes of the TCP or UDP header.
fn l4_length(frame: &[u8], key: &FlowKey, l4: usize) -> usize {
    match key.head.protocol {
        protocol::TCP => frame
            .get(l4 + 12)
            .map_or(20, |first| usize::from(first >> 4) * 4),
        _ => 8,
    }
}

fn gso_type(key: &FlowKey) -> u8 {
    match (key.head.protocol, key.head.network()) {
        (protocol::UDP, _) => GSO_UDP_L4,
        (_, Network::Ipv6) => GSO_TCPV6,
        _ => GSO_TCPV4,
    }
}

fn checksum_offset(number: u8) -> Option<usize> {
    match number {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        _ => None,
    }
}

/// Where the L4 header of a whole packet begins: a fragment is neither cut nor has it a checksum of its own.
fn l4_offset(key: &FlowKey, headers: &Headers) -> Option<usize> {
    let is_whole = key.head.fragment() == Fragment::Whole;
    (is_whole && headers.l4_offset != 0).then_some(usize::from(headers.l4_offset))
}

/// Whether the L4 checksum field holds just the pseudo header's sum, as it does while the sender's kernel
/// leaves the rest to the device (CHECKSUM_PARTIAL). A field that is right already is left alone.
fn has_partial_checksum(frame: &[u8], key: &FlowKey, l4: usize, offset: usize) -> bool {
    let Some(&[high, low]) = frame.get(l4 + offset..l4 + offset + 2) else {
        return false;
    };
    let length = (frame.len() - l4) as u32;
    let addresses: &[u8] = match key.head.network() {
        Network::Ipv6 => key.as_bytes().get(24..56).unwrap_or(&[]),
        _ => key.as_bytes().get(24..32).unwrap_or(&[]),
    };
    let pseudo = fold(sum(addresses) + u64::from(length) + u64::from(key.head.protocol));
    u16::from_be_bytes([high, low]) == pseudo
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
        [high] => u64::from(*high) << 8,
        _ => 0,
    });
    words.sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP 10.0.1.11:1 > 10.0.1.12:2 with four bytes of payload; the checksum field is given.
    fn udp(checksum: [u8; 2]) -> HeldPacket {
        let mut frame = vec![2, 0, 0, 0, 1, 12, 2, 0, 0, 0, 1, 11, 8, 0];
        frame.extend_from_slice(&[
            0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12,
        ]);
        frame.extend_from_slice(&[0, 1, 0, 2, 0, 12, checksum[0], checksum[1], 1, 2, 3, 4]);
        HeldPacket::made(frame)
    }

    #[test]
    fn a_partial_checksum_is_handed_back_as_partial() {
        // 0a00 + 010b + 0a00 + 010c + 17 + 12 = 1634
        let header = udp([0x16, 0x34]).vnet_header(0);
        assert_eq!(header, [1, 0, 14 + 34 + 8, 0, 0, 0, 14 + 34, 0, 6, 0]);
    }

    #[test]
    fn a_partial_checksum_is_filled_in() {
        assert_eq!(udp([0x16, 0x34]).with_checksum(), udp([0xe5, 0xb6]));
        assert_eq!(udp([0xe5, 0xb6]).with_checksum(), udp([0xe5, 0xb6]));
        assert_eq!(udp([0, 0]).with_checksum(), udp([0, 0]));
    }

    #[test]
    fn a_finished_checksum_is_left_alone() {
        assert_eq!(udp([0xe5, 0xb6]).vnet_header(0), [0; VNET_HEADER_LEN]);
    }

    #[test]
    fn a_gso_packet_stays_one() {
        let mut packet = udp([0x16, 0x34]);
        packet.gso_size = 2;
        assert_eq!(packet.vnet_header(0)[..2], [1, GSO_UDP_L4]);
        assert_eq!(packet.vnet_header(0)[4..6], 2u16.to_ne_bytes());
    }
}
