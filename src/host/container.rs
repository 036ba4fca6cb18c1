//! Whether the host is seen from inside a container.

use crate::sysroot::Sysroot;

/// The inode of the first PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST: &str = "pid:[4026531836]";

/// Files that container runtimes create: podman's, and any that tells systemd about itself.
pub(crate) const MARKS: [&str; 2] = ["/run/.containerenv", "/run/systemd/container"];

/// Whether this process has a PID namespace that does not show all processes of the running host.
pub(crate) fn has_pid_namespace(root: &Sysroot) -> bool {
    root.may_ask_system()
        && root.read_link("/proc/self/ns/pid").map_or(true, |own| own.as_os_str() != FIRST)
}

/// Whether the root is a container's.
pub(super) fn is_container(root: &Sysroot) -> bool {
    has_pid_namespace(root) || MARKS.iter().any(|mark| root.stat(mark).is_ok())
}
