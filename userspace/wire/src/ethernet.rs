//! Ethernet II frames around packets that the network makes.
//!
//! No state. Called by whoever emits a packet.

use etherparse::{EtherType, Ethernet2Header};

/// Shortest frame without its check sequence (IEEE 802.3, 3.2.8); interfaces of Linux pad by themselves.
pub const ETHERNET_BYTES_MIN: usize = 60;

/// A frame with this payload, in host memory: not padded.
pub fn frame(destination: [u8; 6], source: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source,
        destination,
        ether_type: EtherType(ether_type),
    };
    let mut frame = Vec::with_capacity(Ethernet2Header::LEN + payload.len());
    frame.extend_from_slice(&header.to_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_comes_in_the_order_of_the_wire() {
        let frame = super::frame([0xff; 6], [2, 0, 0, 0, 0, 1], 0x0806, &[0xaa, 0xbb]);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, 0xaa, 0xbb,
        ];
        assert_eq!(frame, expected);
    }
}
