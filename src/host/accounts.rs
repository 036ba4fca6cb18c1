//! Names of users and groups.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::sysroot::{LIST_LIMIT, Sysroot};
use crate::values::numbers::decimal;

/// The names of one root's accounts: those in `etc/passwd` and `etc/group`, which are read when the
/// first name is requested, and, on the running host, those of the name service.
#[derive(Debug)]
pub(crate) struct Accounts<'a> {
    root: &'a Sysroot,
    users: RefCell<BTreeMap<u32, String>>,
    groups: RefCell<BTreeMap<u32, String>>,
    primary: RefCell<BTreeMap<u32, u32>>,
    members: RefCell<BTreeMap<u32, BTreeSet<String>>>,
    passwd: OnceCell<Option<Table>>,
    group: OnceCell<Option<Table>>,
}

impl<'a> Accounts<'a> {
    pub(crate) fn of(root: &'a Sysroot) -> Self {
        let (users, groups, primary, members, passwd, group) = Default::default();
        Self { root, users, groups, primary, members, passwd, group }
    }

    /// The user's name, or the number if it has none.
    pub(crate) fn user(&self, uid: u32) -> String {
        let ask = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        self.name(&self.users, self.passwd(), uid, ask)
    }

    /// The group's name, or the number if it has none.
    pub(crate) fn group(&self, gid: u32) -> String {
        let ask = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
        self.name(&self.groups, self.groups_file(), gid, ask)
    }

    /// The number of a user, given by name or as a number that a user has.
    pub(crate) fn uid(&self, name: &str) -> Option<u32> {
        let ask = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        let found = self.passwd().and_then(|table| table.id(name)).or_else(|| self.if_host(ask));
        if let Some(uid) = found {
            self.users.borrow_mut().entry(uid).or_insert_with(|| name.to_owned());
        }
        found.or_else(|| decimal(name).filter(|uid| *uid == 0 || self.user(*uid) != *name))
    }

    /// The number of a group, given by name or as a number that a group has.
    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        let ask = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        let found = self.groups_file().and_then(|table| table.id(name));
        let found = found.or_else(|| self.if_host(ask));
        if let Some(gid) = found {
            self.groups.borrow_mut().entry(gid).or_insert_with(|| name.to_owned());
        }
        found.or_else(|| decimal(name).filter(|gid| *gid == 0 || self.group(*gid) != *name))
    }

    /// Whether users are known, and whether groups are known.
    pub(crate) fn are_known(&self) -> (bool, bool) {
        let is_host = self.root.may_ask_system();
        (is_host || self.passwd().is_some(), is_host || self.groups_file().is_some())
    }

    /// The groups of a user including `own`, as set by initgroups(3).
    pub(crate) fn groups_of(&self, user: &str, own: Option<u32>) -> Vec<u32> {
        let ask = || {
            let groups = getgrouplist(&CString::new(user).ok()?, Gid::from_raw(own?)).ok()?;
            Some(groups.into_iter().map(Gid::as_raw).collect())
        };
        let listed = || self.groups_file().map(|table| table.with_member(user));
        let mut groups = self.if_host(ask).or_else(listed).unwrap_or_default();
        for gid in &groups {
            self.members.borrow_mut().entry(*gid).or_default().insert(user.to_owned());
        }
        groups.extend(own);
        groups
    }

    /// The user's primary group.
    pub(crate) fn primary_group(&self, uid: u32) -> Option<u32> {
        let ask = || Some(User::from_uid(Uid::from_raw(uid)).ok().flatten()?.gid.as_raw());
        let found = self.passwd().and_then(|table| decimal(table.field(uid, 3)?));
        let found = found.or_else(|| self.if_host(ask));
        if let Some(gid) = found {
            self.primary.borrow_mut().insert(uid, gid);
        }
        found
    }

    /// The user's home directory according to the root's `etc/passwd`.
    pub(crate) fn home(&self, uid: u32) -> Option<PathBuf> {
        self.passwd()?.field(uid, 5).filter(|home| !home.is_empty()).map(PathBuf::from)
    }

    /// The users and groups that were looked up and have a name.
    pub(crate) fn named(&self) -> [BTreeMap<u32, String>; 2] {
        [&self.users, &self.groups].map(|names| {
            let mut names = names.borrow().clone();
            names.retain(|id, name| *name != id.to_string());
            names
        })
    }

    /// The primary groups and the members of groups that were looked up.
    pub(crate) fn memberships(&self) -> (BTreeMap<u32, u32>, BTreeMap<u32, BTreeSet<String>>) {
        (self.primary.borrow().clone(), self.members.borrow().clone())
    }

    fn passwd(&self) -> Option<&Table> {
        self.passwd.get_or_init(|| Table::read(self.root, "/etc/passwd")).as_ref()
    }

    fn groups_file(&self) -> Option<&Table> {
        self.group.get_or_init(|| Table::read(self.root, "/etc/group")).as_ref()
    }

    /// The name service is queried only once for each number: it may be across a network.
    fn name(
        &self,
        names: &RefCell<BTreeMap<u32, String>>,
        table: Option<&Table>,
        id: u32,
        ask: impl FnOnce() -> Option<String>,
    ) -> String {
        let mut names = names.borrow_mut();
        let find = || {
            let written = table.and_then(|table| table.field(id, 0)).map(str::to_owned);
            written.or_else(|| self.if_host(ask)).unwrap_or_else(|| id.to_string())
        };
        names.entry(id).or_insert_with(find).clone()
    }

    /// Queries the name service, if the root is the running host.
    fn if_host<T>(&self, ask: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.root.may_ask_system() { ask() } else { None }
    }
}

/// A file of lines with colon-separated fields, the third of which is a number (passwd(5),
/// group(5)). The first line with a name or number counts, as in the C library.
#[derive(Debug)]
struct Table {
    text: String,
    lines: BTreeMap<u32, (usize, usize)>,
}

impl Table {
    /// `None` if the file does not exist or cannot be read.
    fn read(root: &Sysroot, path: &str) -> Option<Self> {
        let bytes = root.read(path, LIST_LIMIT).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = BTreeMap::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            if let Some((_, id)) = name_and_id(line) {
                lines.entry(id).or_insert((start, start + line.trim_end_matches('\n').len()));
            }
            start += line.len();
        }
        Some(Self { text, lines })
    }

    fn field(&self, id: u32, wanted: usize) -> Option<&str> {
        let (start, end) = *self.lines.get(&id)?;
        self.text.get(start..end)?.split(':').nth(wanted)
    }

    fn id(&self, name: &str) -> Option<u32> {
        let mut lines = self.text.lines().filter_map(name_and_id);
        lines.find(|(found, _)| *found == name).map(|(_, id)| id)
    }

    /// The numbers of the groups with this member.
    fn with_member(&self, user: &str) -> Vec<u32> {
        let lists = |line: &&str| {
            line.split(':').nth(3).is_some_and(|members| members.split(',').any(|it| it == user))
        };
        self.text.lines().filter(lists).filter_map(name_and_id).map(|(_, id)| id).collect()
    }
}

fn name_and_id(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((name, decimal(fields.nth(1)?.trim_end())?))
}
