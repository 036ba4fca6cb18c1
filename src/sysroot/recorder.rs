//! Records everything that is read from a host; the last result for a path wins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::manifest::{Op, Problem};
use super::path::resolve;
use super::{Acl, ReadError, Stat, Sysroot};
use crate::values::numbers::decimal;

/// Reads a host and records the results.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) host: Sysroot,
    log: Mutex<Log>,
}

/// The record. Places are paths without links; errors have the requested paths, since those do not
/// lead anywhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Links and their targets.
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    /// The names in directories, by requested path, with their places.
    pub(crate) listings: BTreeMap<PathBuf, (PathBuf, BTreeSet<String>)>,
    /// The contents of files, likewise.
    pub(crate) files: BTreeMap<PathBuf, (PathBuf, Vec<u8>)>,
    /// Type, mode and owner of files that were not read, likewise.
    pub(crate) stats: BTreeMap<PathBuf, (PathBuf, Stat)>,
    /// ACLs of files, by their places.
    pub(crate) acls: BTreeMap<PathBuf, Acl>,
    /// Errors.
    pub(crate) errors: BTreeMap<(PathBuf, Op), Problem>,
    /// Whether paths are links, and their targets.
    known: BTreeMap<PathBuf, Option<PathBuf>>,
}

/// The recorded files of a process. Mappings and open files are mostly private, so they are not
/// recorded; the evidence found in them is kept by the module that examines them.
const OF_PROCESSES: [&str; 4] = ["cgroup", "cmdline", "comm", "status"];

/// Whether to record a result. Below `/proc` only [`OF_PROCESSES`] and the kernel's settings are
/// recorded, and that it cannot be listed; elsewhere everything.
fn is_wanted(path: &Path, op: Op, is_error: bool) -> bool {
    let Ok(below) = path.strip_prefix("/proc") else { return true };
    let mut names = below.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    match (names.next(), names.next(), names.next()) {
        (None, ..) => op == Op::List && is_error,
        (Some("sys"), Some("kernel"), Some(_)) => true,
        (Some(process), Some(file), None) => {
            decimal::<u32>(process).is_some() && OF_PROCESSES.contains(&file)
        }
        _ => false,
    }
}

impl Recorder {
    pub(super) fn of(host: &Sysroot) -> Self {
        Self { host: host.clone(), log: Mutex::default() }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // A panic in another thread leaves no partial entry.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn entries(&self, path: &Path) -> Result<Vec<String>, ReadError> {
        self.noted(path, Op::List, self.host.entries(path), |log, place, names| {
            log.listings.insert(path.to_owned(), (place, names.iter().cloned().collect()));
        })
    }

    pub(super) fn read_link(&self, path: &Path) -> Result<PathBuf, ReadError> {
        self.noted(path, Op::Link, self.host.read_link(path), |log, place, target| {
            log.links.insert(place, target.clone());
        })
    }

    pub(super) fn stat(
        &self,
        path: &Path,
        result: Result<Stat, ReadError>,
    ) -> Result<Stat, ReadError> {
        self.noted(path, Op::Stat, result, |log, place, stat| {
            log.stats.insert(path.to_owned(), (place, *stat));
        })
    }

    /// An error is not recorded: without an ACL, the file has its mode.
    pub(super) fn acl(&self, path: &Path) -> Result<Option<Acl>, ReadError> {
        let acl = self.host.acl(path)?;
        let mut log = self.log();
        if let Some(acl) = &acl
            && let Ok(place) = self.place(&mut log, path, true)
        {
            log.acls.insert(place, acl.clone());
        }
        Ok(acl)
    }

    pub(super) fn read(
        &self,
        path: &Path,
        result: Result<(), ReadError>,
        buffer: &[u8],
    ) -> Result<(), ReadError> {
        self.noted(path, Op::Read, result, |log, place, ()| {
            log.files.insert(path.to_owned(), (place, buffer.to_owned()));
        })
    }

    /// Records a result, replacing an earlier result for the path.
    fn noted<T>(
        &self,
        path: &Path,
        op: Op,
        result: Result<T, ReadError>,
        put: impl FnOnce(&mut Log, PathBuf, &T),
    ) -> Result<T, ReadError> {
        if !is_wanted(path, op, result.is_err()) {
            return result;
        }
        let mut log = self.log();
        let asked = (path.to_owned(), op);
        match &result {
            Ok(answer) => {
                log.errors.remove(&asked);
                // A path that cannot be resolved any more has just changed.
                if let Ok(place) = self.place(&mut log, path, op != Op::Link) {
                    put(&mut log, place, answer);
                }
            }
            Err(error) => _ = log.errors.insert(asked, Problem::of(error)),
        }
        result
    }

    /// Resolves a path, and records the links on the way. Paths below `/proc` are not resolved.
    fn place(&self, log: &mut Log, path: &Path, follow_last: bool) -> std::io::Result<PathBuf> {
        if path.starts_with("/proc") {
            return Ok(path.to_owned());
        }
        let Log { known, links, .. } = log;
        resolve(path, follow_last, |at| {
            let target =
                known.entry(at.to_owned()).or_insert_with(|| self.host.read_link(at).ok()).clone();
            if let Some(target) = &target {
                links.insert(at.to_owned(), target.clone());
            }
            Ok(target)
        })
    }
}

impl Log {
    /// The links of a path, and the directories that it enters and leaves again by `..`.
    pub(crate) fn way(&self, path: &Path) -> (Vec<(&Path, &Path)>, BTreeSet<PathBuf>) {
        let (mut links, mut passed) = (Vec::new(), BTreeSet::new());
        let mut before = PathBuf::from("/");
        // A path that leads nowhere did so when it was recorded.
        let _ = resolve(path, true, |at| {
            if !at.starts_with(&before) {
                passed.insert(before.clone());
            }
            let link = self.links.get_key_value(at);
            match link {
                Some((link, target)) => links.push((link.as_path(), target.as_path())),
                None => at.clone_into(&mut before),
            }
            Ok(link.map(|(_, target)| target.clone()))
        });
        (links, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Op, is_wanted};
    use std::path::Path;

    #[test]
    fn only_files_that_identify_a_process_are_recorded() {
        for (path, op, is_error, wanted) in [
            ("/sys/class/egm", Op::List, false, true),
            ("/processes", Op::List, false, true),
            ("/proc", Op::List, false, false),
            ("/proc", Op::List, true, true),
            ("/proc", Op::Stat, true, false),
            ("/proc/42/cmdline", Op::Read, false, true),
            ("/proc/42/status", Op::Read, true, true),
            ("/proc/42/maps", Op::Read, false, false),
            ("/proc/42/fd", Op::List, false, false),
            ("/proc/42/fd/cmdline", Op::Stat, false, false),
            ("/proc/42/task/42/cmdline", Op::Read, false, false),
            ("/proc/self/cmdline", Op::Read, false, false),
            ("/proc/42/environ", Op::Read, false, false),
            ("/proc/cmdline", Op::Read, false, false),
        ] {
            assert_eq!(is_wanted(Path::new(path), op, is_error), wanted, "{path}");
        }
    }
}
