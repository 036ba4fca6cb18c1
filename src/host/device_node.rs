//! The device node of a region: looked at with stat, never opened.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::accounts::Accounts;
use crate::sysroot::{FileKind, Stat, Sysroot};
use crate::warning::Warning;

/// The character device of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The path of its node, `/dev/egm4`.
    pub path: PathBuf,
    /// Its number by sysfs.
    pub number: Option<DeviceNumber>,
    /// Mode and owner of the node: only where the node has the device's number.
    pub owner: Option<Owner>,
    /// The other names that udev gave to it, sorted; `None` where that is not known.
    pub links: Option<Vec<PathBuf>>,
}

/// Mode and owner of a device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The twelve permission bits.
    pub mode: u32,
    /// The user's name, or the number where it has none.
    pub user: String,
    /// The group's name, or the number where it has none.
    pub group: String,
}

/// Major and minor number of a device, `510:4` in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Of the driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

/// A text that is no device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a device number such as 510:4")]
pub struct BadDeviceNumber;

impl FromStr for DeviceNumber {
    type Err = BadDeviceNumber;

    fn from_str(text: &str) -> Result<Self, BadDeviceNumber> {
        let (major, minor) = text.split_once(':').ok_or(BadDeviceNumber)?;
        let number = |digits: &str| {
            if digits.starts_with('+') { None } else { digits.parse().ok() }.ok_or(BadDeviceNumber)
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The path of the node that devtmpfs makes for a `DEVNAME` in an uevent; `None` for a name that
/// would lie outside of `/dev`.
pub(super) fn path_of(devname: &str) -> Option<PathBuf> {
    let name = Path::new(devname);
    let within = name.components().all(|component| matches!(component, Component::Normal(_)));
    (within && !devname.is_empty()).then(|| Path::new("/dev").join(name))
}

/// Looks at the nodes of a root.
pub(super) struct Nodes<'a> {
    root: &'a Sysroot,
    /// `None` where the root has no `/dev`: then nothing is known of any node.
    accounts: Option<Accounts>,
}

impl<'a> Nodes<'a> {
    pub(super) fn of(root: &'a Sysroot) -> Self {
        let accounts = root.stat("/dev").is_ok().then(|| Accounts::read(root));
        Self { root, accounts }
    }

    /// Fills in the owner; a node that is missing or not the device's is a warning.
    pub(super) fn look_at(&self, device: &mut Device, warnings: &mut Vec<Warning>) {
        let Some(accounts) = &self.accounts else {
            return;
        };
        let path = || device.path.clone();
        let stat = match self.root.stat(&device.path) {
            Ok(stat) => stat,
            Err(error) if error.is_absent() => {
                warnings.push(Warning::DeviceNodeMissing { path: path() });
                return;
            }
            Err(error) => {
                warnings.push(Warning::unreadable(&error));
                return;
            }
        };
        // Without a number of the device's there is nothing to hold the node against, and a node
        // made by hand outlives its driver.
        let Some(expected) = device.number else {
            return;
        };
        let found = match stat.kind {
            FileKind::CharDevice(major, minor) if is(expected, major, minor) => {
                device.owner = Some(owner(stat, accounts));
                return;
            }
            FileKind::CharDevice(major, minor) => format!("character device {major}:{minor}"),
            FileKind::Regular => "a regular file".into(),
            FileKind::Directory => "a directory".into(),
            FileKind::Link | FileKind::Other => "another kind of file".into(),
        };
        warnings.push(Warning::DeviceNodeForeign { path: path(), found, expected });
    }
}

fn is(number: DeviceNumber, major: u64, minor: u64) -> bool {
    u64::from(number.major) == major && u64::from(number.minor) == minor
}

fn owner(stat: Stat, accounts: &Accounts) -> Owner {
    Owner { mode: stat.mode, user: accounts.user(stat.uid), group: accounts.group(stat.gid) }
}

#[cfg(test)]
mod tests {
    use super::{DeviceNumber, path_of};
    use std::path::Path;

    #[test]
    fn a_device_name_never_leads_out_of_dev() {
        assert_eq!(path_of("egm4").as_deref(), Some(Path::new("/dev/egm4")));
        assert_eq!(path_of("egm/4").as_deref(), Some(Path::new("/dev/egm/4")));
        for name in ["", "../etc/shadow", "/etc/shadow", "a/../../etc"] {
            assert_eq!(path_of(name), None, "{name}");
        }
    }

    #[test]
    fn device_numbers_are_two_decimals() {
        assert_eq!("510:4".parse(), Ok(DeviceNumber { major: 510, minor: 4 }));
        for text in ["", "510", "510:", ":4", "510:4:1", "0x1:4", "+1:4", "510: 4", "4294967296:0"]
        {
            assert!(text.parse::<DeviceNumber>().is_err(), "{text}");
        }
    }
}
