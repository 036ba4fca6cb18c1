//! Determines the user that QEMU runs as, and the command that gives it access to the devices.

use super::access::KVM;
use super::config::qemu_conf::{self, ConfValues, QemuConf};
use super::facts::Facts;
use super::{Consumer, confinement, kubernetes};
use crate::udev_rules::AccountName;
use crate::values::numbers::decimal;
use crate::values::text::{SHOWN, excerpt};

/// Default users for QEMU with the group in libvirt's build configuration: Debian and Ubuntu;
/// Fedora and RHEL, where the user is also in the group kvm.
const USERS: [(&str, &[&str]); 2] = [("libvirt-qemu", &["kvm"]), ("qemu", &["qemu", "kvm"])];

/// The user that QEMU runs as.
pub(super) struct User {
    /// Its name, or its number if it has none.
    pub(super) name: String,
    pub(super) uid: u32,
    /// Its primary group, if known.
    group: Option<u32>,
    /// All of its groups.
    pub(super) groups: Vec<u32>,
}

/// The reason why the user is unknown.
pub(super) enum NoUser {
    /// It does not exist.
    None(String),
    /// The configuration or the accounts cannot be read.
    Unknown(String),
}

impl User {
    /// The user in libvirt's configuration, otherwise the distribution's default. `KubeVirt` has its
    /// own; for QEMU alone, it is any member of the group kvm.
    pub(super) fn find(facts: &Facts<'_>) -> Result<Self, NoUser> {
        match facts.consumer {
            Consumer::Kubernetes => Ok(Self::of_group("uid 107 (virt-launcher)", kubernetes::QEMU)),
            Consumer::Qemu => match facts.accounts.gid(KVM) {
                Some(group) => {
                    Ok(Self { uid: u32::MAX, ..Self::of_group("a member of kvm", group) })
                }
                None => Err(NoUser::Unknown("the host has no group kvm".into())),
            },
            Consumer::Libvirt | Consumer::Kata => Self::of_libvirt(facts),
        }
    }

    /// A user whose number and only group are the same.
    fn of_group(name: &str, id: u32) -> Self {
        Self { name: name.into(), uid: id, group: Some(id), groups: vec![id] }
    }

    fn of_libvirt(facts: &Facts<'_>) -> Result<Self, NoUser> {
        let accounts = &facts.accounts;
        let conf = match &facts.conf {
            QemuConf::Read(settings) => settings,
            QemuConf::Unreadable(problem) => return Err(NoUser::Unknown(problem.clone())),
            QemuConf::Malformed(problem) => {
                return Err(NoUser::None(format!(
                    "{problem}; libvirt does not start with this file"
                )));
            }
        };
        let (users_known, groups_known) = accounts.are_known();
        for (is_known, file) in [(users_known, "passwd"), (groups_known, "group")] {
            if !is_known {
                return Err(NoUser::Unknown(format!("/etc/{file}: missing or unreadable")));
            }
        }
        let built = USERS.iter().find(|(user, _)| accounts.uid(user).is_some());
        let uid = match (configured(conf, "user", |name| accounts.uid(name))?, built) {
            (Some(uid), _) => uid,
            (None, Some((user, _))) => accounts.uid(user).unwrap_or_default(),
            (None, None) => {
                return Err(NoUser::None(
                    "no user libvirt-qemu or qemu, and none in qemu.conf; libvirt's QEMU driver is missing"
                        .into(),
                ));
            }
        };
        let group = match configured(conf, "group", |name| accounts.gid(name))? {
            Some(group) => Some(group),
            None => built.and_then(|(_, groups)| groups.iter().find_map(|it| accounts.gid(it))),
        };
        let group = group.or_else(|| accounts.primary_group(uid));
        let name = accounts.user(uid);
        let mut groups = accounts.groups_of(&name, group);
        groups.sort_unstable();
        groups.dedup();
        Ok(Self { name, uid, group, groups })
    }
}

/// A configured user or group, given by name or number (`virGetUserID`, `src/util/virutil.c`): a
/// leading plus marks a number.
fn configured(
    conf: &ConfValues,
    key: &str,
    find: impl Fn(&str) -> Option<u32>,
) -> Result<Option<u32>, NoUser> {
    let Some(name) = conf.text(key) else { return Ok(None) };
    let number = |text: &str| Some(text).filter(|text| !text.is_empty()).and_then(decimal);
    let id = match name.strip_prefix('+') {
        Some(digits) => number(digits),
        None => find(name).or_else(|| number(name)),
    };
    let problem = || {
        NoUser::None(format!("{}: {key} {} does not exist", qemu_conf::PATH, excerpt(name, SHOWN)))
    };
    id.map(Some).ok_or_else(problem)
}

/// The command that gives QEMU access by rules on this host.
pub(super) fn install_command(facts: &Facts<'_>) -> String {
    let mut command = "egm-probe udev install".to_owned();
    if let Ok(user) = User::find(facts) {
        let in_default = facts.accounts.gid(KVM).is_some_and(|it| user.groups.contains(&it));
        // If a name cannot be used in a rule, its number can.
        let plain = |name: String, id: u32| {
            name.parse::<AccountName>().map_or(id.to_string(), |name| name.to_string())
        };
        // A number without an account requires --force.
        let forced = |name: &str| {
            if name.chars().all(|c| c.is_ascii_digit()) { " --force" } else { "" }
        };
        let options = match user.group {
            _ if in_default => String::new(),
            Some(group) => {
                let name = plain(facts.accounts.group(group), group);
                format!(" --group {name}{}", forced(&name))
            }
            None => {
                let name = plain(user.name, user.uid);
                format!(" --group root --user {name}{}", forced(&name))
            }
        };
        command += &options;
    }
    if confinement::needs_label(facts) {
        command += " --selinux ";
        command += confinement::LABEL;
    }
    command
}
