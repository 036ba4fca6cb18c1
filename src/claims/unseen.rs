//! Claims that could not be seen, and what a capture says of those on its host: the part of its
//! `capture.json` that is not about paths.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sysroot::Sysroot;
use crate::sysroot::manifest::{NAME, bad};
use crate::values::Moment;

/// The claims of a host, as far as its files do not show them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// Processes that could not be seen; `None` where claims were not taken.
    pub(crate) claims: Option<Unseen>,
    /// A moment in seconds since 1970 at which the leases are what they were. The time of the
    /// capture would make two captures of the same host differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moment: Option<u64>,
    /// Invalid definitions of libvirt's. Their content is not taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) bad_definitions: BTreeMap<String, Flaw>,
}

/// The processes that were not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unseen {
    /// The number of processes that could not be examined.
    pub(crate) unread: usize,
    /// Why others may be missing without a trace.
    pub(crate) hidden: Option<Hidden>,
    /// Whether they came and went faster than they could be examined.
    pub(crate) unsettled: bool,
}

/// Why `/proc` may leave out processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hidden {
    /// It is that of a running kernel below another root.
    ForeignProc,
    /// It is mounted with hidepid.
    Hidepid,
    /// It is that of a PID namespace of its own.
    PidNamespace,
}

/// The place in an XML file where it stops being a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flaw {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Recorded {
    /// What a capture says; for any other root, that nothing was left out. An invalid document
    /// counts as a capture without claims.
    pub(crate) fn of(root: &Sysroot) -> Self {
        Self::read(root).unwrap_or_default()
    }

    /// As [`Recorded::of`], but the problem with an invalid document is an error.
    pub(crate) fn read(root: &Sysroot) -> Result<Self, String> {
        if root.recorded().is_none() {
            return Ok(Self { claims: Some(Unseen::default()), ..Self::default() });
        }
        let bytes = root.read(NAME, usize::MAX).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(bad)
    }

    /// The moment at which leases are looked at.
    pub(crate) fn moment(&self) -> Moment {
        self.moment.map_or_else(Moment::now, Moment)
    }

    /// The problem with a definition that was left out for it.
    pub(crate) fn bad_definition(&self, path: &Path) -> Option<Flaw> {
        self.bad_definitions.get(&*path.to_string_lossy()).copied()
    }
}
