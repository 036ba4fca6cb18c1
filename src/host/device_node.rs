//! The device node of a region, which is never opened.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::accounts::Accounts;
use super::container::is_container;
use crate::sysroot::{FileKind, Stat, Sysroot};
use crate::values::DeviceNumber;
use crate::warning::Warning;

/// The character device of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The path of its node, `/dev/egm4`.
    pub path: PathBuf,
    /// Its number in sysfs.
    pub number: Option<DeviceNumber>,
    /// Mode and owner of the node, if the node has the device's number.
    pub owner: Option<Permissions>,
    /// The other names that udev gave to it, sorted; `None` if unknown.
    pub links: Option<Vec<PathBuf>>,
}

/// Mode and owner of a device node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permissions {
    /// The twelve permission bits.
    pub mode: u32,
    /// The user's name, or the number if it has none.
    pub user: String,
    /// The group's name, or the number if it has none.
    pub group: String,
}

/// `0660 root:kvm`
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o} {}:{}", self.mode, self.user, self.group)
    }
}

/// The path of the device node that devtmpfs creates for a `DEVNAME` in a uevent; `None` for a name
/// that leads out of `/dev`.
pub(crate) fn dev_path(devname: &str) -> Option<PathBuf> {
    let name = Path::new(devname);
    let within = name.components().all(|component| matches!(component, Component::Normal(_)));
    (within && !devname.is_empty()).then(|| Path::new("/dev").join(name))
}

/// Reads the nodes of a root.
pub(super) struct Nodes<'a> {
    root: &'a Sysroot,
    accounts: &'a Accounts<'a>,
}

impl<'a> Nodes<'a> {
    /// `None` if the root has no `/dev`; nodes are unknown then.
    pub(super) fn of(root: &'a Sysroot, accounts: &'a Accounts<'a>) -> Option<Self> {
        root.stat("/dev").is_ok().then_some(Self { root, accounts })
    }

    /// Whether a node is missing that the driver or udevd should have created.
    pub(super) fn lacks(&self, device: &Device) -> bool {
        let is_absent = self.root.stat(&device.path).is_err_and(|error| error.is_absent());
        is_absent && !is_container(self.root)
    }

    /// Sets the owner. A missing node, or one of another device, is a warning.
    pub(super) fn look_at(&self, device: &mut Device, warnings: &mut Vec<Warning>) {
        let path = || device.path.clone();
        let stat = match self.root.stat(&device.path) {
            Ok(stat) => stat,
            Err(error) if error.is_absent() => {
                let in_container = is_container(self.root);
                warnings.push(Warning::DeviceNodeMissing { path: path(), in_container });
                return;
            }
            Err(error) => {
                warnings.push(Warning::unreadable(&error));
                return;
            }
        };
        // Without the device's number the node cannot be identified: one created manually outlives
        // its driver.
        let Some(expected) = device.number else {
            return;
        };
        let found = match stat.kind {
            FileKind::CharDevice(number) if number == expected => {
                device.owner = Some(owner(stat, self.accounts));
                return;
            }
            FileKind::CharDevice(number) => format!("character device {number}"),
            FileKind::Regular => "a regular file".into(),
            FileKind::Directory => "a directory".into(),
            FileKind::Other => "another kind of file".into(),
        };
        warnings.push(Warning::DeviceNodeForeign { path: path(), found, expected });
    }
}

fn owner(stat: Stat, accounts: &Accounts<'_>) -> Permissions {
    Permissions { mode: stat.mode, user: accounts.user(stat.uid), group: accounts.group(stat.gid) }
}

#[cfg(test)]
mod tests {
    use super::dev_path;
    use std::path::Path;

    #[test]
    fn a_device_name_never_leads_out_of_dev() {
        assert_eq!(dev_path("egm4").as_deref(), Some(Path::new("/dev/egm4")));
        assert_eq!(dev_path("egm/4").as_deref(), Some(Path::new("/dev/egm/4")));
        for name in ["", "../etc/shadow", "/etc/shadow", "a/../../etc"] {
            assert_eq!(dev_path(name), None, "{name}");
        }
    }
}
