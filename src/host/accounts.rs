//! Names of users and groups.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

use crate::sysfs::decimal;
use crate::sysroot::{LIST_LIMIT, Sysroot};

/// The names of one root's accounts: those in its `etc/passwd` and `etc/group`, which are read
/// when the first name is asked for, and on the running host those of the name service, too.
#[derive(Debug)]
pub(crate) struct Accounts<'a> {
    root: &'a Sysroot,
    users: OnceCell<RefCell<BTreeMap<u32, String>>>,
    groups: OnceCell<RefCell<BTreeMap<u32, String>>>,
    passwd: OnceCell<String>,
}

impl<'a> Accounts<'a> {
    pub(crate) fn of(root: &'a Sysroot) -> Self {
        let (users, groups, passwd) = Default::default();
        Self { root, users, groups, passwd }
    }

    /// The user's name; the number where it has none.
    pub(crate) fn user(&self, uid: u32) -> String {
        let users = self.users.get_or_init(|| RefCell::new(fields(self.passwd(), 0)));
        let ask = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        self.name(users, uid, ask)
    }

    /// The group's name; the number where it has none.
    pub(crate) fn group(&self, gid: u32) -> String {
        let read = || RefCell::new(fields(&read(self.root, "/etc/group"), 0));
        let groups = self.groups.get_or_init(read);
        let ask = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
        self.name(groups, gid, ask)
    }

    /// The user's home directory by the root's `etc/passwd`.
    pub(crate) fn home(&self, uid: u32) -> Option<PathBuf> {
        fields(self.passwd(), 5).remove(&uid)
    }

    fn passwd(&self) -> &str {
        self.passwd.get_or_init(|| read(self.root, "/etc/passwd"))
    }

    /// A name service is asked once for each number: it may be at the other end of a network.
    fn name(
        &self,
        names: &RefCell<BTreeMap<u32, String>>,
        id: u32,
        ask: impl FnOnce() -> Option<String>,
    ) -> String {
        let mut names = names.borrow_mut();
        let name = names.entry(id).or_insert_with(|| {
            let asked = if self.root.is_host() { ask() } else { None };
            asked.unwrap_or_else(|| id.to_string())
        });
        name.clone()
    }
}

fn read(root: &Sysroot, path: &str) -> String {
    let bytes = root.read(path, LIST_LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A field of every line by the number in its third (passwd(5), group(5)). The first line of a
/// number counts, as for the C library.
fn fields<T: for<'a> From<&'a str>>(text: &str, wanted: usize) -> BTreeMap<u32, T> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if let (Some(id), Some(field)) = (fields.get(2), fields.get(wanted))
            && let Some(id) = decimal(id)
            && !field.is_empty()
        {
            found.entry(id).or_insert_with(|| T::from(field));
        }
    }
    found
}
