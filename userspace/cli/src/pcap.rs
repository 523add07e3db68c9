//! One frame out of a capture: the classic pcap format (draft-ietf-opsawg-pcap), either byte
//! order, micro- or nanoseconds, Ethernet frames. pcapng is recognised and refused.

use anyhow::{Result, bail, ensure};

/// Longest frame that is taken, the kernel's largest with all offloads.
const FRAME_LENGTH_MAX: usize = 128 << 10;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const LINKTYPE_ETHERNET: u32 = 1;

/// A frame of a capture.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// What was kept of it.
    pub frame: &'a [u8],
    /// Its length on the wire.
    pub length: usize,
}

/// Finds frame `number` (from 1) in the contents of a capture.
pub fn frame(file: &[u8], number: u64) -> Result<Captured<'_>> {
    ensure!(number > 0, "frames are counted from 1");
    ensure!(file.len() >= FILE_HEADER, "it is too short for a capture");
    let big_endian = match file[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => false,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => true,
        [0x0a, 0x0d, 0x0d, 0x0a] => bail!(
            "it is pcapng, expected the classic format: `tcpdump -r FILE -w OTHER` (or `editcap \
             -F pcap FILE OTHER`) converts it"
        ),
        _ => bail!("it is not a capture in the classic pcap format"),
    };
    let word = |at: usize| -> Option<u32> {
        let bytes: [u8; 4] = file.get(at..at + 4)?.try_into().ok()?;
        Some(if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    };
    // The upper bits say whether frames end with a checksum.
    let link_type = word(20).unwrap_or(0) & 0xffff;
    ensure!(
        link_type == LINKTYPE_ETHERNET,
        "its frames are of link type {link_type}, expected Ethernet ({LINKTYPE_ETHERNET})"
    );
    let mut at = FILE_HEADER;
    let mut count = 0;
    while let (Some(kept), Some(length)) = (word(at + 8), word(at + 12)) {
        let (kept, length) = (usize::try_from(kept)?, usize::try_from(length)?);
        ensure!(
            kept <= FRAME_LENGTH_MAX,
            "frame {} claims to have {kept} bytes",
            count + 1
        );
        let Some(frame) = file.get(at + RECORD_HEADER..at + RECORD_HEADER + kept) else {
            break;
        };
        count += 1;
        if count == number {
            return Ok(Captured { frame, length });
        }
        at += RECORD_HEADER + kept;
    }
    bail!("it has {count} whole frames, expected a number up to that")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(big_endian: bool, magic: u32, link_type: u32, frames: &[(&[u8], u32)]) -> Vec<u8> {
        let mut file = Vec::new();
        let word = |file: &mut Vec<u8>, value: u32| {
            let bytes = if big_endian {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            };
            file.extend(bytes);
        };
        for value in [magic, 0x0002_0004, 0, 0, 262_144, link_type] {
            word(&mut file, value);
        }
        for (frame, length) in frames {
            for value in [1, 2, frame.len() as u32, *length] {
                word(&mut file, value);
            }
            file.extend_from_slice(frame);
        }
        file
    }

    #[test]
    fn frames_are_found_in_either_byte_order() {
        for big_endian in [false, true] {
            for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
                let file = capture(big_endian, magic, 1, &[(b"one", 3), (b"second", 60)]);
                assert_eq!(
                    frame(&file, 1).unwrap(),
                    Captured {
                        frame: b"one",
                        length: 3
                    }
                );
                assert_eq!(
                    frame(&file, 2).unwrap(),
                    Captured {
                        frame: b"second",
                        length: 60
                    }
                );
                let error = frame(&file, 3).unwrap_err().to_string();
                assert!(error.starts_with("it has 2 whole frames"), "{error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let cut = capture(false, 0xa1b2_c3d4, 1, &[(b"one", 3)]);
        let mut lying = cut.clone();
        lying[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        let wifi = capture(false, 0xa1b2_c3d4, 105, &[]);
        let mut next_generation = cut.clone();
        next_generation[..4].copy_from_slice(&[0x0a, 0x0d, 0x0d, 0x0a]);
        for (file, number, expected) in [
            (&cut[..10], 1, "too short"),
            (&cut[..cut.len() - 1], 1, "it has 0 whole frames"),
            (&cut[..], 0, "counted from 1"),
            (&lying, 1, "frame 1 claims to have 4294967295 bytes"),
            (&wifi, 1, "link type 105"),
            (&next_generation, 1, "it is pcapng"),
            (&[0; 40], 1, "not a capture"),
        ] {
            let error = frame(file, number).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
