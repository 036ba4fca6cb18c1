//! Evidence for a holder, kept in captures.

use std::path::PathBuf;

use crate::values::{DeviceNumber, RegionName};

/// Evidence that a process holds a region.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) pid: u32,
    /// The region; unknown for a dma-buf.
    pub(crate) region: Option<RegionName>,
    pub(crate) kind: EvidenceKind,
}

/// The type of evidence.
#[derive(Clone, Debug)]
pub(crate) enum EvidenceKind {
    /// A line of `maps`; and, if it was read, the name in `map_files` that leads to the device with
    /// this number.
    Mapping { line: Vec<u8>, node: Option<(String, DeviceNumber)> },
    /// A name in `fd`: with the device number if it is known, otherwise with the link's target.
    File { name: String, number: Option<DeviceNumber>, link: Option<PathBuf> },
    /// A name in `fd` that is a dma-buf of the driver.
    DmaBuf { name: String, inode: u64 },
}
