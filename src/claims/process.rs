//! Properties of a process: its command, its user, and the virtual machine it runs.

use std::collections::BTreeMap;

use crate::sysroot::{ATTRIBUTE_LIMIT, Sysroot};

/// The flag of the kernel's own threads (`PF_KTHREAD`, `include/linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The name of a process's program: the last component of its first argument, or else the short
/// name in the kernel. A process that sets its title may put spaces in it.
pub(super) fn command(root: &Sysroot, pid: u32, arguments: &[String]) -> Option<String> {
    let first = arguments.first().map(|first| first.rsplit('/').next().unwrap_or(first));
    if let Some(name) = first.filter(|name| !name.is_empty() && !name.contains(char::is_whitespace))
    {
        return Some(name.to_owned());
    }
    let comm = read(root, pid, "comm").map(|comm| comm.trim_end_matches('\n').to_owned());
    comm.or_else(|| first?.split_whitespace().next().map(str::to_owned))
}

/// The arguments of a process; empty if they cannot be read.
pub(super) fn arguments(root: &Sysroot, pid: u32) -> Vec<String> {
    // QEMU's arguments are long, but always less than a megabyte.
    let bytes = root.read(format!("/proc/{pid}/cmdline"), 1 << 20).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// The users of processes, each looked up once.
pub(super) struct Users<'a> {
    root: &'a Sysroot,
    known: BTreeMap<u32, Option<u32>>,
}

impl<'a> Users<'a> {
    pub(super) fn of(root: &'a Sysroot) -> Self {
        Self { root, known: BTreeMap::new() }
    }

    /// The effective user ID of a process.
    pub(super) fn user(&mut self, pid: u32) -> Option<u32> {
        *self.known.entry(pid).or_insert_with(|| {
            let status = read(self.root, pid, "status")?;
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            ids.split_ascii_whitespace().nth(1)?.parse().ok()
        })
    }
}

/// The machine of a process in systemd-machined, `(ID, NAME)`.
pub(super) fn machine(root: &Sysroot, pid: u32) -> Option<(String, String)> {
    read(root, pid, "cgroup")?.lines().find_map(machine_scope)
}

/// `-name guest=vm1,debug-threads=on` or `-name vm1`; a comma in the name is doubled.
pub(crate) fn name_argument(arguments: &[String]) -> Option<String> {
    let at = arguments.iter().position(|argument| is_name_option(argument))?;
    let value = arguments.get(at + 1)?.replace(",,", "\0");
    let (first, rest) = value.split_once(',').unwrap_or((&value, ""));
    let guest =
        std::iter::once(first).chain(rest.split(',')).find_map(|o| o.strip_prefix("guest="));
    let name = guest.or_else(|| (!first.contains('=')).then_some(first))?;
    (!name.is_empty()).then(|| name.replace('\0', ","))
}

/// The machine of a cgroup, `(1, vm1)` for
/// `0::/machine.slice/machine-qemu\x2d1\x2dvm1.scope/libvirt/emulator`. Its name may lack characters
/// of the domain's, such as `_` (`virDomainMachineNameAppendValid`).
pub(crate) fn machine_scope(line: &str) -> Option<(String, String)> {
    let scope = line.split('/').find_map(|part| part.strip_prefix("machine-qemu"))?;
    let name = unescape(scope.strip_suffix(".scope")?);
    // qemu-ID-NAME
    let (id, name) = name.strip_prefix('-')?.split_once('-')?;
    let is_id = !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit());
    (is_id && !name.is_empty()).then(|| (id.to_owned(), name.to_owned()))
}

/// Names of systemd units contain `\x2d` for a dash.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii() => {
                text.push(char::from(byte));
                text.push_str(part.get(2..).unwrap_or_default());
            }
            _ => {
                text.push_str("\\x");
                text.push_str(part);
            }
        }
    }
    text
}

/// Whether the next argument is the name of QEMU's guest.
pub(crate) fn is_name_option(argument: &str) -> bool {
    argument == "-name" || argument == "--name"
}

/// The remaining part of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing that could hold a region: it is a kernel thread, or has exited.
    Nothing,
    /// Threads other than the first, which has exited.
    Threads,
    /// All of it, as far as is known.
    Whole,
}

/// The remaining part of a process. All users can read this, unlike the mappings.
pub(super) fn rest(root: &Sysroot, pid: u32) -> Rest {
    stat(root, pid).map_or(Rest::Whole, |stat| stat.rest)
}

/// The parts of `/proc/PID/stat` that are used.
pub(super) struct Stat {
    pub(super) rest: Rest,
    /// When the process started, in clock ticks since the host was booted; together with the ID, it
    /// identifies a process.
    pub(super) start: Option<u64>,
}

pub(super) fn stat(root: &Sysroot, pid: u32) -> Option<Stat> {
    let stat = read(root, pid, "stat")?;
    // The preceding name may contain any character (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let is_kernels = number(6).is_some_and(|flags| flags & KERNEL_THREAD != 0);
    let rest = match fields.first() {
        Some(&"Z") if number(17).is_some_and(|threads| threads > 1) => Rest::Threads,
        Some(&("Z" | "X" | "x")) => Rest::Nothing,
        _ if is_kernels => Rest::Nothing,
        _ => Rest::Whole,
    };
    Some(Stat { rest, start: number(19) })
}

/// Whether an open file is only a path (`O_PATH`), which opens no device.
pub(super) fn is_only_a_path(root: &Sysroot, fdinfo: &str) -> bool {
    const O_PATH: u32 = 0o1000_0000;
    let Ok(info) = root.read_text(fdinfo) else { return false };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & O_PATH != 0)
}

/// A file of a process as text, with invalid UTF-8 replaced.
fn read(root: &Sysroot, pid: u32, name: &str) -> Option<String> {
    let bytes = root.read(format!("/proc/{pid}/{name}"), ATTRIBUTE_LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{machine_scope, name_argument};

    #[test]
    fn the_guests_name_is_found_among_qemus_arguments() {
        for (argument, name) in [
            ("guest=vm1,debug-threads=on", Some("vm1")),
            ("debug-threads=on,guest=vm1", Some("vm1")),
            ("vm1", Some("vm1")),
            ("vm1,process=qemu", Some("vm1")),
            ("guest=a,,b,debug-threads=on", Some("a,b")),
            ("process=qemu", None),
            ("guest=", None),
            ("", None),
        ] {
            let arguments = ["qemu", "-name", argument].map(str::to_owned);
            assert_eq!(name_argument(&arguments).as_deref(), name, "{argument}");
        }
        assert_eq!(name_argument(&["qemu".into(), "-name".into()]), None);
    }

    #[test]
    fn the_scope_of_a_machine_has_its_name() {
        let line = "0::/machine.slice/machine-qemu\\x2d12\\x2dmy\\x2dvm.scope/libvirt/emulator";
        assert_eq!(machine_scope(line), Some(("12".into(), "my-vm".into())));
        for line in [
            "0::/user.slice",
            "0::/machine.slice/machine-qemu.scope",
            "0::/machine-qemu\\x2d1.scope",
            "0::/machine-qemu\\x2dx\\x2dvm.scope",
            "0::/machine-qemu\\x.scope",
        ] {
            assert_eq!(machine_scope(line), None, "{line}");
        }
    }
}
