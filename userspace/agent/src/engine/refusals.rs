//! Packets that go no further: their senders are told, so many times a second for each port.
//!
//! A router's ICMP errors and resets would else be an amplifier, and work without end: what comes up because of one
//! port is bounded by the kernel (`ebpf/src/miss.rs`), what is answered is bounded here (RFC 1812, 4.3.2.8; RFC 4443,
//! 2.4(f)). The packets themselves are counted as what they were refused for, answers that weren't sent as `answer_rate`.

use super::Engine;
use std::collections::HashMap;
use weft_common::DropReason;
use weft_common::limits::{ERROR_BURST, ERROR_RATE_PER_SEC};
use weft_datapath::{Datapath, HeldPacket};
use weft_vnet::policy::{Hook, answer_to_rejected};
use weft_vnet::{Emission, Entry, Outcome, Packet, PortId, TooBig, Verdict, too_big};

/// Milliseconds of credit that one answer costs.
const TOKEN_MS: u64 = 1000 / ERROR_RATE_PER_SEC;
const BURST_MS: u64 = ERROR_BURST * TOKEN_MS;

const _: () = assert!(TOKEN_MS > 0);

/// A token bucket for each port whose packets were refused lately.
#[derive(Default)]
pub struct Refusals {
    buckets: HashMap<PortId, Bucket>,
}

struct Bucket {
    credit_ms: u64,
    filled_ms: u64,
}

impl Refusals {
    /// Whether one more answer may be sent because of this port's packets.
    fn take(&mut self, port: PortId, now_ms: u64) -> bool {
        let bucket = self.buckets.entry(port).or_insert(Bucket {
            credit_ms: BURST_MS,
            filled_ms: now_ms,
        });
        bucket.credit_ms = bucket.credit_at(now_ms);
        bucket.filled_ms = now_ms;
        let is_left = bucket.credit_ms >= TOKEN_MS;
        if is_left {
            bucket.credit_ms -= TOKEN_MS;
        }
        is_left
    }

    /// Forgets buckets that are full: they are as good as new ones.
    pub fn forget_full(&mut self, now_ms: u64) {
        self.buckets
            .retain(|_, bucket| bucket.credit_at(now_ms) < BURST_MS);
    }
}

impl Bucket {
    fn credit_at(&self, now_ms: u64) -> u64 {
        (self.credit_ms + now_ms.saturating_sub(self.filled_ms)).min(BURST_MS)
    }
}

impl<D: Datapath> Engine<D> {
    /// The packet that entered at `entry` goes no further: `answer` tells its sender, within the limit.
    pub(super) fn refuse(&mut self, entry: Entry, reason: DropReason, answer: &[Emission]) {
        let port = entry.port();
        self.count_drop(port, reason);
        let (Some(port), false) = (port, answer.is_empty()) else {
            return;
        };
        if self.refusals.take(port, self.now_ms()) {
            self.emit_all(answer, 0);
        } else {
            self.count_drop(Some(port), DropReason::AnswerRate);
        }
    }

    /// Tells the sender of a packet that the port's chains reject, within the limit. It is the sender's port that is limited
    /// on ingress, the port that rejects on egress.
    pub(super) fn reject(&mut self, port: PortId, packet: &Packet<'_>, hook: Hook) {
        let reason = match hook {
            Hook::Ingress => DropReason::PolicyIngress,
            Hook::Egress => DropReason::PolicyEgress,
        };
        let answer = answer_to_rejected(packet, port, hook);
        self.refuse(Entry::Workload(port), reason, answer.as_slice());
    }

    /// What fits the packet's way, if that is less than the packet.
    pub(super) fn exceeded_mtu(&self, outcome: &Outcome, held: &HeldPacket) -> Option<u16> {
        if !matches!(outcome.verdict, Verdict::Deliver(_)) {
            return None;
        }
        let mtu = self.slot_for(outcome).mtu;
        (mtu != 0 && held.l3_size() > usize::from(mtu)).then_some(mtu)
    }

    /// A packet that is larger than the `mtu` bytes of its way: its sender is told, or it goes in pieces.
    pub(super) fn send_too_big(
        &mut self,
        entry: Entry,
        outcome: &Outcome,
        index: u16,
        held: &HeldPacket,
        mtu: u16,
    ) {
        let port = entry.port();
        // The pieces have no L4 header but the first, so the checksum can't be left to the device.
        let whole = held.with_checksum();
        let packet = match Packet::parse(entry, index, &whole.frame, whole.vlan_tci) {
            Ok(packet) => packet.after(&whole.fragment),
            Err(reason) => return self.count_drop(port, reason),
        };
        match too_big(&self.snapshot, &packet, outcome, mtu) {
            TooBig::Tell(answer) => self.refuse(entry, DropReason::MtuExceeded, &[answer]),
            // Segments that are too long, and yet may be divided: no sender does that.
            TooBig::Divide(frames) if held.gso_size == 0 => {
                for frame in frames {
                    let vlan_tci = whole.vlan_tci;
                    let piece = HeldPacket {
                        vlan_tci,
                        ..HeldPacket::made(frame)
                    };
                    self.send_once(outcome, index, &piece, port);
                }
            }
            TooBig::Divide(_) | TooBig::Drop => self.count_drop(port, DropReason::MtuExceeded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_port_has_a_burst_and_then_a_rate() {
        let mut refusals = Refusals::default();
        let [one, other] = [1, 2].map(|number| PortId(Uuid::from_u128(number)));
        let taken = |refusals: &mut Refusals, port, now_ms| {
            let asked = 0..10 * ERROR_BURST;
            asked.filter(|_| refusals.take(port, now_ms)).count() as u64
        };
        assert_eq!(taken(&mut refusals, one, 5), ERROR_BURST);
        assert_eq!(taken(&mut refusals, one, 5), 0);
        assert_eq!(taken(&mut refusals, one, 5 + 1000), ERROR_RATE_PER_SEC);
        assert_eq!(taken(&mut refusals, other, 5 + 1000), ERROR_BURST);
        assert_eq!(taken(&mut refusals, one, 3_600_000), ERROR_BURST);
        refusals.forget_full(3_600_001);
        assert_eq!(refusals.buckets.len(), 1);
        refusals.forget_full(7_200_000);
        assert!(refusals.buckets.is_empty());
        assert_eq!(taken(&mut refusals, one, 7_200_000), ERROR_BURST);
    }
}
