//! The inventory of a host for other systems: container runtimes and Kubernetes.
//!
//! A virtual machine takes a region with all its GPUs, so this is the unit. Only what the hardware
//! and its drivers make is exported: no holders, no reservations, no name of the host. Hosts with the
//! same regions, sizes and GPUs have the same inventory.
//!
//! ```
//! use egm_probe::export::{self, Cdi, Inventory};
//! use egm_probe::host::Host;
//! use egm_probe::sysroot::Sysroot;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = Sysroot::capture("tests/fixtures/gb200-full-gpu-list".as_ref())?;
//! let host = Host::read(&root, export::NEEDS);
//! let inventory = Inventory::of(&host);
//! assert_eq!(export::labels(&inventory)["egm.nvidia.com/regions"], "2");
//! let (cdi, left_out) = Cdi::new(&inventory, &"nvidia.com/egm".parse()?);
//! assert!(!cdi.is_empty() && left_out.is_empty());
//! # Ok(())
//! # }
//! ```

mod cdi;
mod kubernetes;

use std::collections::BTreeMap;

pub use cdi::{BadKind, Cdi, Kind};
pub use kubernetes::{BadNodeName, NodeName, labels, node_feature};

use crate::host::{Gpu, Host, Needs, Region};
use crate::values::{Bytes, NodeId, PciAddress, RegionName};
use crate::warning::Warning;

/// The parts of a host that an inventory needs.
pub const NEEDS: Needs =
    Needs::OTHER_GPUS.union(Needs::VFIO).union(Needs::IOMMUFD).union(Needs::DEVICE_NODE);

/// The regions of a host that can be given to a virtual machine as a whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inventory<'a> {
    /// The regions of which everything is known, in natural order of their names.
    pub units: Vec<Unit<'a>>,
    /// The other regions.
    pub left_out: Vec<LeftOut>,
    /// Whether the host has regions, all of them are in `units`, and every Grace GPU is in one.
    pub is_whole: bool,
    /// Whether the host has `/dev/iommu`.
    pub iommufd: Option<bool>,
}

/// A region with all its GPUs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Unit<'a> {
    /// The region.
    pub region: &'a Region,
    /// Its size.
    pub size: Bytes,
    /// The host NUMA node of its memory.
    pub node: NodeId,
    /// Its GPUs, by address; at least one.
    pub gpus: &'a [Gpu],
}

/// A region that is not exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{region} is not exported: {reason}")]
#[non_exhaustive]
pub struct LeftOut {
    /// The region.
    pub region: RegionName,
    /// The reason.
    pub reason: Reason,
}

/// The reason why a region is not exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Its size is unknown.
    #[error("its size is unknown")]
    Size,
    /// Its NUMA node is unknown.
    #[error("its NUMA node is unknown")]
    Node,
    /// Its GPUs are unknown.
    #[error("its GPUs are unknown")]
    Gpus,
    /// The driver lists no GPUs; those of the region's node may not be all.
    #[error("the driver does not list its GPUs")]
    Inferred,
    /// A GPU that no region lists may belong to it.
    #[error("GPU {0}, which no region lists, may belong to it (bind it to nvgrace_gpu_vfio_pci)")]
    SuspectedPeer(PciAddress),
    /// Another region lists the same GPU.
    #[error("GPU {address} is listed by {other} as well")]
    SharedGpu {
        /// The GPU.
        address: PciAddress,
        /// The other region.
        other: RegionName,
    },
    /// The host does not have one of its GPUs.
    #[error("GPU {0} does not exist")]
    GpuGone(PciAddress),
    /// A GPU is not bound to a driver for passthrough, so it has no device node.
    #[error(
        "GPU {address} has {driver}, and no device node (bind it to nvgrace_gpu_vfio_pci, and export \
         again)"
    )]
    Unbound {
        /// The GPU.
        address: PciAddress,
        /// Its driver, in words.
        driver: String,
    },
    /// A GPU has neither a VFIO device nor an IOMMU group.
    #[error("the VFIO device and the IOMMU group of GPU {0} are unknown")]
    NoVfio(PciAddress),
    /// The device node of the region cannot be used.
    #[error("its device node cannot be used")]
    DeviceNode,
    /// Its name is too long for a device.
    #[error("its name has more than {MAX_NAME} characters")]
    Name,
}

/// Maximum length of names in Kubernetes' labels.
const MAX_NAME: usize = 63;

impl<'a> Inventory<'a> {
    /// The inventory of a host that was read with [`NEEDS`].
    #[must_use]
    pub fn of(host: &'a Host) -> Self {
        let mut owners: BTreeMap<PciAddress, Vec<&RegionName>> = BTreeMap::new();
        for region in &host.regions {
            for gpu in &region.gpus {
                owners.entry(gpu.address).or_default().push(&region.name);
            }
        }
        let (mut units, mut left_out) = (Vec::new(), Vec::new());
        for region in &host.regions {
            match unit(region, &owners) {
                Ok(unit) => units.push(unit),
                Err(reason) => left_out.push(LeftOut { region: region.name.clone(), reason }),
            }
        }
        let has_others = host.other_gpus.iter().any(|gpu| gpu.is_grace() != Some(false));
        // An unreadable list of PCI functions may hide GPUs.
        let is_read = !host.warnings.iter().any(Warning::is_unreadable);
        let is_whole = !units.is_empty() && left_out.is_empty() && !has_others && is_read;
        Self { units, left_out, is_whole, iommufd: host.iommufd }
    }
}

fn unit<'a>(
    region: &'a Region,
    owners: &BTreeMap<PciAddress, Vec<&RegionName>>,
) -> Result<Unit<'a>, Reason> {
    if region.name.as_str().len() > MAX_NAME {
        return Err(Reason::Name);
    }
    let size = region.size.ok_or(Reason::Size)?;
    if region.gpus.is_empty() {
        return Err(Reason::Gpus);
    }
    if region.has_inferred_gpus() {
        return Err(Reason::Inferred);
    }
    for gpu in &region.gpus {
        if !gpu.is_there {
            return Err(Reason::GpuGone(gpu.address));
        }
        let other = owners
            .get(&gpu.address)
            .and_then(|owners| owners.iter().copied().find(|owner| **owner != region.name));
        if let Some(other) = other {
            return Err(Reason::SharedGpu { address: gpu.address, other: other.clone() });
        }
    }
    for warning in &region.warnings {
        if let Warning::SuspectedPeer { address, .. } = warning {
            return Err(Reason::SuspectedPeer(*address));
        }
    }
    let node = region.numa_node.ok_or(Reason::Node)?;
    Ok(Unit { region, size, node, gpus: &region.gpus })
}
