//! The virtual machines that libvirt has defined on a host, running or not.

use std::path::{Path, PathBuf};

use crate::domain::Domain;
use crate::host::Accounts;
use crate::sysroot::Sysroot;
use crate::warning::Warning;

/// Where the system's libvirt keeps what runs, and what is defined (`virQEMUDriverConfigNew`,
/// `src/qemu/qemu_conf.c`).
const RUNNING: &str = "/run/libvirt/qemu";
const DEFINED: &str = "/etc/libvirt/qemu";

/// No domain's XML is larger than that.
const FILE_LIMIT: usize = 4 * 1024 * 1024;

/// A domain and the file that defines it.
pub(super) struct Definition {
    pub(super) file: PathBuf,
    pub(super) domain: Domain,
}

/// Reads the definitions of the system's libvirt, and of the users who are logged in. A domain
/// that runs is there by its status file; its persistent definition is left out then, as it may
/// have been changed for the next start.
pub(super) fn read(
    root: &Sysroot,
    accounts: &Accounts<'_>,
    warnings: &mut Vec<Warning>,
) -> Vec<Definition> {
    let mut definitions = read_pair(root, Path::new(RUNNING), Path::new(DEFINED), warnings);
    for uid in root.entries("/run/user").unwrap_or_default() {
        let Some(home) = uid.parse().ok().and_then(|uid| accounts.home(uid)) else { continue };
        let running = format!("/run/user/{uid}/libvirt/qemu/run");
        let defined = home.join(".config/libvirt/qemu");
        definitions.append(&mut read_pair(root, Path::new(&running), &defined, warnings));
    }
    definitions
}

fn read_pair(
    root: &Sysroot,
    running: &Path,
    defined: &Path,
    warnings: &mut Vec<Warning>,
) -> Vec<Definition> {
    let mut definitions = read_directory(root, running, warnings);
    definitions.retain(|definition| definition.domain.is_status);
    for definition in read_directory(root, defined, warnings) {
        let name = &definition.domain.name;
        if !definitions.iter().any(|running| running.domain.name == *name) {
            definitions.push(definition);
        }
    }
    definitions
}

fn read_directory(
    root: &Sysroot,
    directory: &Path,
    warnings: &mut Vec<Warning>,
) -> Vec<Definition> {
    let names = root.entries(directory).unwrap_or_else(|error| {
        // Nothing is defined where there is no directory.
        if !error.is_absent() {
            warnings.push(Warning::unreadable(&error));
        }
        Vec::new()
    });
    let mut definitions = Vec::new();
    for name in names.iter().filter(|name| Path::new(name).extension() == Some("xml".as_ref())) {
        let file = directory.join(name);
        match root.read(&file, FILE_LIMIT) {
            Ok(bytes) => match Domain::parse(&String::from_utf8_lossy(&bytes)) {
                Ok(domain) => definitions.push(Definition { file, domain }),
                Err(error) => warnings.push(Warning::BadDefinition { path: file, error }),
            },
            // Undefined meanwhile, or stopped.
            Err(error) if error.is_absent() => {}
            Err(error) => warnings.push(Warning::unreadable(&error)),
        }
    }
    definitions
}
