//! An Ethernet address, as text `02:00:00:00:01:0b`.
//!
//! No state. Used wherever a MAC address is stored, printed or typed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An Ethernet address in the order of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that isn't a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a MAC address: expected six hexadecimal bytes, like 02:00:00:00:01:0b")]
pub struct MacError {
    /// What was given.
    pub text: String,
}

impl Mac {
    /// Everyone.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names a group of receivers (IEEE 802.3, 3.2.3): multicast or broadcast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// The link-local address made of it (RFC 4291, 2.5.1 and appendix A).
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let (a, b, c) = (a ^ 2, b, c);
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The group MAC to which packets for an IPv6 group go (RFC 2464, 7).
    pub const fn of_group(group: Ipv6Addr) -> Mac {
        let [.., a, b, c, d] = group.octets();
        Mac([0x33, 0x33, a, b, c, d])
    }

    /// Whether it is one of 01:80:c2:00:00:00 to 0f, which bridges never forward (IEEE 802.1D, table 7-10).
    pub const fn is_reserved_group(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, last] if last <= 0x0f)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || MacError {
            text: text.to_owned(),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(refused)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refused());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        match parts.next() {
            None => Ok(Mac(bytes)),
            Some(_) => Err(refused()),
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_survives_its_text() {
        let mac: Mac = "02:00:00:00:01:0B".parse().unwrap();
        assert_eq!(mac, Mac([2, 0, 0, 0, 1, 11]));
        assert_eq!(mac.to_string(), "02:00:00:00:01:0b");
        let json = serde_json::to_string(&mac).unwrap();
        assert_eq!(serde_json::from_str::<Mac>(&json).unwrap(), mac);
    }

    #[test]
    fn what_is_no_mac_is_refused() {
        let wrong = [
            "",
            "02:00:00:00:01",
            "02:00:00:00:01:0b:0c",
            "2:0:0:0:1:b",
            "02:00:00:00:01:+b",
            "zz:00:00:00:01:0b",
        ];
        for text in wrong {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_sixteen_groups_are_reserved() {
        let group = |last| Mac([1, 0x80, 0xc2, 0, 0, last]);
        assert!(group(0).is_reserved_group() && group(15).is_reserved_group());
        assert!(!group(16).is_reserved_group() && group(16).is_group());
        assert!(!Mac([2, 0, 0, 0, 0, 1]).is_group());
    }
}
