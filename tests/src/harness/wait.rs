//! Waiting, always bounded, and always ended by Ctrl-C where the demo asked for that.
//!
//! State: one flag, set by the signal handler that [`stop_on_interrupt`] installs. On a slow machine, such as an
//! emulated one, `WEFT_TEST_TIMEOUT_FACTOR` makes every limit that many times longer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
const POLL: Duration = Duration::from_millis(10);

/// Calls `look` until it finds something, every 10 ms. `what` completes "waited 3 s for ...".
///
/// An error of `look` ends the waiting.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = scaled(limit);
    let deadline = Instant::now() + limit;
    loop {
        check_interrupt()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", limit.as_secs_f32());
        }
        thread::sleep(POLL);
    }
}

/// As [`until`], for what takes a while to look at: an error of `look` is only shown when time is up.
pub fn until_ok<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = scaled(limit);
    let deadline = Instant::now() + limit;
    loop {
        check_interrupt()?;
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("waited {} s for {what}", limit.as_secs_f32()));
            }
            Err(_) => thread::sleep(10 * POLL),
        }
    }
}

/// A limit as long as this machine needs it: times `WEFT_TEST_TIMEOUT_FACTOR`, a whole number, 1 when unset.
pub fn scaled(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| {
        let text = std::env::var("WEFT_TEST_TIMEOUT_FACTOR").unwrap_or_default();
        text.parse().unwrap_or(1).max(1)
    });
    limit * *factor
}

/// From now on Ctrl-C and SIGTERM make every wait and every command fail, so that the caller unwinds and
/// cleans up.
pub fn stop_on_interrupt() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::SeqCst);
    }
    let action = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Forgets an interrupt: what cleans up after it must not be stopped by it.
pub fn forget_interrupt() {
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// An error once an interrupt came, for what waits in another way than by this module.
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}
