//! Waiting for a while.

use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

/// Waits so long, or less where that cannot be: whoever waits looks at the clock or counts. The
/// standard library panics there.
pub(crate) fn pause(time: Duration) {
    // Longer than anything here waits.
    let mut left = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::pause;
    use std::time::{Duration, Instant};

    #[test]
    fn it_takes_as_long_as_is_asked_for() {
        let start = Instant::now();
        pause(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
