//! IPv4 packets in pieces (RFC 791, 3.2), for ways that carry less than a packet that may be divided.
//!
//! No state. Called where a packet is larger than its way and doesn't say "don't fragment".

use crate::icmp::IcmpError;
use etherparse::Ipv4Header;

/// Bit of an option's first byte: it belongs into every fragment (RFC 791, 3.1).
const COPIED: u8 = 0x80;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;

/// The pieces of an IPv4 packet, each of `mtu` bytes at most, in order. A packet that fits is its only piece; one
/// that is a fragment itself is divided further.
///
/// # Errors
/// [`IcmpError::Malformed`] when it isn't a whole IPv4 packet, or when the way carries no 8 bytes of it.
/// [`IcmpError::MustNotBeFragmented`].
pub fn fragments(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, IcmpError> {
    let (header, _) = Ipv4Header::from_slice(packet).map_err(|_| IcmpError::Malformed)?;
    let end = usize::from(header.total_len);
    let payload = packet
        .get(header.header_len()..end)
        .ok_or(IcmpError::Malformed)?;
    if end <= mtu {
        return Ok(vec![packet[..end].to_vec()]);
    }
    if header.dont_fragment {
        return Err(IcmpError::MustNotBeFragmented);
    }
    // Later pieces may have a shorter header; none has a longer one.
    let room = mtu.saturating_sub(header.header_len()) / 8 * 8;
    if room == 0 {
        return Err(IcmpError::Malformed);
    }
    let later_options = copied_options(header.options.as_slice());
    let mut pieces = Vec::with_capacity(payload.len().div_ceil(room));
    for (index, data) in payload.chunks(room).enumerate() {
        let mut piece = header.clone();
        if index > 0 {
            piece.options = later_options.as_slice().try_into().unwrap_or_default();
        }
        let offset = usize::from(header.fragment_offset.value()) + index * room / 8;
        piece.fragment_offset = u16::try_from(offset)
            .ok()
            .and_then(|offset| offset.try_into().ok())
            .ok_or(IcmpError::Malformed)?;
        let is_last = (index + 1) * room >= payload.len();
        piece.more_fragments = header.more_fragments || !is_last;
        piece.total_len = (piece.header_len() + data.len()) as u16;
        piece.header_checksum = piece.calc_header_checksum();
        pieces.push([&piece.to_bytes()[..], data].concat());
    }
    Ok(pieces)
}

/// The options that every fragment has, filled up to whole words.
fn copied_options(options: &[u8]) -> Vec<u8> {
    let mut copied = Vec::new();
    let mut rest = options;
    while let [kind, ..] = *rest {
        let length = match (kind, rest) {
            (END_OF_OPTIONS, _) => break,
            (NO_OPERATION, _) => 1,
            (_, &[_, length, ..]) => usize::from(length),
            _ => break,
        };
        // Damaged options end here: nobody could read what follows.
        let Some((option, behind)) = rest.split_at_checked(length).filter(|_| length > 0) else {
            break;
        };
        if kind & COPIED != 0 {
            copied.extend_from_slice(option);
        }
        rest = behind;
    }
    copied.resize(copied.len().next_multiple_of(4), END_OF_OPTIONS);
    copied
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Options};

    fn packet(length: usize, options: &[u8]) -> Vec<u8> {
        let data: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let ends = ([10, 0, 1, 11], [10, 0, 2, 11]);
        let mut header = Ipv4Header::new(length as u16, 9, IpNumber::UDP, ends.0, ends.1).unwrap();
        header.dont_fragment = false;
        header.identification = 0x1234;
        header.options = Ipv4Options::try_from(options).unwrap();
        header.total_len += options.len() as u16;
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &data].concat()
    }

    /// What a receiver makes of the pieces (RFC 791, 3.2, the procedure of reassembly).
    fn put_together(pieces: &[Vec<u8>], mtu: usize) -> (usize, bool, Vec<u8>) {
        let mut data = Vec::new();
        let (mut first, mut more) = (None, true);
        for piece in pieces {
            assert!(piece.len() <= mtu && more, "{} bytes", piece.len());
            let (header, rest) = Ipv4Header::from_slice(piece).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), piece.len());
            assert_eq!((header.identification, header.time_to_live), (0x1234, 9));
            let offset = usize::from(header.fragment_offset.value()) * 8;
            let start = *first.get_or_insert(offset);
            assert_eq!(offset - start, data.len());
            data.extend_from_slice(rest);
            more = header.more_fragments;
        }
        (first.unwrap(), more, data)
    }

    #[test]
    fn the_pieces_are_the_packet() {
        for length in [0, 1, 8, 1438, 1439, 1480, 4000, 65_000] {
            let whole = packet(length, &[]);
            for mtu in [28, 576, 1458, 1459, 1500] {
                let pieces = fragments(&whole, mtu).unwrap();
                let (first, more, data) = put_together(&pieces, mtu);
                assert_eq!((first, more), (0, false));
                assert_eq!(data, whole[20..], "{length} bytes by {mtu}");
                let room = (mtu - 20) / 8 * 8;
                let fits = whole.len() <= mtu;
                let count = if fits { 1 } else { length.div_ceil(room) };
                assert_eq!(pieces.len(), count, "{length} bytes by {mtu}");
            }
        }
    }

    #[test]
    fn a_fragment_is_divided_further() {
        let whole = packet(4000, &[]);
        let again: Vec<Vec<u8>> = fragments(&whole, 1500)
            .unwrap()
            .iter()
            .flat_map(|piece| fragments(piece, 1458).unwrap())
            .collect();
        assert_eq!(put_together(&again, 1458), (0, false, whole[20..].to_vec()));
        let middle = &fragments(&whole, 1500).unwrap()[1];
        let (first, more, _) = put_together(&fragments(middle, 600).unwrap(), 600);
        assert_eq!((first, more), (1480, true));
    }

    /// A record route (not copied) and a router alert (copied).
    #[test]
    fn only_options_of_every_fragment_are_in_later_ones() {
        let options = [7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0];
        let pieces = fragments(&packet(200, &options), 120).unwrap();
        let options: Vec<Vec<u8>> = pieces
            .iter()
            .map(|piece| {
                let (header, _) = Ipv4Header::from_slice(piece).unwrap();
                header.options.as_slice().to_vec()
            })
            .collect();
        assert_eq!(options[0], [7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0]);
        assert!(options[1..].iter().all(|it| *it == [0x94, 4, 0, 0]));
        assert!(pieces.iter().all(|piece| piece.len() <= 120));
    }

    #[test]
    fn what_must_not_be_divided_is_refused() {
        let mut whole = packet(1480, &[]);
        whole[6] |= 0x40;
        assert_eq!(fragments(&whole, 1458), Err(IcmpError::MustNotBeFragmented));
        assert_eq!(fragments(&whole, 1500), Ok(vec![whole.clone()]));
        assert_eq!(fragments(&whole[..1499], 600), Err(IcmpError::Malformed));
        assert_eq!(fragments(&packet(64, &[]), 27), Err(IcmpError::Malformed));
        // The last offset is 8191.
        let mut at_the_end = packet(64, &[]);
        at_the_end[6..8].copy_from_slice(&8191_u16.to_be_bytes());
        assert_eq!(fragments(&at_the_end, 28), Err(IcmpError::Malformed));
    }

    #[test]
    fn damaged_options_end_at_the_damage() {
        assert_eq!(
            copied_options(&[0x94, 4, 0, 0, 0x94, 9, 0, 0]),
            [0x94, 4, 0, 0]
        );
        assert_eq!(copied_options(&[0x94, 0, 1, 1]), []);
        assert_eq!(
            copied_options(&[1, 1, 0x94, 3, 7, 1, 1, 0x94]),
            [0x94, 3, 7, 0]
        );
    }
}
