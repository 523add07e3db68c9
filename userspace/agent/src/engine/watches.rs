//! What the ports of this host show of marked packets, for `weft ping` here and on other hosts.
//!
//! Another agent's question comes and goes as a tunnel probe does, so that it needs nothing but the tunnel; one packet
//! asks, one answers, and whoever asks repeats what got lost. A watch lasts for some seconds, and there are few.

use super::Engine;
use super::ports::xdp_flags;
use std::net::IpAddr;
use tokio::sync::oneshot;
use weft_common::port::{Delivery, PORT_XDP};
use weft_common::probe::{
    PROBE_FORMAT, PROBE_MAGIC, PROBE_SEEN, PROBE_WATCH, SEEN_ANSWERED, SEEN_BUSY, SEEN_DELIVERED,
    SEEN_DOWN, SEEN_NO_PORT, SEEN_VISIBLY, WATCH_BEGIN, WATCH_END, WATCH_VISIBLY, WatchPayload,
};
use weft_common::{DropReason, PortRecord, TunnelKey};
use weft_datapath::{Datapath, MarkWatch};
use weft_vnet::HostId;
use zerocopy::IntoBytes;

/// Watches at once, of whomever.
const WATCHES_MAX: usize = 4;
/// How long one lasts after the last question, in milliseconds.
const WATCH_MS: u64 = 3000;
/// Own questions that wait for an answer.
const ASKED_MAX: usize = 64;

/// A question about one packet at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Host of the port.
    pub host: HostId,
    /// The port.
    pub key: TunnelKey,
    /// Mark of the packet.
    pub token: u32,
    /// `WATCH_` flags.
    pub flags: u8,
    /// Differs among the questions about one packet.
    pub number: u8,
}

/// The answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// `SEEN_` flags.
    pub seen: u8,
    /// A reason for which the kernel dropped packets to the port meanwhile.
    pub dropped: Option<DropReason>,
}

/// A port that is watched.
struct Watch {
    /// Address of the host that asked; none for this one.
    asker: Option<IpAddr>,
    token: u32,
    key: TunnelKey,
    ends_ms: u64,
    is_visible: bool,
    frames: Box<dyn MarkWatch>,
    /// Drops at the port when it began.
    drops: Vec<(DropReason, u64)>,
}

/// A question of this host.
struct Asked {
    address: IpAddr,
    token: u32,
    number: u8,
    answer: oneshot::Sender<Sight>,
}

/// All of them.
#[derive(Default)]
pub struct Watches {
    here: Vec<Watch>,
    asked: Vec<Asked>,
}

impl Watches {
    /// Whether delivery to a port goes the way on which it is seen.
    pub fn is_visible(&self, index: u16) -> bool {
        let mut here = self.here.iter();
        here.any(|watch| watch.is_visible && watch.key.index == index)
    }
}

impl<D: Datapath> Engine<D> {
    /// Asks the port's host. The answer may get lost: then the receiver waits for ever.
    pub fn ask_about(&mut self, question: Question) -> oneshot::Receiver<Sight> {
        let (answer, answered) = oneshot::channel();
        let payload = WatchPayload {
            magic: PROBE_MAGIC,
            format: PROBE_FORMAT,
            flags: question.flags,
            question: question.number,
            token: question.token.to_be_bytes(),
            key: question.key.bits().to_be_bytes(),
            ..WatchPayload::default()
        };
        if question.host == self.host {
            // Whoever asked may have gone.
            let _ = answer.send(self.look_here(None, &payload));
            return answered;
        }
        let remote = self.peers.hosts.get(&question.host);
        let Some((peer, address)) = remote.map(|it| (it.index, it.address)) else {
            return answered;
        };
        self.watches.asked.retain(|asked| !asked.answer.is_closed());
        if self.watches.asked.len() < ASKED_MAX
            && self.send_control(peer, PROBE_WATCH, payload.as_bytes(), 0)
        {
            self.watches.asked.push(Asked {
                address,
                token: question.token,
                number: question.number,
                answer,
            });
        }
        answered
    }

    /// Another host asks.
    pub(super) fn take_question(&mut self, sender: IpAddr, payload: &WatchPayload) {
        let mut hosts = self.peers.hosts.values();
        let Some(peer) = hosts.find(|it| it.address == sender).map(|it| it.index) else {
            return self.count_drop(None, DropReason::UnaskedProbe);
        };
        let sight = self.look_here(Some(sender), payload);
        let answer = WatchPayload {
            seen: sight.seen,
            dropped: sight.dropped.map_or(0, |reason| reason as u8),
            ..*payload
        };
        // One that gets lost is asked for again.
        self.send_control(peer, PROBE_SEEN, answer.as_bytes(), 0);
    }

    /// Another host answers.
    pub(super) fn take_sight(&mut self, sender: IpAddr, payload: &WatchPayload) {
        let token = u32::from_be_bytes(payload.token);
        let mut asked = self.watches.asked.iter();
        let place = asked
            .position(|it| (it.address, it.token, it.number) == (sender, token, payload.question));
        let Some(place) = place else {
            return self.count_drop(None, DropReason::UnaskedProbe);
        };
        let asked = self.watches.asked.swap_remove(place);
        // Whoever asked may have gone.
        let _ = asked.answer.send(Sight {
            seen: payload.seen,
            dropped: DropReason::from_number(payload.dropped).filter(|_| payload.dropped != 0),
        });
    }

    /// What a port of this host shows of a packet; a question before it is sent begins to watch.
    fn look_here(&mut self, asker: Option<IpAddr>, payload: &WatchPayload) -> Sight {
        let of = |seen| Sight {
            seen,
            dropped: None,
        };
        let token = u32::from_be_bytes(payload.token);
        let key = TunnelKey::from_bits(u32::from_be_bytes(payload.key));
        let id = self.ports.by_key(key.index, key.generation);
        let bound = id.and_then(|id| self.ports.bound.get(&id));
        let Some(bound) = bound.filter(|it| it.attachment.is_some()) else {
            return of(SEEN_NO_PORT);
        };
        let is_it = |it: &Watch| (it.asker, it.token, it.key) == (asker, token, key);
        let place = match self.watches.here.iter().position(is_it) {
            Some(place) => place,
            // What was sent before is missed for ever: nothing can be said of it.
            None if payload.flags & WATCH_BEGIN == 0 => return of(SEEN_BUSY),
            None if self.watches.here.len() >= WATCHES_MAX => return of(SEEN_BUSY),
            None => {
                let frames = match self.datapath.watch(&bound.interface, token) {
                    Ok(frames) => frames,
                    Err(error) => {
                        tracing::warn!(%error, "a port can't be watched for another host");
                        return of(SEEN_BUSY);
                    }
                };
                let drops = self.datapath.drops(key.index).unwrap_or_default();
                self.watches.here.push(Watch {
                    asker,
                    token,
                    key,
                    ends_ms: 0,
                    is_visible: false,
                    frames,
                    drops,
                });
                self.watches.here.len() - 1
            }
        };
        if payload.flags & WATCH_VISIBLY != 0 {
            self.deliver_visibly(place);
        }
        let sight = self.look_at(place);
        if payload.flags & WATCH_END != 0 {
            self.end_watch(place);
        }
        sight
    }

    fn look_at(&mut self, place: usize) -> Sight {
        let now = self.now_ms();
        let Some(watch) = self.watches.here.get_mut(place) else {
            return Sight::default();
        };
        watch.ends_ms = now + WATCH_MS;
        let sighting = match watch.frames.look() {
            Ok(sighting) => sighting,
            Err(error) => {
                tracing::warn!(%error, "a watched port can't be looked at");
                return Sight {
                    seen: SEEN_BUSY,
                    dropped: None,
                };
            }
        };
        let index = watch.key.index;
        let record = self.datapath.read_port(index).unwrap_or_default();
        let is_visible = record.delivery == Delivery::Plain as u8 && record.flags & PORT_XDP == 0;
        let seen = [
            (sighting.went_out, SEEN_DELIVERED),
            (sighting.was_answered, SEEN_ANSWERED),
            (is_visible, SEEN_VISIBLY),
            (!sighting.is_up, SEEN_DOWN),
        ];
        let seen = seen.into_iter().filter(|(is_so, _)| *is_so);
        let drops = self.datapath.drops(index).unwrap_or_default();
        let before = |reason| watch.drops.iter().find(|(it, _)| *it == reason);
        let mut grown = drops
            .into_iter()
            .filter(|(reason, count)| *count > before(*reason).map_or(0, |(_, packets)| *packets));
        Sight {
            seen: seen.fold(0, |flags, (_, flag)| flags | flag),
            dropped: grown.next().map(|(reason, _)| reason),
        }
    }

    /// Past XDP and by the host's end of a veth: frames that go to the far end at once are seen by nobody here.
    fn deliver_visibly(&mut self, place: usize) {
        let Some(watch) = self.watches.here.get_mut(place) else {
            return;
        };
        watch.is_visible = true;
        let index = watch.key.index;
        if let Ok(record) = self.datapath.read_port(index) {
            let (delivery, flags) = (Delivery::Plain as u8, 0);
            let wanted = PortRecord {
                delivery,
                flags,
                ..record
            };
            if wanted != record {
                self.write_record(index, &wanted);
            }
        }
    }

    /// Ends a watch; delivery is as it was.
    fn end_watch(&mut self, place: usize) {
        let watch = self.watches.here.swap_remove(place);
        let index = watch.key.index;
        if !watch.is_visible || self.watches.is_visible(index) {
            return;
        }
        let id = self.ports.by_key(index, watch.key.generation);
        let bound = id.and_then(|id| self.ports.bound.get(&id));
        let Some((attachment, interface)) =
            bound.and_then(|it| Some((it.attachment?, &it.interface)))
        else {
            return;
        };
        let flags = xdp_flags(&self.network, interface);
        if let Ok(record) = self.datapath.read_port(index) {
            let delivery = attachment.delivery as u8;
            self.write_record(
                index,
                &PortRecord {
                    delivery,
                    flags,
                    ..record
                },
            );
        }
    }

    /// Ends those that nobody asks about any more. Called about once a second.
    pub(super) fn end_watches(&mut self) {
        let now = self.now_ms();
        let mut place = 0;
        while let Some(watch) = self.watches.here.get(place) {
            if watch.ends_ms < now {
                self.end_watch(place);
            } else {
                place += 1;
            }
        }
    }
}
