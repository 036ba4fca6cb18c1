//! Reads the files of the checks for a capture, and reduces them to the lines that concern EGM.

use std::path::Path;

use super::config::{apparmor, kubelet, qemu_conf, runtime};
use super::consumer::{self, Consumer};
use super::facts::{Facts, KERNEL};
use super::user::User;
use super::{Installed, access};
use crate::host::Accounts;
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::udev_rules;

/// The file with the architecture, since Linux 6.1.
pub(crate) const ARCH: &str = "/proc/sys/kernel/arch";

/// Reads everything but processes, and looks up the accounts. Returns the kernel's architecture.
pub(crate) fn read(root: &Sysroot, report: &Report, accounts: &Accounts<'_>) -> Option<String> {
    let installed = Installed::default();
    Consumer::detect(root, accounts, &installed);
    let consumer = Consumer::Libvirt;
    let facts = Facts::read(root, report, accounts, consumer, installed, false, &[]);
    _ = User::find(&facts);
    _ = access::rules(&facts);
    _ = accounts.gid(access::KVM);
    facts.kernel.arch
}

/// Whether the existence of a path matters, whatever its contents.
pub(crate) fn is_mark(path: &Path) -> bool {
    consumer::marks().any(|mark| path == Path::new(mark))
}

/// The lines of a file that concern EGM, at their places; `None` for other files, and if there are
/// none.
pub(crate) fn redact(path: &Path, text: &str, report: &Report) -> Option<String> {
    let name = path.to_str()?;
    if path == Path::new(qemu_conf::PATH) {
        return Some(qemu_conf::redact(text));
    }
    if path == Path::new(kubelet::PATH) {
        return Some(kubelet::redact(text));
    }
    if path.starts_with(KERNEL) {
        return Some(text.to_owned());
    }
    let regions = report.regions();
    if let Ok(below) = path.strip_prefix(apparmor::DIRECTORY) {
        let devices: Vec<_> = regions.iter().filter_map(|it| it.device.path.to_str()).collect();
        return apparmor::redact(below.to_str()?, text, &devices);
    }
    runtime::redact(name, text).or_else(|| {
        let names = regions.iter().map(|region| &region.name);
        udev_rules::redact(path, text, names)
    })
}
