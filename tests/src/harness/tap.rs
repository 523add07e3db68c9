//! A tap workload: an interface with a process behind it instead of a kernel, as a virtual machine has.
//!
//! A thread answers ARP and ICMP echo for one address; [`Tap::ping`] and [`Tap::send`] are what the process
//! behind it does by itself. The interface lives as long as the value. State: the neighbours and echo replies
//! it has heard, under one lock.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use etherparse::ArpOperation;
use ipnet::Ipv4Net;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::judge::{Direction, Judge};
use super::namespace::Namespace;
use super::packet::{Builder, Content, Echo, Frame, Mac, Transport};
use super::pcap::PcapWriter;
use super::socket::SNAP_LEN;
use super::traffic::{Ping, PingResult};
use super::wait;

/// Longest frame a tap gives us: its MTU with an Ethernet header and a VLAN tag, and room to spare.
const FRAME_LEN_MAX: usize = 16 * 1024;
/// Where an echo message's payload begins: behind Ethernet, IPv4 without options and ICMP.
const ECHO_PAYLOAD_AT: usize = 14 + 20 + 8;
const LOOK_INTERVAL_MS: u16 = 40;
const ARP_TRIES: u32 = 3;

nix::ioctl_write_int! {
    /// TUNSETIFF: makes the interface that an ifreq describes (linux/if_tun.h).
    tun_set_interface, b'T', 202
}

/// The station behind a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its MAC.
    pub mac: Mac,
    /// Its address and subnet.
    pub address: Ipv4Net,
    /// Where it sends what is not for its subnet.
    pub gateway: Option<Ipv4Addr>,
}

/// A tap interface and the process behind it.
pub struct Tap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    station: Station,
    file: File,
    judge: Arc<Judge>,
    stop: AtomicBool,
    heard: Mutex<Heard>,
    news: Condvar,
}

#[derive(Default)]
struct Heard {
    neighbours: HashMap<Ipv4Addr, Mac>,
    replies: HashSet<(Ipv4Addr, u16, u16)>,
    next_id: u16,
    pcap: Option<PcapWriter>,
}

impl Tap {
    /// Makes the interface in a host's namespace, up, with a station behind it.
    pub fn create(
        namespace: &Namespace,
        interface: &str,
        station: Station,
        judge: Arc<Judge>,
        pcap: &Path,
    ) -> Result<Tap> {
        let file = namespace.enter(|| open(interface))?;
        namespace.ip(&[format!("link set {interface} mtu 1500 up")])?;
        let heard = Heard {
            pcap: Some(PcapWriter::create(pcap)?),
            ..Heard::default()
        };
        let shared = Arc::new(Shared {
            station,
            file,
            judge,
            stop: AtomicBool::new(false),
            heard: Mutex::new(heard),
            news: Condvar::new(),
        });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.serve()
        });
        Ok(Tap {
            shared,
            thread: Some(thread),
        })
    }

    /// Sends a frame out of the workload.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.shared.send(frame)
    }

    /// Pings from the process behind the tap.
    pub fn ping(&self, to: Ipv4Addr, ping: Ping) -> Result<PingResult> {
        let mut received = 0;
        let next_hop = self.shared.resolve(to)?;
        let id = {
            let mut heard = self.shared.heard();
            heard.next_id = heard.next_id.wrapping_add(1);
            heard.next_id
        };
        for seq in 1..=u16::try_from(ping.count)? {
            let due = Instant::now() + ping.interval;
            let station = self.shared.station;
            let builder = Builder {
                source: station.mac,
                destination: next_hop,
            };
            let payload = vec![0x5a; ping.size as usize];
            let request = builder.echo(
                station.address.addr(),
                to,
                Echo::Request { id, seq },
                &payload,
            )?;
            self.send(&request)?;
            let answered = self.shared.wait_until(
                ping.interval.max(wait::scaled(Duration::from_secs(1))),
                |heard| heard.replies.contains(&(to, id, seq)).then_some(()),
            );
            received += u32::from(answered.is_some());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(PingResult {
            sent: ping.count,
            received,
            duplicates: 0,
            text: String::new(),
        })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut buffer = vec![0; FRAME_LEN_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(LOOK_INTERVAL_MS)).unwrap_or(0) == 0 {
                continue;
            }
            // EIO: the interface is down or was removed; it may come up again.
            let Ok(length) = (&self.file).read(&mut buffer) else {
                thread::sleep(Duration::from_millis(u64::from(LOOK_INTERVAL_MS)));
                continue;
            };
            self.hear(&buffer[..length]);
        }
    }

    fn hear(&self, bytes: &[u8]) {
        self.judge.see(Direction::Received, bytes);
        self.record(bytes);
        let Some(frame) = Frame::parse(bytes) else {
            return;
        };
        let own = self.station.address.addr();
        match frame.content {
            Content::Arp {
                operation,
                sender,
                target,
            } if target == own => {
                self.tell(|heard| {
                    heard.neighbours.insert(sender, frame.source);
                });
                if operation == ArpOperation::REQUEST.0 {
                    self.answer_arp(frame.source, sender).ok();
                }
            }
            Content::Ipv4 {
                source,
                destination,
                transport,
                ttl: _,
            } if destination == own => {
                let Transport::Icmp {
                    echo: Some(echo), ..
                } = transport
                else {
                    return;
                };
                match echo {
                    Echo::Request { id, seq } => {
                        let payload = bytes.get(ECHO_PAYLOAD_AT..).unwrap_or_default();
                        let reply = Echo::Reply { id, seq };
                        let builder = Builder {
                            source: self.station.mac,
                            destination: frame.source,
                        };
                        builder
                            .echo(own, source, reply, payload)
                            .and_then(|reply| self.send(&reply))
                            .ok();
                    }
                    Echo::Reply { id, seq } => self.tell(|heard| {
                        heard.replies.insert((source, id, seq));
                    }),
                }
            }
            Content::Arp { .. }
            | Content::Ipv4 { .. }
            | Content::Ipv6 { .. }
            | Content::Probe(_)
            | Content::Other => {}
        }
    }

    fn answer_arp(&self, asker_mac: Mac, asker: Ipv4Addr) -> Result<()> {
        let own = (self.station.mac, self.station.address.addr());
        let builder = Builder {
            source: self.station.mac,
            destination: asker_mac,
        };
        self.send(&builder.arp(ArpOperation::REPLY, own, (asker_mac, asker))?)
    }

    /// The MAC to which a packet for an address goes: the neighbour's or the gateway's.
    fn resolve(&self, to: Ipv4Addr) -> Result<Mac> {
        let station = self.station;
        let hop = if station.address.contains(&to) {
            Some(to)
        } else {
            station.gateway
        };
        let hop = hop.with_context(|| format!("no gateway on the way to {to}"))?;
        let builder = Builder {
            source: station.mac,
            destination: Mac::BROADCAST,
        };
        let own = (station.mac, station.address.addr());
        let ask = builder.arp(ArpOperation::REQUEST, own, (Mac([0; 6]), hop))?;
        for _ in 0..ARP_TRIES {
            let known = |heard: &mut Heard| heard.neighbours.get(&hop).copied();
            if let Some(mac) = self.wait_until(Duration::ZERO, known) {
                return Ok(mac);
            }
            self.send(&ask)?;
            if let Some(mac) = self.wait_until(wait::scaled(Duration::from_secs(1)), known) {
                return Ok(mac);
            }
        }
        bail!("nobody answers ARP for {hop}")
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        self.judge.see(Direction::Sent, frame);
        self.record(frame);
        (&self.file)
            .write_all(frame)
            .context("cannot send a frame into the tap")
    }

    fn record(&self, bytes: &[u8]) {
        if let Some(pcap) = &mut self.heard().pcap {
            // A full disk must not change a scenario's result.
            pcap.write(&bytes[..bytes.len().min(SNAP_LEN)], bytes.len())
                .ok();
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard());
        self.news.notify_all();
    }

    fn wait_until<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut(&mut Heard) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut heard = self.heard();
        loop {
            let found = look(&mut heard);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            heard = self
                .news
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the tap in the namespace of the calling thread. No virtio header: frames are whole and checksummed.
fn open(interface: &str) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    anyhow::ensure!(
        interface.len() < request.ifr_name.len(),
        "{interface} is too long"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF takes a pointer to an ifreq, which lives until the call returns.
    unsafe { tun_set_interface(file.as_raw_fd(), &raw const request as u64) }
        .with_context(|| format!("cannot make tap {interface}"))?;
    // The reader polls; a read that finds nothing must not block it.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(file)
}
