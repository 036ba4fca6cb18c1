//! The process that a lease belongs to: the lease is void as soon as the process is gone.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::process::{self, Rest};
use crate::sysroot::Sysroot;

/// A process that keeps a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keeper {
    /// Its ID.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the host was booted: IDs are reused.
    start: u64,
    /// Where these two numbers are valid: see [`context`].
    context: String,
}

impl Keeper {
    /// This process, and a program that it executes in its place; `None` if `/proc` does not show it.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) fn this_process() -> Option<Self> {
        let host = Sysroot::host();
        let (pid, context) = (std::process::id(), context(&host)?);
        Some(Self { pid, start: process::stat(&host, pid)?.start?, context })
    }

    /// Whether it certainly runs.
    #[cfg(feature = "cli")]
    pub(crate) fn is_running(&self) -> bool {
        let is_here = context(&Sysroot::host()).is_some_and(|context| context == self.context);
        is_here && !self.is_gone()
    }

    /// Whether it has certainly exited. A process that cannot be identified from here, such as one
    /// of another PID namespace, may still run.
    pub(crate) fn is_gone(&self) -> bool {
        let host = Sysroot::host();
        let Ok(pid @ 1..) = i32::try_from(self.pid) else { return false };
        if context(&host).is_none_or(|context| context != self.context) {
            return false;
        }
        // Unlike /proc, which may be mounted with hidepid, this finds the processes of all users.
        kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
            || process::stat(&host, self.pid).is_some_and(|stat| {
                stat.rest == Rest::Nothing || stat.start.is_some_and(|start| start != self.start)
            })
    }
}

/// The boot of the running system and the namespaces of this process: another boot, another host or
/// another namespace has other processes with the same IDs and start times. `None` if `/proc` is
/// missing or that of another PID namespace.
fn context(host: &Sysroot) -> Option<String> {
    let link = |name: &str| {
        let target = host.read_link(format!("/proc/self{name}")).ok()?;
        target.into_os_string().into_string().ok()
    };
    if link("")? != std::process::id().to_string() {
        return None;
    }
    let boot = host.read_text("/proc/sys/kernel/random/boot_id").ok()?;
    // Kernels without time namespaces have only one.
    let time = link("/ns/time").unwrap_or_default();
    Some(format!("{} {} {time}", boot.trim_end(), link("/ns/pid")?))
}

#[cfg(test)]
mod tests {
    use super::Keeper;
    use std::process::{Command, Stdio};

    #[test]
    fn only_a_process_that_certainly_exited_is_gone() {
        let own = Keeper::this_process().unwrap();
        assert!(!own.is_gone());
        // The ID was reused.
        assert!(Keeper { start: own.start - 1, ..own.clone() }.is_gone());
        let elsewhere = Keeper { context: format!("{}0", own.context), ..own.clone() };
        assert!(!Keeper { start: 0, ..elsewhere.clone() }.is_gone());
        for pid in [0, u32::MAX] {
            assert!(!Keeper { pid, ..own.clone() }.is_gone(), "{pid}");
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let start = super::process::stat(&super::Sysroot::host(), child.id()).unwrap().start;
        let keeper = Keeper { pid: child.id(), start: start.unwrap(), ..own };
        assert!(!keeper.is_gone());
        drop(child.stdin.take());
        // It exits, and remains a zombie until it is waited for.
        while !keeper.is_gone() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(keeper.is_gone());
        assert!(!Keeper { pid: child.id(), ..elsewhere }.is_gone());
    }
}
