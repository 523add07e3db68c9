//! Names of objects that never change: a UUID each, with a type of its own so that they can't be mixed up.
//!
//! No state. Used by everything that refers to an object.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            )]
            #[serde(transparent)]
            pub struct $name(pub Uuid);

            impl fmt::Display for $name {
                fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(out)
                }
            }

            impl FromStr for $name {
                type Err = uuid::Error;

                fn from_str(text: &str) -> Result<Self, Self::Err> {
                    Uuid::parse_str(text).map(Self)
                }
            }

            impl From<Uuid> for $name {
                fn from(id: Uuid) -> Self {
                    Self(id)
                }
            }

            impl From<$name> for Uuid {
                fn from(id: $name) -> Self {
                    id.0
                }
            }
        )+
    };
}

ids! {
    /// Names a tenant.
    TenantId;
    /// Names a bridge; the smallest one of a flood domain names the domain.
    BridgeId;
    /// Names a router.
    RouterId;
    /// Names a port of a bridge or router.
    PortId;
    /// Names a host.
    HostId;
    /// Names a tunnel zone.
    ZoneId;
    /// Names a chain of rules.
    ChainId;
    /// Names an address group.
    AddressGroupId;
    /// Names a port group.
    PortGroupId;
}
