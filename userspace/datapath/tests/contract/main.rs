//! What every datapath must keep: the kernel's and the fake's, by the same tests.

mod subject;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use subject::{Subject, frame, mask};
use weft_common::limits::{SELECT_GROUPS_MAX, SLOT_GRACE_SECS, SLOTS_MAX};
use weft_common::slot::{Choice, Output};
use weft_common::{DropReason, Slot, select};
use weft_datapath::{Datapath, Error, FlowTable, HeldPacket, Kernel, Member};

/// A decision that can be seen from outside: a drop with this reason.
fn decision(reason: DropReason) -> Slot {
    Slot {
        output: Output::Drop as u8,
        drop_reason: reason as u8,
        ..Slot::default()
    }
}

const FIRST: DropReason = DropReason::NoRoute;
const SECOND: DropReason = DropReason::RejectRoute;

fn install<D: Datapath>(
    table: &mut FlowTable,
    datapath: &mut D,
    last: u8,
    bits: u32,
    reason: DropReason,
) -> Result<weft_datapath::FlowId, Error> {
    let slot = decision(reason);
    let target = table.reserve(datapath, &slot)?;
    table.install(datapath, &subject::key(last), &mask(bits), target, &slot, 0)
}

fn a_flow_decides_what_its_mask_matches<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    install(&mut table, subject.datapath(), 1, 30, FIRST).unwrap();
    assert_eq!(subject.decide(1), Some(FIRST));
    assert_eq!(subject.decide(2), Some(FIRST));
    assert_eq!(subject.decide(4), None);
}

fn the_same_match_gets_the_new_decision<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let first = install(&mut table, subject.datapath(), 1, 32, FIRST).unwrap();
    assert_eq!(subject.decide(1), Some(FIRST));
    let second = install(&mut table, subject.datapath(), 1, 32, SECOND).unwrap();
    assert_eq!((first, table.len()), (second, 1));
    assert_eq!(subject.decide(1), Some(SECOND));
    let used = table.use_of(subject.datapath(), table.get(first).unwrap());
    assert_eq!(used.packets, 2);
}

fn a_removed_flow_decides_nothing<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let id = install(&mut table, subject.datapath(), 1, 32, FIRST).unwrap();
    assert_eq!(subject.decide(1), Some(FIRST));
    let flow = table.remove(subject.datapath(), id, 0).unwrap();
    assert_eq!(subject.decide(1), None);
    assert_eq!(
        subject
            .datapath()
            .published(flow.family, &flow.masked)
            .unwrap(),
        None
    );
    assert_eq!(
        subject
            .datapath()
            .read_port(subject::PORT)
            .unwrap()
            .masks_v4,
        0
    );
}

fn an_idle_flow_goes_and_a_used_one_stays<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    table.idle_timeout_secs = 60;
    install(&mut table, subject.datapath(), 1, 32, FIRST).unwrap();
    install(&mut table, subject.datapath(), 2, 32, SECOND).unwrap();
    assert!(table.sweep(subject.datapath(), 59).is_empty());
    assert_eq!(subject.decide(2), Some(SECOND));
    let gone = table.sweep(subject.datapath(), 60);
    assert_eq!(gone.len(), 1);
    assert_eq!(subject.decide(1), None);
    assert_eq!(subject.decide(2), Some(SECOND));
}

fn a_full_table_refuses_and_keeps_what_it_has<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    table.flows_max = 2;
    install(&mut table, subject.datapath(), 1, 32, FIRST).unwrap();
    install(&mut table, subject.datapath(), 2, 32, FIRST).unwrap();
    let refused = install(&mut table, subject.datapath(), 3, 32, SECOND);
    assert!(
        matches!(
            refused,
            Err(Error::Full {
                what: "flows",
                limit: 2
            })
        ),
        "{refused:?}"
    );
    assert_eq!(subject.decide(1), Some(FIRST));
    assert_eq!(subject.decide(3), None);
}

fn a_slot_rests_before_its_next_use<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let id = install(&mut table, subject.datapath(), 1, 32, FIRST).unwrap();
    let old = table.get(id).unwrap().target;
    table.remove(subject.datapath(), id, 0);
    table.sweep(subject.datapath(), SLOT_GRACE_SECS - 1);
    let next = table.reserve(subject.datapath(), &decision(FIRST)).unwrap();
    assert_ne!(next.slot, old.slot);
    table.sweep(subject.datapath(), SLOT_GRACE_SECS);
    let again = table.reserve(subject.datapath(), &decision(FIRST)).unwrap();
    assert_eq!(again.slot, old.slot);
    assert_ne!(again.generation, old.generation);
    assert!(
        table
            .reserve(subject.datapath(), &decision(FIRST))
            .unwrap()
            .slot
            < SLOTS_MAX
    );
}

fn ports_attach_to_interfaces_that_exist<S: Subject>(subject: &mut S) {
    let missing = subject.datapath().attach_port(7, "weft-none");
    assert!(
        matches!(missing, Err(Error::NoInterface(ref name)) if name == "weft-none"),
        "{missing:?}"
    );
    let attachment = subject.datapath().attach_port(7, "lo").unwrap();
    assert_eq!(attachment.ifindex, 1);
    subject
        .datapath()
        .detach_port(7, attachment.ifindex)
        .unwrap();
    subject.datapath().attach_port(8, "lo").unwrap();
    assert!(subject.datapath().attach_underlay("weft-none").is_err());
    subject.datapath().attach_underlay("lo").unwrap();
}

fn a_packet_can_be_sent_through_a_slot<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let target = table.reserve(subject.datapath(), &decision(FIRST)).unwrap();
    let packet = HeldPacket::made(frame(1));
    subject
        .datapath()
        .inject(target, subject::PORT, &packet)
        .unwrap();
    assert_eq!(subject.injected(FIRST), 1);
    table.retire(subject.datapath(), target, 0);
    subject
        .datapath()
        .inject(target, subject::PORT, &packet)
        .unwrap();
    assert_eq!(subject.injected(FIRST), 1);
}

fn choice(group: u32) -> Slot {
    Slot {
        choice: Choice::Select as u8,
        choice_group: group,
        ..Slot::default()
    }
}

fn members(reasons: &[DropReason]) -> Vec<Member> {
    let member = |reason: &DropReason| Member {
        identity: select::identity(&[*reason as u64]),
        slot: decision(*reason),
    };
    reasons.iter().map(member).collect()
}

const THIRD: DropReason = DropReason::BlackholeRoute;

fn a_group_chooses_by_the_packets_bucket<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let datapath = subject.datapath();
    let inner = table
        .group(datapath, &members(&[SECOND, THIRD]), 0)
        .unwrap();
    let mut outer = members(&[FIRST]);
    outer.push(Member {
        identity: 1,
        slot: choice(inner),
    });
    let group = table.group(datapath, &outer, 0).unwrap();
    let target = table.reserve(datapath, &choice(group)).unwrap();
    let (key, slot) = (subject::key(1), choice(group));
    let id = table
        .install(datapath, &key, &mask(8), target, &slot, 0)
        .unwrap();
    let mut seen = BTreeSet::new();
    for last in 0..64 {
        let chosen = *table.chosen(&slot, &subject::key(last)).unwrap();
        let reason = DropReason::from_number(chosen.drop_reason);
        assert_eq!(subject.decide(last), reason, "{last}");
        seen.insert(reason);
    }
    assert_eq!(seen.len(), 3);
    let used = table.use_of(subject.datapath(), table.get(id).unwrap());
    assert_eq!(used.packets, 64);
}

fn a_group_is_shared_and_goes_after_its_last_user<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let datapath = subject.datapath();
    let all = members(&[FIRST, SECOND]);
    let group = table.group(datapath, &all, 0).unwrap();
    assert_eq!(table.group(datapath, &all, 0).unwrap(), group);
    let first = table.reserve(datapath, &choice(group)).unwrap();
    let second = table.reserve(datapath, &choice(group)).unwrap();
    // Another group with one of the same members: the same slot.
    let other = table
        .group(datapath, &members(&[SECOND, THIRD]), 0)
        .unwrap();
    assert_ne!(other, group);
    let slots: BTreeSet<u32> = [group, other]
        .into_iter()
        .flat_map(|group| table.members(group).map(|(_, target)| target.slot))
        .collect();
    assert_eq!(slots.len(), 3);
    // Nobody took it up.
    table.sweep(datapath, SLOT_GRACE_SECS);
    assert_eq!(
        (table.groups_len(), table.find_group(&all)),
        (1, Some(group))
    );
    table.retire(datapath, first, 10);
    table.sweep(datapath, 10 + SLOT_GRACE_SECS);
    assert_eq!(table.find_group(&all), Some(group));
    table.retire(datapath, second, 20);
    table.sweep(datapath, 20 + SLOT_GRACE_SECS - 1);
    assert_eq!(table.find_group(&all), Some(group));
    table.sweep(datapath, 20 + SLOT_GRACE_SECS);
    assert_eq!(table.groups_len(), 0);
    let again = table.group(datapath, &members(&[THIRD]), 30).unwrap();
    assert!([group, other].contains(&again), "indices are used again");
}

fn a_full_set_of_groups_refuses<S: Subject>(subject: &mut S) {
    let mut table = FlowTable::new(0);
    let datapath = subject.datapath();
    let one = |identity| {
        [Member {
            identity,
            slot: decision(FIRST),
        }]
    };
    for identity in 1..u64::from(SELECT_GROUPS_MAX) {
        table.group(datapath, &one(identity), 0).unwrap();
    }
    let refused = table.group(datapath, &one(0), 0);
    assert!(
        matches!(
            refused,
            Err(Error::Full {
                what: "select groups",
                limit: 1024
            })
        ),
        "{refused:?}"
    );
    table.sweep(datapath, SLOT_GRACE_SECS);
    assert!(table.group(datapath, &one(0), SLOT_GRACE_SECS).is_ok());
}

macro_rules! contract {
    ($($test:ident,)+) => {
        mod fake {
            $(#[test] fn $test() { super::$test(&mut super::subject::fake()); })+
        }
        mod kernel {
            $(#[test] fn $test() { super::subject::with_kernel(|subject| super::$test(subject)); })+
        }
    };
}

contract! {
    a_flow_decides_what_its_mask_matches,
    the_same_match_gets_the_new_decision,
    a_removed_flow_decides_nothing,
    an_idle_flow_goes_and_a_used_one_stays,
    a_full_table_refuses_and_keeps_what_it_has,
    a_slot_rests_before_its_next_use,
    ports_attach_to_interfaces_that_exist,
    a_packet_can_be_sent_through_a_slot,
    a_group_chooses_by_the_packets_bucket,
    a_group_is_shared_and_goes_after_its_last_user,
    a_full_set_of_groups_refuses,
}

/// A new agent finds what the old one left: records, and generations above all that are in use.
#[test]
fn a_second_agent_adopts_the_pinned_state() {
    let pin = subject::pin("adopt");
    subject::in_namespace(pin.clone(), move |pin| {
        let config = weft_datapath::KernelConfig { pin };
        let mut first = Kernel::open(&config).unwrap();
        let mut table = FlowTable::new(first.slot_generation());
        let record = weft_common::PortRecord {
            generation: 9,
            ..Default::default()
        };
        first.write_port(subject::PORT, &record).unwrap();
        install(&mut table, &mut first, 1, 32, FIRST).unwrap();
        first.attach_port(subject::PORT, "lo").unwrap();
        let intruder = Kernel::open(&config).map(|_| ());
        assert!(matches!(intruder, Err(Error::PinInUse(_))), "{intruder:?}");
        drop(first);
        let mut second = Kernel::open(&config).unwrap();
        assert_eq!(second.read_port(subject::PORT).unwrap().generation, 9);
        assert_eq!(second.slot_generation(), 1);
        assert_eq!(second.attach_port(subject::PORT, "lo").unwrap().ifindex, 1);
        assert_eq!(second.decide(1), Some(FIRST));
        let earlier = second.take_over().unwrap();
        let mut table = FlowTable::new(1);
        let (adopted, withdrawn) = table.adopt(&mut second, &earlier, 0);
        assert_eq!((adopted.len(), withdrawn), (1, 0));
        let flow = table.get(adopted[0]).unwrap();
        assert_eq!((flow.target.generation, flow.slot), (1, decision(FIRST)));
        assert_eq!(table.use_of(&second, flow).packets, 1);
        // The next decision gets another slot; the adopted one goes on.
        install(&mut table, &mut second, 2, 32, SECOND).unwrap();
        assert_eq!(
            (second.decide(1), second.decide(2)),
            (Some(FIRST), Some(SECOND))
        );
        // Cached by now: the decision must go with the flow, not only with its next lookup.
        table.remove(&mut second, adopted[0], 0);
        assert_eq!(second.decide(1), None);
        let mut misses = 0;
        second
            .poll_misses(Duration::from_millis(20), &mut |_| misses += 1)
            .unwrap();
        assert_eq!(misses, 1);
        // A TCX link, or on a kernel without TCX the record of a filter.
        let attached = ["links/port_1", "filters/port_1"].map(|name| config.pin.join(name));
        assert!(attached.iter().any(|path| path.exists()));
        second.detach_other_ports(&std::collections::BTreeSet::new());
        assert!(!attached.iter().any(|path| path.exists()));
    });
}

/// Gives what is pinned another ABI's name.
fn rename_abi(pin: &Path, version: &str) {
    let own = pin.join(format!("abi-{}", weft_common::ABI_VERSION));
    std::fs::rename(own, pin.join(version)).unwrap();
}

/// Names in a folder of pins, in order, without those of what is attached.
fn versions(pin: &Path) -> Vec<String> {
    let names = std::fs::read_dir(pin).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let attached = ["links".to_owned(), "filters".to_owned()];
    let names: BTreeSet<String> = names.filter(|name| !attached.contains(name)).collect();
    names.into_iter().collect()
}

/// Leaves a flow and a port's generation as an agent of another ABI would.
fn leave_another_abi(config: &weft_datapath::KernelConfig) {
    let mut first = Kernel::open(config).unwrap();
    let mut table = FlowTable::new(0);
    let record = weft_common::PortRecord {
        generation: 9,
        ..Default::default()
    };
    first.write_port(subject::PORT, &record).unwrap();
    install(&mut table, &mut first, 1, 30, FIRST).unwrap();
    first.attach_port(subject::PORT, "lo").unwrap();
    first.attach_port(7, "other").unwrap();
    drop(first);
    rename_abi(&config.pin, "abi-1");
}

/// Maps of another ABI forward until the swap, whatever becomes of the agent beside them.
#[test]
fn another_abi_goes_on_until_it_is_swapped() {
    subject::in_namespace(subject::pin("beside"), |pin| {
        ip("link add other type veth peer name far");
        let config = weft_datapath::KernelConfig { pin };
        leave_another_abi(&config);
        let shown = attached(&config.pin);
        assert_eq!(shown.len(), 2);
        // The first one dies beside it.
        for _ in 0..2 {
            let mut second = Kernel::open(&config).unwrap();
            assert_eq!(versions(&config.pin)[0], "abi-1");
            assert!(config.pin.join("next/maps/slots").exists());
            let earlier = second.take_over().unwrap();
            assert!(earlier.flows.is_empty(), "what one that died had begun");
            let other = earlier.other_abi.unwrap();
            assert_eq!(other.version, 1);
            let keys: Vec<_> = other
                .keys
                .iter()
                .map(|key| (key.masked, key.mask))
                .collect();
            assert_eq!(keys, [(subject::key(1).masked(&mask(30)), mask(30))]);
            assert_eq!(second.read_port(subject::PORT).unwrap().generation, 9);
            let own = second.attach_port(subject::PORT, "lo").unwrap();
            assert_eq!(own.ifindex, 1);
            second.attach_underlay("lo").unwrap();
            second.detach_other_ports(&BTreeSet::new());
            assert_eq!(attached(&config.pin), shown, "the other ABI's");
            install(&mut FlowTable::new(0), &mut second, 2, 32, SECOND).unwrap();
        }
        let mut third = Kernel::open(&config).unwrap();
        third.start_swap();
        third.attach_port(subject::PORT, "lo").unwrap();
        third.end_swap().unwrap();
        let own = format!("abi-{}", weft_common::ABI_VERSION);
        let keys = format!("keys-{}", weft_common::KEYS_VERSION);
        assert_eq!(
            versions(&config.pin),
            [own, keys, "maps".into(), "progs".into()]
        );
        let after = attached(&config.pin);
        assert_eq!(
            after.len(),
            1,
            "what wasn't attached again is gone: {after:?}"
        );
        assert!(!shown.contains(&after[0]), "another program");
        // The next one is of the same ABI, and adopts.
        let mut table = FlowTable::new(0);
        install(&mut table, &mut third, 1, 32, SECOND).unwrap();
        drop(third);
        let mut fourth = Kernel::open(&config).unwrap();
        let earlier = fourth.take_over().unwrap();
        assert_eq!((earlier.flows.len(), earlier.other_abi), (1, None));
    });
}

/// Nothing is read of maps whose keys have a version that this agent doesn't know.
#[test]
fn unknown_keys_of_another_abi_are_not_read() {
    subject::in_namespace(subject::pin("keys"), |pin| {
        ip("link add other type veth peer name far");
        let config = weft_datapath::KernelConfig { pin };
        leave_another_abi(&config);
        std::fs::create_dir(config.pin.join("keys-77")).unwrap();
        let mut second = Kernel::open(&config).unwrap();
        let other = second.take_over().unwrap().other_abi.unwrap();
        assert_eq!((other.version, other.keys), (1, Vec::new()));
        assert_eq!(second.read_port(subject::PORT).unwrap().generation, 0);
    });
}

/// An agent that was killed while it moved its maps to their place is followed by one that goes on with that.
#[test]
fn a_swap_that_was_cut_short_is_finished() {
    subject::in_namespace(subject::pin("cut"), |pin| {
        let config = weft_datapath::KernelConfig { pin };
        let mut first = Kernel::open(&config).unwrap();
        let mut table = FlowTable::new(0);
        install(&mut table, &mut first, 1, 32, FIRST).unwrap();
        drop(first);
        let said = versions(&config.pin);
        // All is attached; then the maps were moved, too; then the versions were said.
        for step in 0..3 {
            let (pin, next) = (&config.pin, config.pin.join("next"));
            let made = ["whole", &said[0], &said[1]].map(|name| next.join(name));
            made.iter()
                .for_each(|path| std::fs::create_dir_all(path).unwrap());
            std::fs::rename(pin.join("progs"), next.join("progs")).unwrap();
            if step == 0 {
                std::fs::rename(pin.join("maps"), next.join("maps")).unwrap();
                std::fs::create_dir(pin.join("maps")).unwrap();
            }
            if step < 2 {
                rename_abi(pin, "abi-1");
            }
            let mut second = Kernel::open(&config).unwrap();
            assert_eq!(versions(pin), said);
            let earlier = second.take_over().unwrap();
            assert_eq!((earlier.flows.len(), earlier.other_abi), (1, None));
        }
    });
}

/// Where programs are attached in a folder of pins: interface and program, by id.
fn attached(pin: &Path) -> Vec<String> {
    let shown = |name: &str| {
        let filters = tc(&format!("filter show dev {name} ingress"));
        let ids = filters.split(" id ").skip(1);
        let ids: Vec<&str> = ids.filter_map(|rest| rest.split(' ').next()).collect();
        ids.iter()
            .map(|id| format!("{name} {id}"))
            .collect::<Vec<_>>()
    };
    if pin.join("filters").exists() {
        return ["lo", "other"].map(shown).concat();
    }
    let links = std::fs::read_dir(pin.join("links")).unwrap();
    let shown = links.map(|link| {
        let link = link.unwrap().path();
        let fields = run(
            "bpftool",
            &["link", "show", "pinned", link.to_str().unwrap()],
        );
        let program = fields
            .split(" prog ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        format!("{} {}", link.display(), program.unwrap())
    });
    let shown: BTreeSet<String> = shown.collect();
    shown.into_iter().collect()
}

/// Runs `tc` in the calling thread's namespace.
fn tc(arguments: &str) -> String {
    run("tc", &arguments.split(' ').collect::<Vec<_>>())
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Whatever the host had on an interface is there afterwards, and nothing of ours.
#[test]
fn what_is_released_leaves_qdiscs_as_they_were() {
    const OWN: &str = "filter add dev lo ingress prio 7 protocol ip u32 match u32 0 0 classid 1:1";
    // What the host does before the agent starts, and while it runs.
    const CASES: [(&[&str], &[&str]); 5] = [
        (&[], &[]),
        (&["qdisc add dev lo clsact"], &[]),
        (&["qdisc add dev lo ingress"], &[]),
        (&["qdisc add dev lo clsact", OWN], &[]),
        (&[], &["qdisc replace dev lo clsact", OWN]),
    ];
    for (before, meanwhile) in CASES {
        subject::in_namespace(subject::pin("release"), move |pin| {
            let shown = || tc("qdisc show dev lo") + &tc("filter show dev lo ingress");
            before.iter().for_each(|command| drop(tc(command)));
            let config = weft_datapath::KernelConfig { pin };
            let untouched = shown();
            let mut kernel = Kernel::open(&config).unwrap();
            kernel.attach_port(subject::PORT, "lo").unwrap();
            meanwhile.iter().for_each(|command| drop(tc(command)));
            drop(kernel);
            Kernel::release_pins(&config.pin).unwrap();
            let after = shown();
            if meanwhile.is_empty() {
                assert_eq!(after, untouched);
            } else {
                let is_right = after.contains("u32") && !after.contains("from_port");
                assert!(is_right, "{after}");
            }
        });
    }
}
