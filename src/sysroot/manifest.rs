//! What a capture says beside its files: `capture.json` at its top.
//!
//! Files alone do not show everything that was seen on a host: that reading one failed, or the names
//! in a directory whose files were not read. The keys of the document that are not about paths are
//! those of `claims/unseen.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::error::{ReadError, describe};
use crate::values::text::excerpt;

/// Its name in the archive.
pub(crate) const NAME: &str = "capture.json";

/// Its kind and version.
pub(crate) const SCHEMA: &str = "egm-probe.capture/1";

/// The most that it may take, and the most names in it.
const SIZE_LIMIT: usize = 64 << 20;
const NAMES_LIMIT: usize = 1 << 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema: String,
    /// The program and version that took it.
    pub(crate) program: String,
    /// Whether the host was running, as opposed to recorded before.
    pub(crate) live: bool,
    /// The names in directories of which not all were read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) names: BTreeMap<String, BTreeSet<String>>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<String, BTreeMap<Op, Problem>>,
    /// The device and inode of nodes, as `/proc/<pid>/maps` has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) inodes: BTreeMap<String, FileNumbers>,
}

/// A way to read a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    /// Listing a directory.
    List,
    /// Following a link.
    Link,
    /// Asking what it is.
    Stat,
    /// Reading a file.
    Read,
}

/// Why a path could not be read: the kernel's number, or words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Problem {
    Number(i32),
    Words(String),
}

/// A file by the device that holds it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileNumbers {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) inode: u64,
}

/// The problem with an archive whose [`NAME`] cannot be used.
pub(crate) fn bad(problem: impl fmt::Display) -> String {
    format!("has a bad {NAME}: {}", excerpt(&problem.to_string(), 100))
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > SIZE_LIMIT {
            return Err(bad(format!("it is larger than {} MiB", SIZE_LIMIT >> 20)));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(bad)?;
        if manifest.schema != SCHEMA {
            let found = &manifest.schema;
            return Err(bad(format!(
                "it is of the kind {found:?}, and this version reads {SCHEMA}"
            )));
        }
        let names: usize = manifest.names.values().map(BTreeSet::len).sum();
        if names.saturating_add(manifest.errors.len()) > NAMES_LIMIT {
            return Err(bad(format!("it has more than {NAMES_LIMIT} names")));
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

    /// Whether it says that nothing is there.
    pub(crate) fn is_absence(&self) -> bool {
        const ABSENT: [Errno; 2] = [Errno::ENOENT, Errno::ENOTDIR];
        matches!(self, Self::Number(number) if ABSENT.contains(&Errno::from_raw(*number)))
    }
}

impl From<&Problem> for io::Error {
    fn from(problem: &Problem) -> Self {
        match problem {
            // Those of the kernel (`MAX_ERRNO`, include/linux/err.h).
            Problem::Number(number @ 1..=4095) => Self::from_raw_os_error(*number),
            Problem::Number(number) => Self::other(format!("error {number}, which there is not")),
            Problem::Words(words) => Self::other(words.clone()),
        }
    }
}
