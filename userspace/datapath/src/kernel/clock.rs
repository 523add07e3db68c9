//! The clock that kernel programs read with `bpf_ktime_get_ns`.

/// `CLOCK_MONOTONIC` in nanoseconds. The standard library's `Instant` is the same clock, but keeps its value to itself.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the whole timespec that it is given; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
