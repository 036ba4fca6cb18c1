//! How much of a region is free.

use serde::Serialize;

use crate::units::Bytes;

/// Whether a region can be given to a virtual machine. A region belongs to one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Who holds the region was not looked for, or could not be seen.
    #[default]
    Unknown,
}

impl State {
    /// The name, as it is in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
        }
    }
}

/// How much of what could be seen was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Occupancy {
    /// Holders were not looked for.
    #[default]
    Skipped,
}

/// What of a region is free. Unknown is `None`, never 0 and never the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Whether it can be given away.
    pub state: State,
    /// What a virtual machine can have of it.
    pub free: Option<Bytes>,
    /// What its holder has mapped.
    pub held: Option<Bytes>,
    /// What its holder leaves unmapped, and nobody else can have.
    pub stranded: Option<Bytes>,
}
