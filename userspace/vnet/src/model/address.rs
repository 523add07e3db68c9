//! An address of a port, as text `10.0.1.11` or `10.0.1.1/24`.
//!
//! No state. Used by the model and by whoever reads topology files.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An IP address, with the length of its prefix where the port is a router's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the connected prefix in bits.
    pub prefix: Option<u8>,
}

/// A text that isn't an address of a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: expected one like 10.0.1.11, or 10.0.1.1/24 on a router")]
pub struct AddressError {
    /// What was given.
    pub text: String,
}

impl PortAddress {
    /// The address, when it is IPv4.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    /// Address and prefix, when it is IPv4 and has one.
    pub fn ipv4_network(&self) -> Option<Ipv4Net> {
        Ipv4Net::new(self.ipv4()?, self.prefix?).ok()
    }

    /// Address and prefix, when it has one.
    pub fn network(&self) -> Option<IpNet> {
        IpNet::new(self.address, self.prefix?).ok()
    }

    /// Longest prefix that its family has.
    pub fn prefix_max(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for PortAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(out, "{}/{prefix}", self.address),
            None => self.address.fmt(out),
        }
    }
}

impl FromStr for PortAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || AddressError {
            text: text.to_owned(),
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| refused())?)),
            None => (text, None),
        };
        let address = PortAddress {
            address: address.parse().map_err(|_| refused())?,
            prefix,
        };
        if prefix.is_some_and(|prefix| prefix > address.prefix_max()) {
            return Err(refused());
        }
        Ok(address)
    }
}

impl Serialize for PortAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        for text in ["10.0.1.11", "10.0.1.1/24", "fd00:1::b", "fd00:1::1/64"] {
            assert_eq!(text.parse::<PortAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_impossible_prefix_is_refused() {
        for text in [
            "10.0.1.1/33",
            "fd00::1/129",
            "10.0.1.1/",
            "10.0.1/24",
            "/24",
        ] {
            assert!(text.parse::<PortAddress>().is_err(), "{text}");
        }
    }
}
