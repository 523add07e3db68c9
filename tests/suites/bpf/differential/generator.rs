//! Packets with a structure, some of them damaged afterwards. Everything comes from one seed.

use weft_tests::model::forwarding::{
    DB_1, DB_2, ROUTER_DB, ROUTER_WEB, WEB_1, WEB_2, WEB_3, mac, v4, v6,
};

/// Bytes below which BPF_PROG_TEST_RUN doesn't take a frame with an IP type: Ethernet and IPv6.
const FRAME_BYTES_MIN: usize = 54;

pub struct Generator(u64);

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    /// splitmix64
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn frame(&mut self) -> Vec<u8> {
        let mut frame = Vec::new();
        let router = mac(ROUTER_WEB);
        let destination = self.pick(&[
            router,
            router,
            router,
            router,
            mac(WEB_2),
            mac(WEB_3),
            mac(WEB_1),
            mac(99),
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 5],
            [0x33, 0x33, 0, 0, 0, 1],
            [1, 0x80, 0xc2, 0, 0, 0x0e],
        ]);
        frame.extend_from_slice(&destination);
        frame.extend_from_slice(&mac(WEB_1));
        if self.one_in(10) {
            let tag: &[u8] =
                self.pick(&[&[0x81, 0, 0, 5], &[0x88, 0xa8, 0x20, 5], &[0x81, 0, 0, 0]]);
            frame.extend_from_slice(tag);
        }
        match self.below(10) {
            0..5 => self.ipv4(&mut frame),
            5..8 => self.ipv6(&mut frame),
            8 => self.arp(&mut frame),
            _ => frame.extend_from_slice(&[0x88, 0xcc, 1, 2, 3, 4]),
        }
        if self.one_in(4) {
            self.damage(&mut frame);
        }
        frame.resize(frame.len().max(FRAME_BYTES_MIN), 0);
        frame
    }

    /// Flips bytes behind the addresses, cuts, or adds.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            let at = 12 + self.below(frame.len() - 12);
            match self.below(4) {
                0 => frame.truncate(at.max(FRAME_BYTES_MIN)),
                1 => {
                    let more = self.below(30);
                    frame.resize(frame.len() + more, 0xa5);
                }
                2 => frame[at] = self.pick(&[0, 1, 0x7f, 0x80, 0xff, 0x44, 0x46]),
                _ => frame[at] ^= 1 << self.below(8),
            }
        }
    }

    fn number(&mut self) -> u8 {
        self.pick(&[DB_1, DB_1, DB_2, DB_2, WEB_2, WEB_1, ROUTER_WEB, ROUTER_DB])
    }

    fn ipv4(&mut self, frame: &mut Vec<u8>) {
        let (protocol, payload) = self.upper(1);
        let options = vec![1; 4 * self.pick(&[0, 0, 0, 0, 1, 2, 10])];
        let number = self.number();
        let destination = match self.below(8) {
            0 => [203, 0, 113, 7],
            1 => self.pick(&[
                [198, 51, 100, 1],
                [10, 0, 2, 99],
                [224, 0, 0, 5],
                [10, 0, 2, 255],
            ]),
            _ => v4(number),
        };
        let (field, payload) = match self.below(8) {
            0 => (0x2000, padded(payload)),
            1 => (self.pick(&[0x2003, 3, 0x2001, 1, 0x1fff]), padded(payload)),
            _ => (self.pick(&[0, 0x4000]), payload),
        };
        let length = (20 + options.len() + payload.len()) as u16;
        let mut header = vec![
            0x45 + (options.len() / 4) as u8,
            self.pick(&[0, 0, 0xb8, 3]),
        ];
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&[0, self.below(4) as u8]);
        header.extend_from_slice(&u16::to_be_bytes(field));
        header.extend_from_slice(&[self.pick(&[64, 64, 64, 255, 2, 1, 0]), protocol, 0, 0]);
        header.extend_from_slice(&v4(WEB_1));
        header.extend_from_slice(&destination);
        header.extend_from_slice(&options);
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend_from_slice(&[8, 0]);
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&payload);
    }

    fn ipv6(&mut self, frame: &mut Vec<u8>) {
        let (mut next, mut payload) = self.upper(58);
        if self.one_in(6) {
            payload = padded(payload);
            let field: u16 = self.pick(&[0, 1, 0x19, 0x18, 8, 0xfff8]);
            let [high, low] = field.to_be_bytes();
            payload.splice(0..0, [next, 0, high, low, 0, 0, 0, self.below(4) as u8]);
            next = 44;
        }
        for _ in 0..self.pick(&[0, 0, 0, 1, 2, 3, 7]) {
            let kind = self.pick(&[0, 43, 60, 60, 51]);
            let units = self.pick(&[0, 0, 1, 4]);
            let size = if kind == 51 {
                4 * (units + 2)
            } else {
                8 * (units + 1)
            };
            let mut header = vec![0; size];
            (header[0], header[1]) = (next, units as u8);
            payload.splice(0..0, header);
            next = kind;
        }
        let number = self.number();
        let mut destination = v6(number);
        if self.one_in(6) {
            destination[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        }
        frame.extend_from_slice(&[0x86, 0xdd, 0x60 + self.pick(&[0, 11]), 0, 0, 0]);
        frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[next, self.pick(&[64, 64, 255, 2, 1, 0])]);
        frame.extend_from_slice(&v6(WEB_1));
        frame.extend_from_slice(&destination);
        frame.extend_from_slice(&payload);
    }

    fn arp(&mut self, frame: &mut Vec<u8>) {
        let operation = self.pick(&[1, 1, 1, 2, 3]);
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend_from_slice(&mac(WEB_1));
        frame.extend_from_slice(&v4(WEB_1));
        frame.extend_from_slice(&[0; 6]);
        let target = self.pick(&[WEB_2, WEB_3, ROUTER_WEB, WEB_1, 99]);
        frame.extend_from_slice(&[10, 0, 1, target]);
    }

    /// Protocol and bytes of the upper layer; `icmp` is the family's ICMP.
    fn upper(&mut self, icmp: u8) -> (u8, Vec<u8>) {
        let protocol = self.pick(&[6, 17, 17, icmp, icmp, 132, 47, 255]);
        let mut payload = vec![0; 20 + 4 * self.below(20)];
        payload[..4].copy_from_slice(&[0x9c, 0x40, 0, self.pick(&[80, 53])]);
        if protocol == icmp {
            let kind = self.pick(&[8, 0, 3, 128, 129, 1]);
            payload[..8].copy_from_slice(&[kind, 0, 0, 0, 0, self.below(3) as u8, 0, 1]);
        }
        (protocol, payload)
    }
}

/// To a multiple of 8 bytes, as fragments but the last are.
fn padded(mut payload: Vec<u8>) -> Vec<u8> {
    payload.resize(payload.len().next_multiple_of(8), 0);
    payload
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
