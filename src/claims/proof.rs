//! By what a holder was known: what a capture keeps of its process.

use std::path::PathBuf;

use crate::values::DeviceNumber;

/// That a process holds a region, by the index of the region among the targets.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) pid: u32,
    pub(crate) target: usize,
    pub(crate) trace: Trace,
}

/// What was seen of the process.
#[derive(Clone, Debug)]
pub(crate) enum Trace {
    /// A line of its `maps`; and, where it was looked at, the name in `map_files` that leads to the
    /// device of this number.
    Mapping { line: Vec<u8>, node: Option<(String, DeviceNumber)> },
    /// A name in its `fd`: the device's number where it was known by that, else where the link leads.
    File { name: String, number: Option<DeviceNumber>, link: Option<PathBuf> },
}
