//! The manifest of a capture: `capture.json` at its top level.
//!
//! It records facts that the files of a capture do not show: errors of reading, and the names in
//! directories whose files were not read. Keys of the document that do not concern paths are
//! defined in `claims/unseen.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::error::{ReadError, describe};
use crate::values::text::excerpt;

/// The name of the manifest in the archive.
pub(crate) const NAME: &str = "capture.json";

/// The schema and its version.
pub(crate) const SCHEMA: &str = "egm-probe.capture/1";

/// Maximum size, and maximum number of names.
const SIZE_LIMIT: usize = 64 << 20;
const NAMES_LIMIT: usize = 1 << 20;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema: String,
    /// The program and version that created the capture.
    pub(crate) program: String,
    /// Whether the host was running, as opposed to being read from another capture.
    pub(crate) live: bool,
    /// Whether the configuration that `doctor` examines was recorded; older versions did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_configuration: bool,
    /// The names in directories that were not read completely.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) names: BTreeMap<String, BTreeSet<String>>,
    /// Errors of reading, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<String, BTreeMap<Op, Problem>>,
    /// The device and inode of nodes, as in `/proc/<pid>/maps`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) inodes: BTreeMap<String, FileNumbers>,
}

/// An operation on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    /// Listing a directory.
    List,
    /// Following a link.
    Link,
    /// Reading type, mode and owner.
    Stat,
    /// Reading a file.
    Read,
}

/// An error: the kernel's number, or a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Problem {
    Number(i32),
    Words(String),
}

/// A file, identified by its file system's device number and its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileNumbers {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) inode: u64,
}

/// The problem with an archive whose [`NAME`] is invalid.
pub(crate) fn bad(problem: impl fmt::Display) -> String {
    format!("invalid {NAME}: {}", excerpt(&problem.to_string(), 100))
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > SIZE_LIMIT {
            return Err(bad(format!("larger than {} MiB", SIZE_LIMIT >> 20)));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(bad)?;
        if manifest.schema != SCHEMA {
            let found = &manifest.schema;
            return Err(bad(format!("unsupported schema {found:?} (expected {SCHEMA})")));
        }
        let names: usize = manifest.names.values().map(BTreeSet::len).sum();
        if names.saturating_add(manifest.errors.len()) > NAMES_LIMIT {
            return Err(bad(format!("more than {NAMES_LIMIT} names")));
        }
        Ok(manifest)
    }

    pub(super) fn problem(&self, path: &Path, op: Op) -> Option<&Problem> {
        self.errors.get(&*path.to_string_lossy())?.get(&op)
    }

    /// Whether a name was listed in a directory.
    pub(super) fn lists(&self, directory: &Path, name: &str) -> bool {
        self.names.get(&*directory.to_string_lossy()).is_some_and(|names| names.contains(name))
    }
}

impl Problem {
    pub(crate) fn of(error: &ReadError) -> Self {
        match error.cause.raw_os_error() {
            Some(number) => Self::Number(number),
            None => Self::Words(describe(&error.cause)),
        }
    }

    /// Whether it means that the path does not exist.
    pub(crate) fn is_absence(&self) -> bool {
        const ABSENT: [Errno; 2] = [Errno::ENOENT, Errno::ENOTDIR];
        matches!(self, Self::Number(number) if ABSENT.contains(&Errno::from_raw(*number)))
    }
}

impl From<&Problem> for io::Error {
    fn from(problem: &Problem) -> Self {
        match problem {
            // The kernel's range (`MAX_ERRNO`, include/linux/err.h).
            Problem::Number(number @ 1..=4095) => Self::from_raw_os_error(*number),
            Problem::Number(number) => Self::other(format!("invalid errno {number}")),
            Problem::Words(words) => Self::other(words.clone()),
        }
    }
}
