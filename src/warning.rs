//! Warnings about a host. They are data that travel with the result: nothing prints them on the
//! way, and a warning does not keep the rest from being shown.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::values::text::{excerpt, plural, printable, shown};
use crate::values::{DeviceNumber, NodeId, PciAddress, RegionName};

/// A problem with the host, a region or a GPU.
///
/// Displayed as one line that names the host path, what was found, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A file, link or directory exists but could not be read.
    #[error("{}: {cause}", shown(path))]
    Unreadable {
        /// The host path.
        path: PathBuf,
        /// The system's message.
        cause: String,
    },
    /// An expected file is missing.
    #[error("{}: missing; {unknown} is unknown", shown(path))]
    Absent {
        /// The host path.
        path: PathBuf,
        /// The information that is unknown without it.
        unknown: &'static str,
    },
    /// A file has invalid contents.
    #[error("{}: found `{}`, expected {expected}", shown(path), excerpt(found, FOUND_SHOWN))]
    Malformed {
        /// The host path.
        path: PathBuf,
        /// The contents.
        found: String,
        /// A description of valid contents.
        expected: &'static str,
    },
    /// There are more of these than any host has; the rest is omitted.
    #[error("found {found} {what}; showing only the first {limit}")]
    TooMany {
        /// The plural noun, such as `regions`.
        what: &'static str,
        /// The number found.
        found: usize,
        /// The number shown.
        limit: usize,
    },
    /// The reservation file cannot be read or is damaged.
    #[error(
        "{}: {}; reservations are unknown until the file is repaired or removed",
        shown(path),
        excerpt(problem, PATH_SHOWN)
    )]
    LeasesUnread {
        /// The host path.
        path: PathBuf,
        /// The message of the system or of the parser.
        problem: String,
    },
    /// The unreadable reservation file was replaced.
    #[error("{}: replaced; the unreadable file was saved as {}", shown(path), shown(saved))]
    LeasesReplaced {
        /// The host path.
        path: PathBuf,
        /// The host path of the old file.
        saved: PathBuf,
    },
    /// A region lists no GPU.
    #[error("{}: lists no GPU in any known format", shown(path))]
    NoGpus {
        /// The region's directory in sysfs.
        path: PathBuf,
    },
    /// A region lists no GPU but has a NUMA node: its GPUs are those of that node.
    #[error("does not list its GPUs; showing the Grace GPUs of NUMA node {node}")]
    GpusInferred {
        /// The node of the region.
        node: NodeId,
    },
    /// A region lists a GPU that the host does not have: it was removed, or is being added back.
    #[error("lists missing GPU {address}: {} does not exist", shown(path))]
    GpuGone {
        /// The address under which the region lists it.
        address: PciAddress,
        /// Its directory, or the link to it.
        path: PathBuf,
    },
    /// Two regions list the same GPU.
    #[error("GPU {address} is listed by both {first} and {second}")]
    GpuOfTwoRegions {
        /// The GPU.
        address: PciAddress,
        /// One region.
        first: RegionName,
        /// The other.
        second: RegionName,
    },
    /// A GPU that no region lists, of the same model and on the same socket. Some drivers list only
    /// the GPUs bound to them, so it may belong to this region.
    #[error(
        "GPU {address} ({}) is not listed by any region but has the same model and NUMA node; it may \
         belong to this region, whose driver lists only the GPUs bound to it",
        driver.as_deref().map_or_else(|| "no driver".into(), |name| format!("driver {}", printable(name)))
    )]
    SuspectedPeer {
        /// The GPU.
        address: PciAddress,
        /// The driver it is bound to.
        driver: Option<String>,
    },
    /// The host NUMA node of a GPU cannot be determined.
    #[error("NUMA node of GPU {address} unknown: {reason}")]
    NodeUnknown {
        /// The GPU.
        address: PciAddress,
        /// The attributes that were read, and why they do not identify the node.
        reason: String,
    },
    /// The GPUs of a region are on different NUMA nodes, so the region's node is unknown.
    #[error("NUMA node unknown: GPU {} is on node {}, GPU {} on node {}", .0.0, .0.1, .1.0, .1.1)]
    NodeDisagreement((PciAddress, NodeId), (PciAddress, NodeId)),
    /// The device node is missing.
    #[error(
        "{}: {}",
        shown(path),
        if *in_container { "not available in this container" } else {
            "device node missing; udevd or devtmpfs should have created it"
        }
    )]
    DeviceNodeMissing {
        /// The path of the node.
        path: PathBuf,
        /// Whether the host is seen from inside a container, which has only some of its devices.
        in_container: bool,
    },
    /// Another file is at the path of the device node.
    #[error("{}: not the region's device node: found {found}, expected {expected}", shown(path))]
    DeviceNodeForeign {
        /// The path of the node.
        path: PathBuf,
        /// A description of that file.
        found: String,
        /// The number of the expected character device.
        expected: DeviceNumber,
    },
    /// Several virtual machines hold one region: older drivers give all of them the same memory.
    #[error(
        "held by several virtual machines: {}{}",
        joined(holders),
        match overlap {
            Some(true) => "; their memory overlaps",
            Some(false) => "; their memory does not overlap",
            None => "",
        }
    )]
    SeveralHolders {
        /// Short names of the holders, with the parts that they map.
        holders: Vec<String>,
        /// Whether they map the same part; `None` if it is unknown what one of them maps.
        overlap: Option<bool>,
    },
    /// The driver removed the region while a process held it.
    #[error("removed by the driver; its memory is held until the process ends")]
    RegionGone,
    /// Some processes could not be examined.
    #[error("regions may be held by {} that could not be examined: {}", plural(pids.len(), "process"), few(pids))]
    ProcessesUnread {
        /// The processes.
        pids: Vec<u32>,
    },
    /// The driver has more files open than the holders explain.
    #[error(
        "the driver has {} on regions, and the known holders account for {explained}: a region is being \
         opened, which can take minutes, or is held without a visible process",
        plural(*open, "open file")
    )]
    OpenFilesUnexplained {
        /// The number of open files.
        open: u64,
        /// The number of open files of the known holders.
        explained: u64,
    },
    /// Processes have dma-bufs of the driver that cannot be assigned to a region.
    #[error("regions may be held by {} with a dma-buf of an unknown region: {}", plural(pids.len(), "process"), few(pids))]
    DmaBufsUnexplained {
        /// The processes.
        pids: Vec<u32>,
    },
    /// The driver's reference count is odd or cannot be read.
    #[error(
        "cannot determine the number of open regions from the driver's reference count: a region is being \
         opened, or the driver is being loaded or removed"
    )]
    OpenCountUnclear,
    /// A domain is running with a region, and none of the open files is its own.
    #[error(
        "{}: the domain has no region open: it is starting, or the status file is stale",
        shown(path)
    )]
    StatusWithoutOpenFile {
        /// The status file.
        path: PathBuf,
    },
    /// A process maps a copy of the region.
    #[error(
        "{} maps it privately, as a copy, which a virtual machine cannot use as EGM (use share=on in QEMU)",
        excerpt(holder, FOUND_SHOWN)
    )]
    PrivateMapping {
        /// Short name of the process.
        holder: String,
    },
    /// It is unknown whether the holders share the region.
    #[error(
        "held by several processes: {}; unknown whether they share its memory or compete for it",
        joined(holders)
    )]
    SharingUnknown {
        /// Short names of the holders.
        holders: Vec<String>,
    },
    /// Processes start and exit too fast to be examined.
    #[error("processes start and exit faster than they can be examined; they may hold a region")]
    ProcessesUnsettled,
    /// The `/proc` of a running kernel below another root cannot be read like a recorded one.
    #[error(
        "/proc below this root belongs to a running kernel; some holders may not be visible from here"
    )]
    ForeignProc,
    /// `/proc` hides processes of other users.
    #[error("/proc hides the processes of other users (hidepid); they may hold a region")]
    ProcessesHidden,
    /// Only the processes of one container are visible.
    #[error("running in a PID namespace; processes outside it may hold a region")]
    PidNamespace,
    /// A domain definition in one of libvirt's directories is invalid.
    #[error(
        "{}:{line}:{column}: invalid domain definition; run `egm-probe validate` for details",
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
    /// The driver is being loaded or removed.
    #[error("the driver is being loaded or removed: regions may be missing or incomplete")]
    DriverChanging,
    /// The region was still incomplete after several reads.
    #[error("incomplete after {reads} reads: being created or removed, or broken")]
    Incomplete {
        /// The number of reads.
        reads: u32,
    },
}

/// The first of these processes, and the number of the others.
fn few(pids: &[u32]) -> String {
    let first: Vec<_> = pids.iter().take(3).map(ToString::to_string).collect();
    match pids.len().saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn joined(names: &[String]) -> String {
    names.iter().map(|name| excerpt(name, FOUND_SHOWN)).collect::<Vec<_>>().join(", ")
}

/// Maximum number of characters shown of a path or problem, and of a value, all possibly hostile.
const PATH_SHOWN: usize = 300;
const FOUND_SHOWN: usize = 80;

impl Warning {
    /// Whether the file at the path of a device node is not that device.
    pub(crate) fn is_of_node(&self) -> bool {
        matches!(self, Self::DeviceNodeMissing { .. } | Self::DeviceNodeForeign { .. })
    }

    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
