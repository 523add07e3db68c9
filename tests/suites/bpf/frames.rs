//! Frames in hex, with what they are. Addresses: 02:00:00:00:01:0b (10.0.1.11) to 02:00:00:00:01:0c (10.0.1.12).

/// Bytes from hex digits; blanks are ignored.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
        .collect()
}

/// ICMP echo request, TTL 64, identifier 1234.
pub fn ping() -> Vec<u8> {
    hex(
        "02000000010c 02000000010b 0800 4500001c 00014000 4001 24ca 0a00010b 0a00010c 0800 e5ca 1234 0001",
    )
}

/// The same with TTL 1.
pub fn ping_ttl_1() -> Vec<u8> {
    hex(
        "02000000010c 02000000010b 0800 4500001c 00014000 0101 63ca 0a00010b 0a00010c 0800 e5ca 1234 0001",
    )
}

/// ARP: who has 10.0.1.12, tell 10.0.1.11.
pub fn arp() -> Vec<u8> {
    hex(
        "ffffffffffff 02000000010b 0806 0001 0800 06 04 0001 02000000010b 0a00010b 000000000000 0a00010c",
    )
}

/// UDP 1000 > 2000 with 4 bytes.
pub fn udp() -> Vec<u8> {
    hex(
        "02000000010c 02000000010b 0800 45000020 00014000 4011 24b1 0a00010b 0a00010c 03e8 07d0 000c 0000 01020304",
    )
}

/// TCP SYN 40000 > 80 with DSCP 46.
pub fn tcp() -> Vec<u8> {
    hex(
        "02000000010c 02000000010b 0800 45b80028 00014000 4006 23fc 0a00010b 0a00010c
         9c40 0050 00000001 00000000 5002 ffff 0000 0000",
    )
}

/// First fragment of a UDP packet, with its header.
pub fn first_fragment() -> Vec<u8> {
    hex(
        "02000000010c 02000000010b 0800 45000024 00012000 4011 44ad 0a00010b 0a00010c 03e8 07d0 0bc0 0000 0102030405060708",
    )
}

/// A later fragment: its payload isn't a header.
pub fn later_fragment() -> Vec<u8> {
    hex(
        "02000000010c 02000000010b 0800 4500001c 00010002 4011 64b3 0a00010b 0a00010c ffffffff ffffffff",
    )
}

/// Echo request in a frame with VLAN tag 5.
pub fn tagged() -> Vec<u8> {
    let mut frame = ping();
    frame.splice(12..12, [0x81, 0x00, 0x20, 0x05]);
    frame
}

/// ICMPv6 echo request fd00::1 > fd00::2.
pub fn ping_v6() -> Vec<u8> {
    hex("02000000010c 02000000010b 86dd 60000000 0008 3a 40
         fd000000000000000000000000000001 fd000000000000000000000000000002 8000 0000 1234 0001")
}

/// UDP 1000 > 2000 over IPv6 with 4 bytes.
pub fn udp_v6() -> Vec<u8> {
    hex("02000000010c 02000000010b 86dd 60000000 000c 11 40
         fd000000000000000000000000000001 fd000000000000000000000000000002 03e8 07d0 000c 0000 01020304")
}

/// TCP SYN 40000 > 80 over IPv6.
pub fn tcp_v6() -> Vec<u8> {
    hex("02000000010c 02000000010b 86dd 60000000 0014 06 40
         fd000000000000000000000000000001 fd000000000000000000000000000002
         9c40 0050 00000001 00000000 5002 ffff 0000 0000")
}

/// An LLDP-like frame of Ethernet type 88cc.
pub fn other() -> Vec<u8> {
    hex(
        "0180c200000e 02000000010b 88cc 0207040200000001 0b04 00000000000000000000000000000000000000000000000000000000",
    )
}

/// GRE from fd30:2::1 to fd30:1::1 with `key` around `inner`.
pub fn gre_v6(key: u32, inner: &[u8]) -> Vec<u8> {
    let mut frame = hex("0a0000000001 0a0000000002 86dd 6000abcd 0000 2f 40
         fd300002000000000000000000000001 fd300001000000000000000000000001 2000 6558");
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(inner);
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

/// GRE from 172.30.2.1 to 172.30.1.1 with `key` around `inner`.
pub fn gre(key: u32, inner: &[u8]) -> Vec<u8> {
    let mut frame = hex(
        "0a0000000001 0a0000000002 0800 45000000 00004000 402f 0000 ac1e0201 ac1e0101 2000 6558",
    );
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(inner);
    let length = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame
}
