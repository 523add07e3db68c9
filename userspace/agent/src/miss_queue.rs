//! Misses between the kernel's buffers and the engine: a queue for each port, served in turn, so that a port that
//! sends up more than can be decided on delays and loses its own packets and nobody else's.
//!
//! Owned by the packet thread. Bounded per port and in all; what doesn't fit is given back, to be counted.

use std::collections::{BTreeMap, VecDeque};
use weft_common::limits::{
    MISS_BYTES_QUEUED_MAX, MISS_BYTES_QUEUED_PER_PORT_MAX, MISSES_QUEUED_PER_PORT_MAX,
};
use weft_datapath::Miss;

/// See the module's text.
#[derive(Default)]
pub struct MissQueue {
    ports: BTreeMap<u16, Queue>,
    /// Ports that have misses, the next one to be served first.
    turns: VecDeque<u16>,
    bytes: usize,
}

#[derive(Default)]
struct Queue {
    misses: VecDeque<Miss>,
    bytes: usize,
}

impl MissQueue {
    /// Puts a miss behind those of its port.
    ///
    /// # Errors
    /// The miss, when its port has as many as it may, or all ports together have.
    pub fn push(&mut self, miss: Miss) -> Result<(), Miss> {
        let bytes = miss.packet.frame.len();
        let queue = self.ports.entry(miss.port).or_default();
        let is_full = queue.misses.len() >= MISSES_QUEUED_PER_PORT_MAX
            || queue.bytes + bytes > MISS_BYTES_QUEUED_PER_PORT_MAX
            || self.bytes + bytes > MISS_BYTES_QUEUED_MAX;
        if is_full {
            return Err(miss);
        }
        if queue.misses.is_empty() {
            self.turns.push_back(miss.port);
        }
        queue.bytes += bytes;
        self.bytes += bytes;
        queue.misses.push_back(miss);
        Ok(())
    }

    /// Takes out at most `count` misses: one of each port in turn, those of a port in their order.
    pub fn take(&mut self, count: usize) -> Vec<Miss> {
        let mut taken = Vec::with_capacity(count.min(64));
        while taken.len() < count
            && let Some(port) = self.turns.pop_front()
        {
            let Some(queue) = self.ports.get_mut(&port) else {
                continue;
            };
            if let Some(miss) = queue.misses.pop_front() {
                queue.bytes -= miss.packet.frame.len();
                self.bytes -= miss.packet.frame.len();
                taken.push(miss);
            }
            if queue.misses.is_empty() {
                self.ports.remove(&port);
            } else {
                self.turns.push_back(port);
            }
        }
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_datapath::HeldPacket;

    fn miss(port: u16, number: u8, length: usize) -> Miss {
        let mut frame = vec![0; length];
        frame[0] = number;
        Miss {
            port,
            generation: 1,
            reason: 0,
            packet: HeldPacket::made(frame),
        }
    }

    fn names(misses: &[Miss]) -> Vec<(u16, u8)> {
        misses
            .iter()
            .map(|miss| (miss.port, miss.packet.frame[0]))
            .collect()
    }

    #[test]
    fn a_port_with_one_miss_does_not_wait_behind_one_with_many() {
        let mut queue = MissQueue::default();
        for number in 0..100 {
            queue.push(miss(1, number, 60)).unwrap();
        }
        queue.push(miss(2, 7, 60)).unwrap();
        assert_eq!(names(&queue.take(4)), [(1, 0), (2, 7), (1, 1), (1, 2)]);
        queue.push(miss(2, 8, 60)).unwrap();
        assert_eq!(names(&queue.take(2)), [(1, 3), (2, 8)]);
        assert_eq!(queue.take(1000).len(), 96);
        assert!(queue.is_empty() && queue.take(1).is_empty());
    }

    #[test]
    fn a_full_port_loses_its_own_misses_only() {
        let mut queue = MissQueue::default();
        for _ in 0..MISSES_QUEUED_PER_PORT_MAX {
            queue.push(miss(1, 0, 60)).unwrap();
        }
        assert_eq!(queue.push(miss(1, 9, 60)).unwrap_err().packet.frame[0], 9);
        queue.push(miss(2, 1, 60)).unwrap();
        queue.take(1);
        queue.push(miss(1, 9, 60)).unwrap();
    }

    #[test]
    fn bytes_are_bounded_per_port_and_in_all() {
        let mut queue = MissQueue::default();
        let length = 60_000;
        let mut pushed = 0;
        for port in 1..100 {
            while queue.push(miss(port, 0, length)).is_ok() {
                pushed += 1;
                assert!(pushed * length <= MISS_BYTES_QUEUED_MAX);
            }
            assert!(
                queue.ports.get(&port).map_or(0, |it| it.bytes) <= MISS_BYTES_QUEUED_PER_PORT_MAX
            );
        }
        assert_eq!(queue.bytes, pushed * length);
        assert!(queue.bytes + length > MISS_BYTES_QUEUED_MAX);
        assert_eq!(queue.take(usize::MAX).len(), pushed);
        assert_eq!(queue.bytes, 0);
    }
}
