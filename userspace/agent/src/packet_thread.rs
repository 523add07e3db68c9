//! The thread that reads misses and owns the engine. It waits for packets and messages, never for the store, the
//! API or a lock.

use crate::engine::{Engine, Message};
use crate::miss_queue::MissQueue;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use weft_datapath::kernel::Waker;
use weft_datapath::{Error, Kernel};

/// How long a wait for misses may last: the next tick isn't late by more.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_secs(1);
/// Flows of an earlier agent that are decided again between two looks at the misses: about a millisecond.
const ADOPTED_PER_ROUND_MAX: usize = 128;
/// Misses decided between two looks at the buffers: a lone miss of another port is among the next so many.
const MISSES_PER_ROUND_MAX: usize = 64;
/// Messages taken between two looks at the misses.
const MESSAGES_PER_ROUND_MAX: usize = 64;

/// A handle that any thread may use.
#[derive(Clone)]
pub struct PacketThread {
    messages: Sender<Message<Kernel>>,
    waker: Waker,
}

impl PacketThread {
    /// Starts the thread. It ends when all handles are gone, or on an error that it can't live with.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(mut engine: Engine<Kernel>) -> anyhow::Result<(PacketThread, JoinHandle<()>)> {
        let (messages, inbox) = mpsc::channel();
        let waker = engine.datapath_mut().waker();
        let thread = std::thread::Builder::new()
            .name("packets".to_owned())
            .spawn(move || run(&mut engine, &inbox))?;
        Ok((PacketThread { messages, waker }, thread))
    }

    /// Tells the packet thread; false when it has ended.
    pub fn send(&self, message: Message<Kernel>) -> bool {
        let is_sent = self.messages.send(message).is_ok();
        self.waker.wake();
        is_sent
    }

    /// Asks the packet thread; none when it has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine<Kernel>) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let ask = move |engine: &mut Engine<Kernel>| {
            // Whoever asked may have gone.
            let _ = answer.send(question(engine));
        };
        self.send(Message::Ask(Box::new(ask)));
        answered.await.ok()
    }
}

fn run(engine: &mut Engine<Kernel>, inbox: &Receiver<Message<Kernel>>) {
    let mut ticked = Instant::now();
    let mut timeout = POLL_TIMEOUT;
    let mut queue = MissQueue::default();
    loop {
        if let Err(error) = read_misses(engine, &mut queue, timeout) {
            tracing::error!(%error, "misses can't be read any more");
            return;
        }
        engine.handle_misses(queue.take(MISSES_PER_ROUND_MAX));
        timeout = Duration::ZERO;
        for _ in 0..MESSAGES_PER_ROUND_MAX {
            match inbox.try_recv() {
                Ok(message) => engine.handle(message),
                Err(mpsc::TryRecvError::Empty) => {
                    timeout = POLL_TIMEOUT;
                    break;
                }
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        // What came up until the flows were published goes right behind what they were made for.
        if !queue.is_empty() {
            timeout = Duration::ZERO;
        }
        if engine.adopt_flows(ADOPTED_PER_ROUND_MAX) {
            timeout = Duration::ZERO;
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            engine.tick();
            engine.probe_hosts();
        }
    }
}

/// One read of the buffers, which empties them: the kernel never waits for a decision.
fn read_misses(
    engine: &mut Engine<Kernel>,
    queue: &mut MissQueue,
    timeout: Duration,
) -> Result<(), Error> {
    let mut refused = Vec::new();
    let push = &mut |miss| {
        if let Err(miss) = queue.push(miss) {
            refused.push((miss.port, miss.generation));
        }
    };
    engine.datapath_mut().poll_misses(timeout, push)?;
    for (port, generation) in refused {
        engine.refuse_miss(port, generation);
    }
    Ok(())
}
