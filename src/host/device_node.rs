//! The device node of a region, which is never opened.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::accounts::Accounts;
use super::container::is_container;
use crate::sysroot::{Acl, FileKind, Stat, Sysroot, Tag};
use crate::values::DeviceNumber;
use crate::values::numbers::decimal;
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
    /// The access ACL, if there is one; the mode shows its mask as that of the group.
    pub acl: Option<Acl>,
}

/// The entry that gives a user access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// For the owner, the group, or all others.
    Mode,
    /// For a certain user or group, in the ACL.
    Acl,
}

/// `0660 root:kvm`
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.mode(), self.user, self.group)
    }
}

impl Permissions {
    /// `0660`, or `0660+` with an ACL, as in ls(1).
    pub(crate) fn mode(&self) -> String {
        let plus = if self.acl.is_some() { "+" } else { "" };
        format!("{:04o}{plus}", self.mode)
    }

    /// Whether a user with these groups may read and write, as decided by the kernel
    /// (`acl_permission_check`, Linux `fs/namei.c`; `posix_acl_permission`, `fs/posix_acl.c`).
    pub(crate) fn access(
        &self,
        uid: u32,
        groups: &[u32],
        accounts: &Accounts<'_>,
    ) -> Option<Access> {
        const BOTH: u32 = 0o6;
        let by_mode = |shift: u32| (self.mode >> shift & BOTH == BOTH).then_some(Access::Mode);
        let is_user = |name: &str| accounts.uid(name).or_else(|| decimal(name)) == Some(uid);
        let is_group = |name: &str| {
            let gid = accounts.gid(name).or_else(|| decimal(name));
            gid.is_some_and(|gid| groups.contains(&gid))
        };
        // Only the first class that applies counts, even if it allows less (path_resolution(7)).
        if is_user(&self.user) {
            return by_mode(6);
        }
        // The kernel does not read the ACL if the mask is empty.
        let Some(acl) = self.acl.as_ref().filter(|_| self.mode & 0o070 != 0) else {
            return by_mode(if is_group(&self.group) { 3 } else { 0 });
        };
        let masked = |permission: u32| permission & self.mode >> 3 & BOTH == BOTH;
        let mut is_member = false;
        for (tag, permission) in acl.entries() {
            match tag {
                Tag::User(name) if is_user(name) => {
                    return masked(*permission).then_some(Access::Acl);
                }
                Tag::OwningGroup if is_group(&self.group) => {
                    is_member = true;
                    if permission & BOTH == BOTH {
                        return masked(*permission).then_some(Access::Mode);
                    }
                }
                Tag::Group(name) if is_group(name) => {
                    is_member = true;
                    if permission & BOTH == BOTH {
                        return masked(*permission).then_some(Access::Acl);
                    }
                }
                _ => {}
            }
        }
        if is_member { None } else { by_mode(0) }
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
                let acl = self.root.acl(&device.path).unwrap_or_else(|error| {
                    warnings.extend(Warning::unless_absent(&error));
                    None
                });
                device.owner = Some(owner(stat, acl, self.accounts));
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

fn owner(stat: Stat, acl: Option<Acl>, accounts: &Accounts<'_>) -> Permissions {
    let (user, group) = (accounts.user(stat.uid), accounts.group(stat.gid));
    Permissions { mode: stat.mode, user, group, acl }
}

#[cfg(test)]
mod tests {
    use super::{Access, Accounts, Path, Permissions, dev_path};
    use crate::sysroot::{Acl, Sysroot};

    /// The access of user 7 with group 8 to a node with this mode, owner and ACL.
    fn access(mode: u32, owner: (&str, &str), acl: &str) -> Option<Access> {
        let folder = tempfile::tempdir().unwrap();
        let root = Sysroot::directory(folder.path()).unwrap();
        let acl = Acl::of_text(acl, mode).unwrap();
        let (user, group) = (owner.0.to_owned(), owner.1.to_owned());
        Permissions { mode, user, group, acl }.access(7, &[8], &Accounts::of(&root))
    }

    #[test]
    fn access_is_decided_as_in_the_kernel() {
        let (by_mode, by_acl) = (Some(Access::Mode), Some(Access::Acl));
        for (mode, owner, acl, expected) in [
            (0o600, ("7", "0"), "", by_mode),
            (0o066, ("7", "8"), "", None),
            (0o060, ("0", "8"), "", by_mode),
            (0o006, ("0", "8"), "", None),
            (0o006, ("0", "0"), "", by_mode),
            (0o660, ("0", "0"), "user:7:rw-", by_acl),
            (0o660, ("0", "0"), "user:6:rw-", None),
            (0o640, ("0", "0"), "user:7:rw-", None),
            (0o666, ("0", "0"), "user:7:r--", None),
            (0o660, ("7", "0"), "user:7:---", by_mode),
            (0o660, ("0", "0"), "group:8:rw-", by_acl),
            (0o660, ("0", "8"), "group::---,group:8:rw-", by_acl),
            (0o660, ("0", "8"), "group::rw-,group:8:---", by_mode),
            (0o666, ("0", "8"), "group::---,group:9:rw-", None),
            (0o666, ("0", "0"), "group:9:---", by_mode),
            // Without a mask the kernel does not read the ACL.
            (0o606, ("0", "0"), "user:7:rw-,mask::---", by_mode),
        ] {
            assert_eq!(access(mode, owner, acl), expected, "{mode:o} {owner:?} {acl}");
        }
    }

    #[test]
    fn a_device_name_never_leads_out_of_dev() {
        assert_eq!(dev_path("egm4").as_deref(), Some(Path::new("/dev/egm4")));
        assert_eq!(dev_path("egm/4").as_deref(), Some(Path::new("/dev/egm/4")));
        for name in ["", "../etc/shadow", "/etc/shadow", "a/../../etc"] {
            assert_eq!(dev_path(name), None, "{name}");
        }
    }
}
