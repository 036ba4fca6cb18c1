//! What was odd about a host. Warnings are data that travel with the result: nothing prints them
//! on the way, and none of them keeps the rest from being shown.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::values::text::{excerpt, printable, shown};
use crate::values::{DeviceNumber, NodeId, PciAddress, RegionName};

/// Something about the host, a region or a GPU that is not as it should be.
///
/// Displayed as one line that names the host path, what was found, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A file, link or directory is there but could not be read.
    #[error("{}: {cause}", shown(path))]
    Unreadable {
        /// The host path.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A file that should be there is not.
    #[error("{}: not there, so {unknown} is unknown", shown(path))]
    Absent {
        /// The host path.
        path: PathBuf,
        /// What is unknown without it.
        unknown: &'static str,
    },
    /// A file says something that it never should.
    #[error("{}: found `{}`, expected {expected}", shown(path), excerpt(found, FOUND_SHOWN))]
    Malformed {
        /// The host path.
        path: PathBuf,
        /// What was read.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// There is more of something than any host has; the rest is left out.
    #[error("{found} {what} are more than any host has; only {limit} are shown")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are not left out.
        limit: usize,
    },
    /// The file of the leases cannot be read or is damaged.
    #[error(
        "{}: {}; reservations are unknown until the file is repaired or removed",
        shown(path),
        excerpt(problem, PATH_SHOWN)
    )]
    LeasesUnread {
        /// The host path.
        path: PathBuf,
        /// The system's words, or those of the parser.
        problem: String,
    },
    /// The unreadable file of the leases was replaced.
    #[error("{}: replaced; the unreadable file was saved as {}", shown(path), shown(saved))]
    LeasesReplaced {
        /// The host path.
        path: PathBuf,
        /// The host path of the old file.
        saved: PathBuf,
    },
    /// A region names no GPU at all.
    #[error("{}: names no GPU in any way known", shown(path))]
    NoGpus {
        /// The region's directory in sysfs.
        path: PathBuf,
    },
    /// A region names a GPU that the host does not have: it was taken out, or is being put back.
    #[error("names GPU {address}, which is not there: no {}", shown(path))]
    GpuGone {
        /// The address by which the region names it.
        address: PciAddress,
        /// Its directory, or the link to it.
        path: PathBuf,
    },
    /// Two regions name the same GPU.
    #[error("GPU {address} is named by {first} and by {second}")]
    GpuOfTwoRegions {
        /// The GPU.
        address: PciAddress,
        /// One region.
        first: RegionName,
        /// The other.
        second: RegionName,
    },
    /// A GPU of the same kind and socket that no region names: with the drivers that list only
    /// bound GPUs it may belong to this region all the same.
    #[error(
        "GPU {address} ({}) is of the same kind and NUMA node but named by no region: it may \
         belong to this one, whose driver lists only the GPUs bound to it",
        driver.as_deref().map_or_else(|| "no driver".into(), |name| format!("driver {}", printable(name)))
    )]
    SuspectedPeer {
        /// The GPU.
        address: PciAddress,
        /// The driver it is bound to.
        driver: Option<String>,
    },
    /// The host NUMA node of a GPU cannot be told.
    #[error("NUMA node of GPU {address} unknown: {reason}")]
    NodeUnknown {
        /// The GPU.
        address: PciAddress,
        /// What was looked at, and why it does not tell.
        reason: String,
    },
    /// The GPUs of a region are on different NUMA nodes, so the region's cannot be told.
    #[error("NUMA node unknown: GPU {} is on node {}, GPU {} on node {}", .0.0, .0.1, .1.0, .1.1)]
    NodeDisagreement((PciAddress, NodeId), (PciAddress, NodeId)),
    /// There is no device node.
    #[error("{}: no such device node; udevd or devtmpfs should have made it", shown(path))]
    DeviceNodeMissing {
        /// The path of the node.
        path: PathBuf,
    },
    /// What lies at the path of the device node is something else.
    #[error("{}: not the region's device node: found {found}, expected {expected}", shown(path))]
    DeviceNodeForeign {
        /// The path of the node.
        path: PathBuf,
        /// What is there.
        found: String,
        /// The character device that should be.
        expected: DeviceNumber,
    },
    /// Several hold one region at a time: with the older drivers they share the same memory.
    #[error(
        "HELD BY SEVERAL AT ONCE: {}; they overwrite each other's memory where their parts overlap",
        holders.iter().map(|name| excerpt(name, FOUND_SHOWN)).collect::<Vec<_>>().join(", ")
    )]
    SeveralHolders {
        /// Who, in short.
        holders: Vec<String>,
    },
    /// Processes that could not be looked at may hold a region.
    #[error("processes that could not be looked at: {count}; they may hold a region")]
    ProcessesUnread {
        /// How many.
        count: usize,
    },
    /// Processes are made and end too fast to be looked at.
    #[error("processes come and go faster than they can be looked at; they may hold a region")]
    ProcessesUnsettled,
    /// A running kernel's `/proc` below another root cannot be read like a recorded one.
    #[error(
        "/proc below this root is a running kernel's: what its processes hold cannot all be seen from here"
    )]
    ForeignProc,
    /// `/proc` leaves out processes of other users.
    #[error("/proc hides the processes of others (hidepid); they may hold a region")]
    ProcessesHidden,
    /// Only the processes of one container can be seen.
    #[error("this is a PID namespace of its own; processes outside of it may hold a region")]
    PidNamespace,
    /// A file of libvirt's is no domain definition.
    #[error(
        "{}:{line}:{column}: no definition of a domain from here on; `egm-probe validate` tells why",
        shown(path)
    )]
    BadDefinition {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u32,
        /// The column, from 1.
        column: u32,
    },
    /// The region did not become complete while it was looked at again.
    #[error("incomplete after {reads} reads: it is being made or removed, or is broken")]
    Incomplete {
        /// How often it was read.
        reads: u32,
    },
}

/// How much is shown of a path or a problem, which may be hostile, and of what was found.
const PATH_SHOWN: usize = 300;
const FOUND_SHOWN: usize = 80;

impl Warning {
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
