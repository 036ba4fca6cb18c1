//! Names of users and groups.

use std::collections::BTreeMap;

use nix::unistd::{Gid, Group, Uid, User};

use crate::sysroot::{LIST_LIMIT, Sysroot};

/// The names of one root's accounts: those in its `etc/passwd` and `etc/group`, and on the
/// running host those of the name service, too.
#[derive(Debug)]
pub(super) struct Accounts {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
    ask_name_service: bool,
}

impl Accounts {
    pub(super) fn read(root: &Sysroot) -> Self {
        Self {
            users: names(root, "/etc/passwd"),
            groups: names(root, "/etc/group"),
            ask_name_service: root.is_host(),
        }
    }

    /// The user's name; the number where it has none.
    pub(super) fn user(&self, uid: u32) -> String {
        let known = self.users.get(&uid).cloned();
        let asked = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        self.name(uid, known, asked)
    }

    /// The group's name; the number where it has none.
    pub(super) fn group(&self, gid: u32) -> String {
        let known = self.groups.get(&gid).cloned();
        let asked = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
        self.name(gid, known, asked)
    }

    fn name(
        &self,
        id: u32,
        known: Option<String>,
        asked: impl FnOnce() -> Option<String>,
    ) -> String {
        known
            .or_else(|| if self.ask_name_service { asked() } else { None })
            .unwrap_or_else(|| id.to_string())
    }
}

/// Name and number are the first and third field of both files (passwd(5), group(5)). The first
/// line of a number counts, as for the C library.
fn names(root: &Sysroot, path: &str) -> BTreeMap<u32, String> {
    let bytes = root.read(path, LIST_LIMIT).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse))
            && !name.is_empty()
        {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}
