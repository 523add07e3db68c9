//! What a router has to know of an IPv4 header beyond its fields: whether it came through unharmed.
//!
//! No state. Called where a router receives a packet.

/// Bytes of a header without options, and of one word of its length field.
const HEADER_BYTES_MIN: usize = 20;
const WORD_BYTES: usize = 4;

/// Whether the checksum of the IPv4 header at the front of `packet` is wrong (RFC 1071; RFC 1812, 5.2.2). Of a header
/// that isn't there as a whole nothing can be said: it isn't wrong.
pub fn has_wrong_checksum(packet: &[u8]) -> bool {
    let length = packet
        .first()
        .map_or(0, |first| usize::from(first & 0x0f) * WORD_BYTES);
    let Some(header) = packet
        .get(..length)
        .filter(|it| it.len() >= HEADER_BYTES_MIN)
    else {
        return false;
    };
    // At most 30 words: 32 bits hold their sum. All ones, which stands for 0, is its end where nothing changed.
    let words = header.as_chunks::<2>().0.iter();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let once = (sum & 0xffff) + (sum >> 16);
    (once & 0xffff) + (once >> 16) != 0xffff
}

#[cfg(test)]
mod tests {
    use super::has_wrong_checksum;

    /// A header as it was on a wire: 192.168.0.1 > 192.168.0.199, UDP, checksum b861.
    const HEADER: [u8; 20] = [
        0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
        0xc7,
    ];

    #[test]
    fn each_flipped_bit_shows() {
        assert!(!has_wrong_checksum(&HEADER));
        // Not those of the header's length: they move its end.
        for bit in (0..160).filter(|bit| !(4..8).contains(bit)) {
            let mut damaged = HEADER;
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(has_wrong_checksum(&damaged), "bit {bit}");
        }
    }

    #[test]
    fn options_count() {
        let mut header = [&HEADER[..], &[1, 1, 1, 0]].concat();
        header[0] = 0x46;
        assert!(has_wrong_checksum(&header));
        header[10..12].copy_from_slice(&0xb560_u16.to_be_bytes());
        assert!(!has_wrong_checksum(&header));
    }

    #[test]
    fn a_header_that_is_cut_short_says_nothing() {
        let mut wrong = HEADER;
        wrong[10] = 0;
        assert!(has_wrong_checksum(&wrong));
        for length in 0..20 {
            assert!(!has_wrong_checksum(&wrong[..length]), "{length}");
        }
        assert!(!has_wrong_checksum(&[0x44; 20]));
    }
}
