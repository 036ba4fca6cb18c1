//! Claims that could not be examined, and their representation in a capture: the part of
//! `capture.json` that does not concern paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sysroot::Sysroot;
use crate::sysroot::manifest::{NAME, bad};
use crate::values::Moment;

/// Facts about the claims of a host that its files do not show.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// Processes that could not be examined; `None` if claims were not recorded.
    pub(crate) claims: Option<Unseen>,
    /// A time in seconds since 1970 at which the recorded leases are valid. With the time of the
    /// capture, two captures of the same host would differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moment: Option<u64>,
    /// Invalid libvirt definitions. Their contents are not recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) bad_definitions: BTreeMap<String, Flaw>,
}

/// The processes that could not be examined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unseen {
    /// The processes that could not be examined.
    pub(crate) unread: BTreeSet<u32>,
    /// The reason why other processes may be missing.
    pub(crate) hidden: Option<Hidden>,
    /// Whether they started and exited faster than they could be examined.
    pub(crate) unsettled: bool,
}

/// Reasons why `/proc` may hide processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hidden {
    /// It belongs to a running kernel below another root.
    ForeignProc,
    /// It is mounted with hidepid.
    Hidepid,
    /// It belongs to a PID namespace.
    PidNamespace,
}

/// Location of the error in an XML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flaw {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Recorded {
    /// The facts in a capture; for any other root, nothing is hidden. An invalid document counts as
    /// a capture without claims.
    pub(crate) fn of(root: &Sysroot) -> Self {
        Self::read(root).unwrap_or_default()
    }

    /// Like [`Recorded::of`], but an invalid document is an error.
    pub(crate) fn read(root: &Sysroot) -> Result<Self, String> {
        if root.recorded().is_none() {
            return Ok(Self { claims: Some(Unseen::default()), ..Self::default() });
        }
        let bytes = root.read(NAME, usize::MAX).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(bad)
    }

    /// The time at which leases are evaluated.
    pub(crate) fn moment(&self) -> Moment {
        self.moment.map_or_else(Moment::now, Moment)
    }

    /// The error in an invalid definition.
    pub(crate) fn bad_definition(&self, path: &Path) -> Option<Flaw> {
        self.bad_definitions.get(&*path.to_string_lossy()).copied()
    }
}
