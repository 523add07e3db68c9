//! The kinds of objects as they stand in paths of the API and as people type them.

use weft_vnet::Kind;

/// Every kind, in the order in which they depend on each other.
pub const KINDS: [Kind; 9] = [
    Kind::Tenant,
    Kind::TunnelZone,
    Kind::Host,
    Kind::Bridge,
    Kind::Router,
    Kind::Port,
    Kind::AddressGroup,
    Kind::PortGroup,
    Kind::Chain,
];

/// The kind's collection: `bridges` of `/v1/bridges`.
pub const fn collection(kind: Kind) -> &'static str {
    match kind {
        Kind::Tenant => "tenants",
        Kind::Bridge => "bridges",
        Kind::Router => "routers",
        Kind::Port => "ports",
        Kind::Host => "hosts",
        Kind::TunnelZone => "tunnel_zones",
        Kind::Chain => "chains",
        Kind::AddressGroup => "address_groups",
        Kind::PortGroup => "port_groups",
    }
}

/// The kind that a person means by `bridge`, `bridges`, `tunnel-zone`, `tunnel_zones` and so on.
pub fn kind_of(word: &str) -> Option<Kind> {
    let word = word.to_lowercase().replace('-', "_");
    KINDS
        .into_iter()
        .find(|kind| word == collection(*kind) || word == kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_both_numbers() {
        for kind in KINDS {
            assert_eq!(kind_of(collection(kind)), Some(kind));
            assert_eq!(kind_of(kind.name()), Some(kind));
        }
        assert_eq!(kind_of("Tunnel-Zones"), Some(Kind::TunnelZone));
        assert_eq!(kind_of("mirrors"), None);
    }
}
