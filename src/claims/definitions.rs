//! The virtual machines that libvirt has defined on a host, running or not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::process::Users;
use crate::domain::{BadDomain, Domain};
use crate::host::Accounts;
use crate::sysroot::manifest::Flaw;
use crate::sysroot::{Sysroot, unless_gone};
use crate::values::numbers::decimal;
use crate::warning::Warning;

/// Where the system's libvirt keeps what runs, and what is defined (`virQEMUDriverConfigNew`,
/// `src/qemu/qemu_conf.c`).
const RUNNING: &str = "/run/libvirt/qemu";
const DEFINED: &str = "/etc/libvirt/qemu";

/// A directory for each user who is logged in.
pub(crate) const USERS: &str = "/run/user";

/// No domain's XML is larger than that.
const FILE_LIMIT: usize = 1024 * 1024;

/// More tags than this no domain has; a large one has some thousands.
const TAGS_LIMIT: usize = 65_536;

/// A domain and the file that defines it.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) file: PathBuf,
    pub(crate) domain: Domain,
    /// The user whose libvirt it is; `None` for the system's.
    pub(super) user: Option<u32>,
}

/// Reads the definitions of the system's libvirt, and of the users who are logged in. A domain
/// that runs is there by its status file; its persistent definition is left out then, as it may
/// have been changed for the next start.
pub(super) fn read(
    root: &Sysroot,
    accounts: &Accounts<'_>,
    users: &mut Users<'_>,
    warnings: &mut Vec<Warning>,
    is_unread: &mut bool,
) -> Vec<Definition> {
    let system = (Path::new(RUNNING), Path::new(DEFINED));
    let before = warnings.len();
    let mut definitions = read_pair(root, system, None, warnings);
    let users_there = root.entries(USERS).unwrap_or_else(|error| {
        if !error.is_absent() {
            warnings.push(Warning::unreadable(&error));
        }
        Vec::new()
    });
    // Not those of users: they may put there what they like.
    *is_unread = warnings.iter().skip(before).any(Warning::is_unreadable);
    for user in users_there {
        let Some(uid) = decimal(&user) else { continue };
        let Some(home) = accounts.home(uid) else { continue };
        let running = format!("{USERS}/{uid}/libvirt/qemu/run");
        let defined = home.join(".config/libvirt/qemu");
        let session = (Path::new(&running), defined.as_path());
        let mut of_user = read_pair(root, session, Some(uid), warnings);
        // A user may write anything there: what runs must be the user's own process.
        of_user.retain(|definition| {
            let pid = definition.domain.pid;
            let is_own = pid.is_some_and(|pid| users.user(pid) == Some(uid));
            !definition.domain.is_status || is_own
        });
        definitions.append(&mut of_user);
    }
    definitions
}

fn read_pair(
    root: &Sysroot,
    (running, defined): (&Path, &Path),
    user: Option<u32>,
    warnings: &mut Vec<Warning>,
) -> Vec<Definition> {
    let mut definitions = read_directory(root, running, user, warnings);
    definitions.retain(|definition| definition.domain.is_status);
    let running: BTreeSet<_> =
        definitions.iter().map(|definition| definition.domain.name.clone()).collect();
    let mut defined = read_directory(root, defined, user, warnings);
    defined.retain(|definition| !running.contains(&definition.domain.name));
    definitions.append(&mut defined);
    definitions
}

fn read_directory(
    root: &Sysroot,
    directory: &Path,
    user: Option<u32>,
    warnings: &mut Vec<Warning>,
) -> Vec<Definition> {
    let names = unless_gone(|| root.entries(directory)).unwrap_or_else(|error| {
        // Nothing is defined where there is no directory.
        if !error.is_absent() {
            warnings.push(Warning::unreadable(&error));
        }
        Vec::new()
    });
    let mut definitions = Vec::new();
    for name in names.iter().filter(|name| Path::new(name).extension() == Some("xml".as_ref())) {
        let file = directory.join(name);
        if let Some(Flaw { line, column }) = root.recorded().and_then(|it| it.bad_definition(&file))
        {
            warnings.push(Warning::BadDefinition { path: file, line, column });
            continue;
        }
        match unless_gone(|| root.read_no_link(&file, FILE_LIMIT)) {
            Ok(bytes) => match parse(&String::from_utf8_lossy(&bytes)) {
                Ok(domain) => definitions.push(Definition { file, domain, user }),
                // Not in the parser's words: they may quote a password.
                Err(BadDomain { line, column, .. }) => {
                    warnings.push(Warning::BadDefinition { path: file, line, column });
                }
            },
            // Undefined meanwhile, or stopped.
            Err(error) if error.is_absent() => {}
            Err(error) => warnings.push(Warning::unreadable(&error)),
        }
    }
    definitions
}

/// A domain without a name is none that libvirt would have written, nor one of so many elements,
/// which would take much memory.
pub(crate) fn parse(text: &str) -> Result<Domain, BadDomain> {
    if let Some(at) = memchr::memchr_iter(b'<', text.as_bytes()).nth(TAGS_LIMIT) {
        return Err(BadDomain::at(text, at, "more elements than a domain has"));
    }
    let domain = Domain::parse(text)?;
    if domain.name.is_empty() {
        return Err(BadDomain::at(text, domain.span.start, "a domain without <name>"));
    }
    Ok(domain)
}
