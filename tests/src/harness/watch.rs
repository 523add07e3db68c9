//! Watches of interfaces: a thread with a packet socket that shows every frame to the interface's
//! [`Judge`] and writes a pcap, which is kept if the scenario fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::judge::Judge;
use super::namespace::Namespace;
use super::pcap::PcapWriter;
use super::socket::{PacketSocket, SNAP_LEN};

/// How long the thread waits for a frame before it looks whether it should stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);

/// A running watch; it ends when it is stopped or dropped, or its interface goes away.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch; frames from now on are seen.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        judge: Arc<Judge>,
        pcap: &Path,
    ) -> Result<Watch> {
        let socket = PacketSocket::open(namespace, interface)?;
        socket.set_timeout(LOOK_INTERVAL)?;
        let pcap = PcapWriter::create(pcap)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = stop.clone();
            move || look(&socket, &judge, pcap, &stop)
        });
        Ok(Watch {
            stop,
            thread: Some(thread),
        })
    }

    /// Tells the thread to end as soon as no more frame waits. Returns at once.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn look(socket: &PacketSocket, judge: &Judge, mut pcap: PcapWriter, stop: &AtomicBool) {
    let mut buffer = [0; SNAP_LEN];
    loop {
        match socket.receive(&mut buffer) {
            Ok(Some(frame)) => {
                judge.see(frame.direction, frame.bytes);
                // A full disk must not change a scenario's result.
                pcap.write(frame.bytes, frame.wire_len).ok();
            }
            Ok(None) if stop.load(Ordering::Relaxed) => return,
            Ok(None) => {}
            // ENETDOWN: the interface is gone or down. A new one gets a new watch.
            Err(_) => return,
        }
    }
}
