//! Small packets one way, as many as the sender can; counted where they arrive.
//!
//! The sender's CPU carries a packet all the way to the receiver's queue, and a receiver that reads has the other.
//! Threads are on no CPU by force: beside other work on that one they would measure it.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::contestant::{CLIENT, Path, SERVER};
use super::timing::Timing;
use crate::harness::network::WORKLOAD_INTERFACE;

/// Bytes of UDP payload that sockets send.
const PAYLOAD_LEN: usize = 64;
/// Bytes of a raw frame's UDP payload: 64 bytes with its headers and the checksum of Ethernet.
const RAW_PAYLOAD_LEN: usize = 18;
/// Where packets go.
const PORT: u16 = 9;
/// The first flow's source port.
const FIRST_SOURCE_PORT: u16 = 10_000;
/// Frames of one system call.
const BATCH: usize = 64;
/// Packets that a receiver which isn't running at the moment has room for.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// How long a receiver waits before it looks whether it should stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// UDP from a socket to a socket: packets that the receiving program read in a second.
pub fn between_sockets(path: &Path, timing: Timing) -> Result<f64> {
    let receiver = receiver(path)?;
    setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    receiver.set_read_timeout(Some(LOOK_INTERVAL))?;
    let sender = path.client().enter(|| {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.connect((SERVER, PORT))?;
        Ok(socket)
    })?;
    let stop = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, &received, &stop));
        let sending = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sender.send(&[0; PAYLOAD_LEN])?;
            }
            Ok(())
        });
        let rate = timing
            .begin()
            .rate_of(|| Ok(received.load(Ordering::Relaxed)));
        stop.store(true, Ordering::Relaxed);
        finish(sending)?;
        finish(receiving)?;
        some(rate?)
    })
}

/// Whole frames out of the client's interface: packets that the server's interface counted in a second.
pub fn of_raw_frames(path: &Path, flows: u16, timing: Timing) -> Result<f64> {
    // Somebody must listen, or the server would answer each packet. There is room for one, and nobody reads: the
    // rest is dropped at the least cost.
    let receiver = receiver(path)?;
    setsockopt(&receiver, sockopt::RcvBuf, &0)?;
    let mut frames = Vec::new();
    for flow in 0..flows {
        let from = (CLIENT, FIRST_SOURCE_PORT + flow);
        let payload = [0; RAW_PAYLOAD_LEN];
        frames.push(path.frames().udp(from, (SERVER, PORT), &payload)?);
    }
    let index = path.client().interface_index(WORKLOAD_INTERFACE)?;
    let socket = path.client().enter(|| Ok(sending_socket(index)?))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_frames(&socket, &frames, &stop));
        // Reads its namespace's counters by entering it once.
        let rate = path
            .server()
            .enter(|| timing.begin().rate_of(received_packets));
        stop.store(true, Ordering::Relaxed);
        finish(sending)?;
        some(rate?)
    })
}

fn receiver(path: &Path) -> Result<UdpSocket> {
    path.server()
        .enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))
}

fn receive(socket: &UdpSocket, received: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2 * PAYLOAD_LEN];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                received.fetch_add(1, Ordering::Relaxed);
            }
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Packets that the interface of the calling thread's namespace received so far (proc_pid_net(5)).
fn received_packets() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    received_packets_in(&text).with_context(|| format!("no {WORKLOAD_INTERFACE} in:\n{text}"))
}

fn received_packets_in(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, counters) = lines.find(|(name, _)| name.trim() == WORKLOAD_INTERFACE)?;
    // Bytes, then packets.
    counters.split_whitespace().nth(1)?.parse().ok()
}

/// A packet socket that receives nothing: one that does would cost a copy of each frame.
fn sending_socket(interface_index: u32) -> io::Result<OwnedFd> {
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes is a valid sockaddr_ll; its protocol 0 is what receives nothing.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface_index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_ll of that length.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Sends the frames in turn until it is told to stop.
fn send_frames(socket: &OwnedFd, frames: &[Vec<u8>], stop: &AtomicBool) -> Result<()> {
    let mut vectors: Vec<libc::iovec> = frames
        .iter()
        .cycle()
        .take(frames.len().max(BATCH))
        .map(|frame| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: all zeroes is a valid mmsghdr, one without address, control data and flags.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    loop {
        for batch in messages.chunks_mut(BATCH) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let length = batch.len() as libc::c_uint;
            // SAFETY: each message points to a live vector, each of which points to a live frame.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), length, 0) };
            if sent < 0 {
                let error = io::Error::last_os_error();
                // What a full queue refuses is lost as elsewhere on the way: it doesn't arrive.
                ensure!(
                    error.raw_os_error() == Some(libc::ENOBUFS),
                    "cannot send frames: {error}"
                );
            }
        }
    }
}

fn finish(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

fn some(rate: f64) -> Result<f64> {
    ensure!(rate > 0.0, "nothing arrived");
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_packets_are_read() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes    packets errs\n    lo:  12  1 0\n  net0: 9900  150 0 0\n";
        assert_eq!(received_packets_in(text), Some(150));
        assert_eq!(received_packets_in("lo: 12 1"), None);
    }
}
