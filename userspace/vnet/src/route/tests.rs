//! Which route counts, and what it took to know.

use super::*;
use proptest::prelude::*;

const HOP: &str = "10.0.0.2";

fn route(to: &str, from: Option<&str>, action: RouteAction, weight: u32) -> Route {
    Route {
        to: to.parse().unwrap(),
        from: from.map(|from| from.parse().unwrap()),
        action,
        weight,
    }
}

fn via(address: &str) -> RouteAction {
    RouteAction::Via(address.parse().unwrap())
}

fn networks() -> [(PortId, IpNet); 2] {
    let port = |number| PortId(uuid::Uuid::from_u128(number));
    let net = |text: &str| text.parse().unwrap();
    [(port(1), net("10.0.0.1/24")), (port(2), net("fd00::1/64"))]
}

/// A table of static routes alone.
fn table(routes: &[Route]) -> RoutingTable {
    let mut ranked = Ranked::new();
    let inactive = static_routes(&mut ranked, &networks(), routes);
    RoutingTable {
        destinations: trie_of(ranked),
        inactive: (!inactive.is_empty()).then(|| {
            Box::new(RoutingTable {
                destinations: trie_of(inactive),
                inactive: None,
            })
        }),
    }
}

/// Destination, source and bits of what counts first.
fn first(table: &RoutingTable, source: &str, destination: &str) -> (String, u8, u8) {
    let lookup = table.lookup(source.parse().unwrap(), destination.parse().unwrap());
    let Some(found) = lookup.routes.first() else {
        return ("none".to_owned(), lookup.bits, lookup.source_bits);
    };
    let from = found.from.map(|from| format!(" from {from}"));
    let text = format!("{}{}", found.to, from.unwrap_or_default());
    (text, lookup.bits, found.source_bits)
}

#[test]
fn the_longest_destination_counts_and_then_the_longest_source() {
    let table = table(&[
        route("0.0.0.0/0", None, via(HOP), 100),
        route("0.0.0.0/0", Some("10.1.0.0/16"), via("10.0.0.3"), 100),
        route("192.0.2.0/24", None, via(HOP), 1),
        route("192.0.2.0/24", Some("10.1.0.0/16"), via("10.0.0.3"), 900),
        route(
            "192.0.2.0/24",
            Some("10.1.2.0/24"),
            RouteAction::Blackhole,
            100,
        ),
        route("198.51.100.0/24", None, RouteAction::Reject, 100),
    ]);
    let shown = |source, destination| first(&table, source, destination);
    assert_eq!(
        shown("10.1.2.3", "192.0.2.9"),
        ("192.0.2.0/24 from 10.1.2.0/24".into(), 24, 24)
    );
    assert_eq!(
        shown("10.1.3.3", "192.0.2.9"),
        ("192.0.2.0/24 from 10.1.0.0/16".into(), 24, 24),
        "24 bits show that it isn't the longer one"
    );
    assert_eq!(
        shown("172.16.0.1", "192.0.2.9"),
        ("192.0.2.0/24".into(), 24, 1)
    );
    // Where no route asks for a source, none of its bits is looked at.
    assert_eq!(
        shown("10.1.2.3", "198.51.100.1"),
        ("198.51.100.0/24".into(), 24, 0)
    );
    assert_eq!(
        shown("10.1.2.3", "203.0.113.1"),
        ("0.0.0.0/0 from 10.1.0.0/16".into(), 5, 16)
    );
}

/// A destination whose routes are all for other sources is as if it weren't there, but for the bits.
#[test]
fn a_destination_for_other_sources_gives_way_to_a_shorter_one() {
    let table = table(&[
        route("0.0.0.0/0", None, via(HOP), 100),
        route("192.0.2.0/24", Some("10.1.0.0/16"), via("10.0.0.3"), 100),
    ]);
    assert_eq!(
        first(&table, "10.2.0.1", "192.0.2.9"),
        ("0.0.0.0/0".into(), 24, 15)
    );
}

#[test]
fn next_hops_of_one_weight_join_and_the_others_stand_by() {
    let table = table(&[
        route("192.0.2.0/24", None, via("10.0.0.9"), 200),
        route("192.0.2.0/24", None, via("10.0.0.4"), 50),
        route("192.0.2.0/24", None, via("10.0.0.3"), 50),
        route("192.0.2.0/24", None, via("10.0.0.3"), 50),
        route("192.0.2.0/24", None, via("172.31.0.1"), 50),
        route("192.0.2.0/24", None, RouteAction::Reject, 300),
        route("192.0.2.0/24", None, via("10.0.0.10"), 400),
    ]);
    let lookup = table.lookup("10.1.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let hops: Vec<Vec<String>> = lookup
        .routes
        .iter()
        .map(|found| match found.target {
            Target::Via(hops) => hops.iter().map(|hop| hop.address.to_string()).collect(),
            other => vec![format!("{other:?}")],
        })
        .collect();
    assert_eq!(
        hops,
        [
            vec!["10.0.0.3", "10.0.0.4"],
            vec!["10.0.0.9"],
            vec!["Reject"]
        ]
    );
}

#[test]
fn a_next_hop_has_the_same_identity_everywhere() {
    let [(port, _), (other, _)] = networks();
    let hop = |port, address: &str| {
        NextHop {
            port,
            address: address.parse().unwrap(),
        }
        .identity()
    };
    let all = [hop(port, HOP), hop(other, HOP), hop(port, "fd00::2")];
    assert_eq!(all, [IDENTITIES[0], IDENTITIES[1], IDENTITIES[2]]);
}

/// Part of what hosts of several versions have in common.
const IDENTITIES: [u64; 3] = [
    7_100_751_112_348_017_980,
    4_068_525_779_438_578_079,
    14_542_329_995_234_233_472,
];

/// The definition, word for word.
fn naive(routes: &[Route], source: IpAddr, destination: IpAddr) -> Option<(IpNet, Option<IpNet>)> {
    let holds = |route: &&Route| {
        route.to.contains(&destination) && route.from.is_none_or(|from| from.contains(&source))
    };
    let length = |from: Option<IpNet>| from.map_or(0, |from| from.prefix_len());
    routes
        .iter()
        .filter(holds)
        .max_by_key(|route| (route.to.prefix_len(), length(route.from)))
        .map(|route| (route.to, route.from.filter(|from| from.prefix_len() > 0)))
}

fn prefixes(bits: impl Strategy<Value = u32>) -> impl Strategy<Value = IpNet> {
    (bits, 0_u8..=32).prop_map(|(bits, length)| {
        let address = Ipv4Addr::from_bits(bits.rotate_right(4));
        IpNet::new(address.into(), length).unwrap().trunc()
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let few = || prop_oneof![0_u32..16, any::<u32>()];
    let route =
        (prefixes(few()), proptest::option::of(prefixes(few()))).prop_map(|(to, from)| Route {
            to,
            from,
            action: RouteAction::Blackhole,
            weight: 100,
        });
    proptest::collection::vec(route, 0..16)
}

fn near() -> impl Strategy<Value = IpAddr> {
    (0_u32..16, prop_oneof![Just(0), any::<u32>()])
        .prop_map(|(near, noise)| Ipv4Addr::from_bits(near.rotate_right(4) ^ (noise >> 4)).into())
}

proptest! {
    #[test]
    fn lookups_agree_with_the_definition(routes in routes(), from in near(), to in near()) {
        let table = table(&routes);
        let lookup = table.lookup(from, to);
        let found = lookup.routes.first().map(|found| (found.to, found.from));
        prop_assert_eq!(found, naive(&routes, from, to));
    }

    #[test]
    fn the_bits_prove_the_answer(
        routes in routes(),
        from in near(),
        to in near(),
        other: (u32, u32),
    ) {
        let table = table(&routes);
        let lookup = table.lookup(from, to);
        let source_bits = lookup.routes.first().map_or(lookup.source_bits, |it| it.source_bits);
        let alike = |address: IpAddr, bits: u8, other: u32| -> IpAddr {
            let IpAddr::V4(address) = address else { unreachable!() };
            let mask = crate::mask::prefix_bits(bits);
            Ipv4Addr::from_bits(address.to_bits() & mask | other & !mask).into()
        };
        let from = alike(from, source_bits, other.0);
        let to = alike(to, lookup.bits, other.1);
        prop_assert_eq!(table.lookup(from, to), lookup);
    }
}
