//! Later fragments have the ports of the first one.

use crate::bench::{Bench, OTHER, PORT, SHOT, exact, key_of, with_bench};
use crate::frames::{self, hex};
use aya::maps::{Array, HashMap, Map, MapData};
use weft_common::fragment::{FragmentEntry, FragmentKey, FragmentPorts};
use weft_common::limits::{FRAGMENT_TIMEOUT_SECS, FRAGMENTS_MAX};
use weft_common::port::InterfaceRecord;
use weft_common::slot::Output;
use weft_common::{DropReason, FlowKey, Slot};
use zerocopy::{Immutable, IntoBytes};

/// IPv6 fragment with identification `id`, field `field` (offset and more), whose header names `next`.
fn v6(next: u8, field: u16, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = hex("02000000010c 02000000010b 86dd 60000000 0000 2c 40
         fd000000000000000000000000000001 fd000000000000000000000000000002");
    frame.extend_from_slice(&[next, 0]);
    frame.extend_from_slice(&field.to_be_bytes());
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

fn v6_first(id: u32) -> Vec<u8> {
    // Destination options, then UDP 1000 > 2000.
    let payload = hex("11 00 0104 00000000 03e8 07d0 0bc0 0000");
    v6(60, 1, id, &payload)
}

fn v6_later(id: u32) -> Vec<u8> {
    v6(60, 0x10, id, &[0xff; 8])
}

fn with_id(mut frame: Vec<u8>, id: u16) -> Vec<u8> {
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame
}

/// The ports and the protocol in the keys of the misses that `frames` cause: as the agent makes the keys.
fn missed(bench: &mut Bench, frames: &[Vec<u8>]) -> Vec<(u16, u16, u8)> {
    for frame in frames {
        assert_eq!(bench.run("from_port", frame).verdict, SHOT);
    }
    let misses = bench.misses();
    assert_eq!(misses.len(), frames.len());
    let keys = misses.into_iter().map(|miss| {
        let mut key = key_of(&miss.packet.frame);
        miss.packet.fragment.complete(&mut key.head);
        (key.head.l4_src, key.head.l4_dst, key.head.protocol)
    });
    keys.collect()
}

/// The agent's key of a later fragment, of which the kernel knew `ports`, is the one that the kernel looks up.
fn is_hit(bench: &mut Bench, later: &[u8], ports: (u16, u16, u8)) -> bool {
    let mut key: FlowKey = key_of(later);
    let (l4_src, l4_dst, protocol) = ports;
    let known = FragmentPorts {
        l4_src,
        l4_dst,
        protocol,
        is_known: 1,
        check: 0,
    };
    known.complete(&mut key.head);
    let reason = DropReason::BlackholeRoute;
    let slot = Slot {
        output: Output::Drop as u8,
        drop_reason: reason as u8,
        ..Slot::default()
    };
    let target = bench.reserve(slot);
    let id = bench
        .table
        .install(&mut bench.kernel, &key, &exact(), target, &slot, 0)
        .expect("a flow");
    let before = bench.drops(PORT, reason);
    bench.run("from_port", later);
    let after = bench.drops(PORT, reason);
    bench.table.remove(&mut bench.kernel, id, 0);
    bench.misses();
    after == before + 1
}

#[test]
fn later_fragments_have_the_ports_of_the_first() {
    with_bench(|bench| {
        let (first, later) = (frames::first_fragment(), frames::later_fragment());
        let udp = (1000, 2000, 17);
        let keys = missed(bench, &[first, later.clone(), later.clone()]);
        assert_eq!(keys, [udp, udp, udp]);
        assert!(is_hit(bench, &later, udp));
        assert!(!is_hit(bench, &with_id(later, 2), udp));
        // IPv6: the protocol is the first one's, too.
        let keys = missed(bench, &[v6_first(7), v6_later(7)]);
        assert_eq!(keys, [udp, udp]);
        assert!(is_hit(bench, &v6_later(7), udp));
        assert!(!is_hit(bench, &v6_later(8), udp));
    });
}

/// Type, code and identifier of a ping are what ports are to it.
#[test]
fn later_fragments_of_a_ping_have_its_identifier() {
    with_bench(|bench| {
        let mut first = frames::ping();
        first[20] = 0x20;
        let mut later = first.clone();
        later[20..22].copy_from_slice(&[0, 1]);
        let ping = (0x0800, 0x1234, 1);
        assert_eq!(missed(bench, &[first, later]), [ping, ping]);
    });
}

#[test]
fn a_fragment_that_comes_before_the_first_has_none() {
    with_bench(|bench| {
        let (first, later) = (frames::first_fragment(), frames::later_fragment());
        let keys = missed(bench, &[later.clone(), first, later]);
        assert_eq!(keys, [(0, 0, 17), (1000, 2000, 17), (1000, 2000, 17)]);
        let keys = missed(bench, &[v6_later(9), v6_first(9), v6_later(9)]);
        assert_eq!(keys, [(0, 0, 60), (1000, 2000, 17), (1000, 2000, 17)]);
    });
}

/// Same addresses and identification, but another protocol, tag or port: another packet.
#[test]
fn another_packets_fragments_have_other_ports() {
    with_bench(|bench| {
        let (first, later) = (frames::first_fragment(), frames::later_fragment());
        let mut tcp = later.clone();
        (tcp[23], tcp[21]) = (6, 3);
        let mut tagged = later.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let keys = missed(bench, &[first, tcp, tagged]);
        assert_eq!(keys, [(1000, 2000, 17), (0, 0, 6), (0, 0, 17)]);
        give_interface_to(bench, OTHER);
        assert_eq!(missed(bench, &[later]), [(0, 0, 17)]);
    });
}

/// Makes the loopback interface another port's.
fn give_interface_to(bench: &Bench, port: u16) {
    let path = bench.pin.join("maps/interfaces");
    let map = Map::Array(MapData::from_pin(path).expect("the pinned table"));
    let mut interfaces: Array<MapData, [u8; 8]> = Array::try_from(map).expect("an array");
    let record = InterfaceRecord {
        ifindex: 1,
        port: u32::from(port),
    };
    interfaces.set(1, bytes(record), 0).expect("written");
}

fn bytes<const N: usize>(record: impl IntoBytes + Immutable) -> [u8; N] {
    record.as_bytes().try_into().expect("as long as the record")
}

fn table(bench: &Bench) -> HashMap<MapData, [u8; 48], [u8; 16]> {
    let path = bench.pin.join("maps/fragments");
    let map = Map::LruHashMap(MapData::from_pin(path).expect("the pinned table"));
    HashMap::try_from(map).expect("a hash")
}

#[test]
fn a_first_fragment_is_forgotten_in_time() {
    with_bench(|bench| {
        missed(bench, &[frames::first_fragment()]);
        let mut table = table(bench);
        let (name, entry) = table.iter().next().expect("an entry").expect("read");
        let mut entry: FragmentEntry = zerocopy::transmute!(entry);
        let name_read: FragmentKey = zerocopy::transmute!(name);
        assert_eq!((name_read.id, name_read.port), (1, PORT));
        entry.seen_ns = entry
            .seen_ns
            .wrapping_sub((FRAGMENT_TIMEOUT_SECS - 5) * 1_000_000_000);
        table.insert(name, bytes(entry), 0).expect("written");
        let later = frames::later_fragment();
        assert_eq!(
            missed(bench, std::slice::from_ref(&later)),
            [(1000, 2000, 17)]
        );
        entry.seen_ns = entry.seen_ns.wrapping_sub(6 * 1_000_000_000);
        table.insert(name, bytes(entry), 0).expect("written");
        assert_eq!(missed(bench, &[later]), [(0, 0, 17)]);
    });
}

/// First fragments without end displace the oldest ones, and the newest still counts.
#[test]
fn the_table_is_bounded() {
    with_bench(|bench| {
        for id in 0..FRAGMENTS_MAX + 1000 {
            bench.run("from_port", &v6_first(id));
        }
        let entries = table(bench).keys().count();
        assert!(entries <= FRAGMENTS_MAX as usize, "{entries}");
        assert!(entries > FRAGMENTS_MAX as usize / 4, "{entries}");
        while !bench.misses().is_empty() {}
        let newest = v6_later(FRAGMENTS_MAX + 999);
        assert!(is_hit(bench, &newest, (1000, 2000, 17)));
    });
}
