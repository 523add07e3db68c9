//! Checksums that a sender left to its network card.
//!
//! Between namespaces (veth) no card fills them in: the kernel says beside the packet where one is missing
//! (`CHECKSUM_PARTIAL`), and a packet that is redirected by XDP loses that. What can be seen is what the sender left in
//! the field: the sum of the pseudo-header (`tcp_v4_send_check`, `udp4_hwcsum` of Linux), or 0 for SCTP.

use crate::frame::{Frame, protocol};

/// What a pseudo-header is made of (RFC 9293, 3.1; RFC 8200, 8.1): addresses as one sum, protocol, and the length of the
/// upper-layer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PseudoHeader {
    /// [`sum`] of both addresses.
    pub addresses: u64,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Bytes of upper-layer header and payload.
    pub length: u16,
}

/// Sum of 4-byte words in the order of memory, not folded: one's complement sums don't depend on the order of bytes
/// (RFC 1071).
#[inline(always)]
pub fn sum<const N: usize>(bytes: &[u8; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at + 4 <= N {
        sum += u64::from(u32::from_ne_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
        ]));
        at += 4;
    }
    sum
}

/// The same of 8-byte words.
#[inline(always)]
pub fn sum_words<const N: usize>(words: &[u64; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += (words[at] & 0xffff_ffff) + (words[at] >> 32);
        at += 1;
    }
    sum
}

/// A sum of at most some thousand words with its carries added: what a checksum is the complement of, in the order of
/// memory.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let mut sum = (sum & 0xffff_ffff) + (sum >> 32);
    // At most 0xffff_ffff or, after a carry, a little above 2^32: two more leave 16 bits.
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Whether the checksum of an upper-layer packet at `offset` still has to be filled in. A filled one looks like that
/// once in 65,535.
#[inline(always)]
pub fn is_unfinished<F: Frame + ?Sized>(frame: &F, offset: usize, pseudo: PseudoHeader) -> bool {
    let found = match pseudo.protocol {
        protocol::TCP => frame.bytes::<2>(offset + 16),
        protocol::UDP => frame.bytes::<2>(offset + 6),
        protocol::SCTP => return frame.bytes::<4>(offset + 8).is_none_or(|sum| sum == [0; 4]),
        _ => return false,
    };
    let words = u64::from(pseudo.length.to_be()) + u64::from(u16::from(pseudo.protocol).to_be());
    let sum = fold(pseudo.addresses + words);
    // A header that isn't all there isn't finished either.
    found.is_none_or(|found| u16::from_ne_bytes(found) == sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP 1000 > 2000 with 4 bytes.
    const UDP: [u8; 12] = [3, 0xe8, 7, 0xd0, 0, 12, 0, 0, 1, 2, 3, 4];

    fn pseudo(protocol: u8, length: u16) -> PseudoHeader {
        PseudoHeader {
            addresses: sum(&[10, 0, 1, 11, 10, 0, 1, 12]),
            protocol,
            length,
        }
    }

    /// The sum by the book, in network order.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn what_linux_leaves_in_the_field_is_recognised() {
        let partial = by_the_book(&[10, 0, 1, 11, 10, 0, 1, 12, 0, protocol::UDP, 0, 12]);
        let mut udp = UDP;
        udp[6..8].copy_from_slice(&partial.to_be_bytes());
        assert!(is_unfinished(&udp[..], 0, pseudo(protocol::UDP, 12)));
        udp[6..8].copy_from_slice(&(partial + 1).to_be_bytes());
        assert!(!is_unfinished(&udp[..], 0, pseudo(protocol::UDP, 12)));
        assert!(
            !is_unfinished(&UDP[..], 0, pseudo(protocol::UDP, 12)),
            "none (RFC 768)"
        );
    }

    #[test]
    fn tcp_sctp_and_what_has_no_such_field() {
        let partial = by_the_book(&[10, 0, 1, 11, 10, 0, 1, 12, 0, protocol::TCP, 0, 20]);
        let mut tcp = [0u8; 20];
        assert!(!is_unfinished(&tcp[..], 0, pseudo(protocol::TCP, 20)));
        tcp[16..18].copy_from_slice(&partial.to_be_bytes());
        assert!(is_unfinished(&tcp[..], 0, pseudo(protocol::TCP, 20)));
        assert!(
            is_unfinished(&tcp[..16], 0, pseudo(protocol::TCP, 20)),
            "cut short"
        );
        let mut sctp = [1u8; 12];
        assert!(!is_unfinished(&sctp[..], 0, pseudo(protocol::SCTP, 12)));
        sctp[8..].fill(0);
        assert!(is_unfinished(&sctp[..], 0, pseudo(protocol::SCTP, 12)));
        assert!(
            is_unfinished(&sctp[..8], 0, pseudo(protocol::SCTP, 12)),
            "cut short"
        );
        sctp = [0; 12];
        sctp[11] = 1;
        assert!(!is_unfinished(&sctp[..], 0, pseudo(protocol::SCTP, 12)));
        assert!(!is_unfinished(&[0u8; 8][..], 0, pseudo(protocol::ICMP, 8)));
    }

    /// Of 32 bits, of 16, and of what these two make: among so many addresses there is each of them.
    #[test]
    fn carries_are_added_as_often_as_there_are_any() {
        let mut number = 1_u64;
        for case in 0..50_000 {
            let mut addresses = [0; 32];
            for word in addresses.chunks_mut(4) {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                word.copy_from_slice(&number.to_be_bytes()[..4]);
            }
            let length = case as u16;
            let pseudo = PseudoHeader {
                addresses: sum(&addresses),
                protocol: protocol::UDP,
                length,
            };
            let tail = [[0, protocol::UDP], length.to_be_bytes()].concat();
            let mut udp = UDP;
            let book = by_the_book(&[&addresses[..], &tail].concat());
            udp[6..8].copy_from_slice(&book.to_be_bytes());
            assert!(is_unfinished(&udp[..], 0, pseudo), "{addresses:?} {length}");
        }
    }
}
