//! Whom QEMU runs as, and the one command that gives the devices to it.

use super::config::qemu_conf::{self, ConfValues, QemuConf};
use super::confinement;
use super::facts::Facts;
use crate::udev_rules::AccountName;
use crate::values::numbers::decimal;
use crate::values::text::{SHOWN, excerpt};

/// The users that distributions have QEMU run as, with the group that libvirt is built to give it:
/// Debian and Ubuntu; Fedora and RHEL, where kvm is a group that the user is in besides.
const USERS: [(&str, &[&str]); 2] = [("libvirt-qemu", &["kvm"]), ("qemu", &["qemu", "kvm"])];

/// Whom QEMU runs as.
pub(super) struct User {
    /// Its name, or its number where it has none.
    pub(super) name: String,
    pub(super) uid: u32,
    /// Its own group, where it has one that is known.
    group: Option<u32>,
    /// All groups that it is in.
    pub(super) groups: Vec<u32>,
}

/// Why it is not known whom QEMU runs as.
pub(super) enum NoUser {
    /// There is none, or not the one that is configured.
    None(String),
    /// What tells cannot be read.
    Unknown(String),
}

impl User {
    /// The user by libvirt's configuration, else the distribution's.
    pub(super) fn find(facts: &Facts<'_>) -> Result<Self, NoUser> {
        let accounts = &facts.accounts;
        let conf = match &facts.conf {
            QemuConf::Read(settings) => settings,
            QemuConf::Unreadable(problem) => return Err(NoUser::Unknown(problem.clone())),
            QemuConf::Malformed(problem) => {
                return Err(NoUser::None(format!("{problem}; libvirt does not start with it")));
            }
        };
        let (users_known, groups_known) = accounts.are_known();
        for (is_known, file) in [(users_known, "passwd"), (groups_known, "group")] {
            if !is_known {
                return Err(NoUser::Unknown(format!("/etc/{file}: not there, or not readable")));
            }
        }
        let built = USERS.iter().find(|(user, _)| accounts.uid(user).is_some());
        let uid = match (configured(conf, "user", |name| accounts.uid(name))?, built) {
            (Some(uid), _) => uid,
            (None, Some((user, _))) => accounts.uid(user).unwrap_or_default(),
            (None, None) => {
                return Err(NoUser::None(
                    "no user libvirt-qemu or qemu, and none in qemu.conf: libvirt has no QEMU here"
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

/// A user or group that is configured, by name or number (`virGetUserID`, `src/util/virutil.c`):
/// what begins with a plus is a number.
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
        NoUser::None(format!(
            "{} names the {key} {}, which is not there",
            qemu_conf::PATH,
            excerpt(name, SHOWN)
        ))
    };
    id.map(Some).ok_or_else(problem)
}

/// The one command for all that rules can give to QEMU on this host.
pub(super) fn install_command(facts: &Facts<'_>) -> String {
    let mut command = "egm-probe udev install".to_owned();
    if let Ok(user) = User::find(facts) {
        let in_default = facts.accounts.gid("kvm").is_some_and(|it| user.groups.contains(&it));
        // A name that no rule can have has a number that it can.
        let plain = |name: String, id: u32| {
            name.parse::<AccountName>().map_or(id.to_string(), |name| name.to_string())
        };
        // A number that nobody has is refused without a word more.
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
