//! The virtual machines that libvirt has defined on a host, running or not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::process::Users;
use super::unseen::{Flaw, Recorded};
use crate::domain::{BadDomain, Domain};
use crate::host::Accounts;
use crate::sysroot::{ReadError, Sysroot, unless_gone};
use crate::values::numbers::decimal;
use crate::warning::Warning;

/// Directories of the system's libvirt, for running and for defined domains
/// (`virQEMUDriverConfigNew`, `src/qemu/qemu_conf.c`).
const RUNNING: &str = "/run/libvirt/qemu";
const DEFINED: &str = "/etc/libvirt/qemu";

/// Contains a directory for each user who is logged in.
pub(crate) const USERS: &str = "/run/user";

/// Maximum size of a domain's XML.
const FILE_LIMIT: usize = 1024 * 1024;

/// Maximum number of tags in a domain; a large one has a few thousand.
const TAGS_LIMIT: usize = 65_536;

/// A domain and the file that defines it.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) file: PathBuf,
    pub(crate) domain: Domain,
    /// The user of the libvirt session; `None` for the system's libvirt.
    pub(super) user: Option<u32>,
}

/// Reads definitions; unreadable files are warnings.
pub(super) struct Reader<'a> {
    pub(super) root: &'a Sysroot,
    pub(super) recorded: &'a Recorded,
    pub(super) warnings: &'a mut Vec<Warning>,
}

impl Reader<'_> {
    /// Reads the definitions of the system's libvirt and of the users who are logged in, and
    /// whether some of the system's could not be read. For a running domain only its status file is
    /// used: its persistent definition may have been changed for the next start.
    pub(super) fn read(
        &mut self,
        accounts: &Accounts<'_>,
        users: &mut Users<'_>,
    ) -> (Vec<Definition>, bool) {
        let before = self.warnings.len();
        let mut definitions = self.read_pair(Path::new(RUNNING), Path::new(DEFINED), None);
        let users_there = self.listed(self.root.entries(USERS));
        // Not those of users, whose directories may contain anything.
        let is_unread = self.warnings.iter().skip(before).any(Warning::is_unreadable);
        for user in users_there {
            let Some(uid) = decimal(&user) else { continue };
            let Some(home) = accounts.home(uid) else { continue };
            let running = format!("{USERS}/{uid}/libvirt/qemu/run");
            let defined = home.join(".config/libvirt/qemu");
            let mut of_user = self.read_pair(Path::new(&running), &defined, Some(uid));
            // A user's directory may contain anything, so a running domain must be a process of
            // that user.
            of_user.retain(|definition| {
                let pid = definition.domain.pid;
                let is_own = pid.is_some_and(|pid| users.user(pid) == Some(uid));
                !definition.domain.is_status || is_own
            });
            definitions.append(&mut of_user);
        }
        (definitions, is_unread)
    }

    fn read_pair(&mut self, running: &Path, defined: &Path, user: Option<u32>) -> Vec<Definition> {
        let mut definitions = self.read_directory(running, user);
        definitions.retain(|definition| definition.domain.is_status);
        let running: BTreeSet<_> =
            definitions.iter().map(|definition| definition.domain.name.clone()).collect();
        let mut defined = self.read_directory(defined, user);
        defined.retain(|definition| !running.contains(&definition.domain.name));
        definitions.append(&mut defined);
        definitions
    }

    fn read_directory(&mut self, directory: &Path, user: Option<u32>) -> Vec<Definition> {
        let names = self.listed(unless_gone(|| self.root.entries(directory)));
        let mut definitions = Vec::new();
        for name in names.iter().filter(|name| Path::new(name).extension() == Some("xml".as_ref()))
        {
            let file = directory.join(name);
            if let Some(Flaw { line, column }) = self.recorded.bad_definition(&file) {
                self.warnings.push(Warning::BadDefinition { path: file, line, column });
                continue;
            }
            match unless_gone(|| self.root.read_no_link(&file, FILE_LIMIT)) {
                Ok(bytes) => match parse(&String::from_utf8_lossy(&bytes)) {
                    Ok(domain) => definitions.push(Definition { file, domain, user }),
                    // The parser's message is omitted, as it may quote a password.
                    Err(BadDomain { line, column, .. }) => {
                        self.warnings.push(Warning::BadDefinition { path: file, line, column });
                    }
                },
                // It was undefined or stopped in the meantime.
                Err(error) if error.is_absent() => {}
                Err(error) => self.warnings.push(Warning::unreadable(&error)),
            }
        }
        definitions
    }

    /// The names in a directory; empty if it does not exist.
    fn listed(&mut self, names: Result<Vec<String>, ReadError>) -> Vec<String> {
        names.unwrap_or_else(|error| {
            self.warnings.extend(Warning::unless_absent(&error));
            Vec::new()
        })
    }
}

/// Rejects domains without a name, which libvirt would not write, and domains with so many elements
/// that they would take too much memory.
pub(crate) fn parse(text: &str) -> Result<Domain, BadDomain> {
    if let Some(at) = memchr::memchr_iter(b'<', text.as_bytes()).nth(TAGS_LIMIT) {
        return Err(BadDomain::at(text, at, "too many elements"));
    }
    let domain = Domain::parse(text)?;
    if domain.name.is_empty() {
        return Err(BadDomain::at(text, domain.span.start, "missing <name>"));
    }
    Ok(domain)
}
