//! Signals that end a command while it waits.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::Error;

/// SIGINT, SIGTERM and SIGHUP, which are blocked and read from a file descriptor: they end the
/// command only where it reads them. Unblocked when this is dropped.
pub(super) struct EndSignals {
    fd: SignalFd,
    /// The signals that were blocked before.
    before: SigSet,
}

impl EndSignals {
    /// Blocks them in this thread, and in those that it starts from now on.
    pub(super) fn block() -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Doing { problem: "signals".into(), cause: errno.into() };
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&signals, flags).map_err(failed)?;
        Ok(Self { fd, before })
    }

    /// The number of a signal that has arrived.
    pub(super) fn read(&self) -> nix::Result<Option<u8>> {
        let signal = self.fd.read_signal()?;
        Ok(signal.and_then(|signal| u8::try_from(signal.ssi_signo).ok()))
    }

    /// Waits for a signal for this long.
    pub(super) fn wait(&self, limit: Duration) -> Result<Option<u8>, Error> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout(limit)).and_then(|_| self.read()) {
            Err(Errno::EINTR) => Ok(None),
            signal => {
                signal.map_err(|errno| Error::Doing { problem: "poll".into(), cause: errno.into() })
            }
        }
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for EndSignals {
    fn drop(&mut self) {
        // Fails only for an invalid argument.
        let _ = self.before.thread_set_mask();
    }
}

/// The time limit of a poll, rounded up: waking too early would mean polling repeatedly.
pub(super) fn timeout(limit: Duration) -> PollTimeout {
    PollTimeout::try_from(limit.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
}
