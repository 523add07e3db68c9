//! Connections: opened, closed by the client, closed by the server, one after the other in each thread.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::contestant::{Path, SERVER};
use super::timing::{Timing, Window};

/// How long a server's thread waits for a connection, or for its end, before it looks whether it should stop.
const LOOK_INTERVAL_MS: i64 = 500;
/// A lost SYN is sent again after 1 s.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Connects from so many threads; whole connections in a second.
pub fn measure(path: &Path, threads: usize, timing: Timing) -> Result<f64> {
    let listener = path
        .server()
        .enter(|| Ok(TcpListener::bind((SERVER, 0))?))?;
    setsockopt(
        &listener,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(LOOK_INTERVAL_MS),
    )?;
    let to = listener.local_addr()?;
    let stop = AtomicBool::new(false);
    let window = timing.begin();
    let connected = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| serve(&listener, &stop));
        }
        // Threads are born into the namespace of the one that makes them.
        let connected = path
            .client()
            .enter(|| connect_from_all(threads, to, window));
        stop.store(true, Ordering::Relaxed);
        connected
    })?;
    ensure!(connected > 0, "no connection was closed in time");
    Ok(connected as f64 / window.seconds())
}

fn connect_from_all(threads: usize, to: SocketAddr, window: Window) -> Result<u64> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|_| scope.spawn(move || connect(to, window)))
            .collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined
            .map(|result| result.map_err(|_| anyhow!("a client panicked"))?)
            .sum()
    })
}

/// Takes connections, one at a time, and closes each after its client did.
fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Nothing came, or a connection failed: its client counts it as it should.
        if let Ok((mut connection, _)) = listener.accept() {
            read_to_end(&mut connection).ok();
        }
    }
}

fn connect(to: SocketAddr, window: Window) -> Result<u64> {
    let mut count = 0;
    loop {
        let begin = Instant::now();
        if begin >= window.until {
            return Ok(count);
        }
        let mut connection = TcpStream::connect(to).context("cannot connect")?;
        connection.set_read_timeout(Some(CLOSE_LIMIT))?;
        connection.shutdown(Shutdown::Write)?;
        read_to_end(&mut connection).context("the server didn't close")?;
        count += u64::from(window.holds(begin, Instant::now()));
    }
}

fn read_to_end(connection: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    loop {
        match connection.read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
