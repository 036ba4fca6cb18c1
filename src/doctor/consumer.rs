//! The software that starts the virtual machines of a host.

use super::config::qemu_conf;
use super::{Installed, Qemu};
use crate::host::Accounts;
use crate::sysroot::Sysroot;
use crate::values::named;

named! {
    /// The software that starts the virtual machines of a host.
    pub enum Consumer {
        /// libvirt on the host.
        Libvirt = "libvirt",
        /// `KubeVirt`, whose pods contain libvirt and QEMU.
        Kubernetes = "kubernetes",
        /// Kata Containers.
        Kata = "kata",
        /// QEMU, started without libvirt.
        Qemu = "qemu",
    }
}

/// libvirt's users for QEMU: Debian and Ubuntu; Fedora and RHEL.
const LIBVIRTS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// Directories of Kata Containers: its packages' files, and its configuration.
const KATA: [&str; 3] =
    ["/opt/kata", "/etc/kata-containers", "/usr/share/defaults/kata-containers"];

/// kubelet's directory, and what Kubernetes mounts into containers.
const KUBERNETES: [&str; 2] = ["/var/lib/kubelet", "/run/secrets/kubernetes.io"];

/// Paths whose existence tells the consumer.
pub(super) fn marks() -> impl Iterator<Item = &'static str> {
    KATA.into_iter().chain(KUBERNETES)
}

impl Consumer {
    /// Whether kubelet runs on the host as well, or there are signs of it.
    pub(super) fn has_kubernetes(root: &Sysroot) -> bool {
        KUBERNETES.iter().any(|path| root.stat(path).is_ok())
    }

    /// The consumer found on a host: libvirt if its QEMU driver is installed or nothing else is.
    pub(super) fn detect(root: &Sysroot, accounts: &Accounts<'_>, installed: &Installed) -> Self {
        let has_any = |paths: &[&str]| paths.iter().any(|path| root.stat(path).is_ok());
        // A file that cannot be read is there.
        let has_conf = root.stat(qemu_conf::PATH).is_ok();
        if has_conf || LIBVIRTS.iter().any(|user| accounts.uid(user).is_some()) {
            Self::Libvirt
        } else if has_any(&KATA) {
            Self::Kata
        } else if has_any(&KUBERNETES) {
            Self::Kubernetes
        } else if matches!(installed.qemu, Some(Qemu::Answered { .. })) {
            Self::Qemu
        } else {
            Self::Libvirt
        }
    }
}
