//! PCI functions: the GPUs of regions, and GPUs that no region lists.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::bars::{self, Bar};
use super::bus::PciBus;
use super::pci_names::is_grace;
use super::pcie_link::PcieLink;
use super::placement::NodeSource;
use crate::host::sysfs::DeviceDir;
use crate::sysroot::{ReadError, Sysroot};
use crate::values::numbers::{decimal, number};
use crate::values::text::{SHOWN, excerpt};
use crate::values::{IdList, NodeId, PciAddress};
use crate::warning::Warning;

/// NVIDIA's vendor id.
const NVIDIA: u16 = 0x10de;

/// A GPU: any PCI function that a region lists, whatever its vendor; or an NVIDIA display
/// controller that no region lists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Its address.
    pub address: PciAddress,
    /// Its directory in sysfs, as the link through which it was found.
    pub path: PathBuf,
    /// Vendor id, `0x10de` for NVIDIA.
    pub vendor_id: Option<u16>,
    /// Device id, `0x2941` for a GB200.
    pub device_id: Option<u16>,
    /// Class, subclass and programming interface: `0x030200` is a 3D controller.
    pub class: Option<u32>,
    /// Its name in `pci.ids`.
    pub name: Option<String>,
    /// The driver it is bound to.
    pub driver: Driver,
    /// The IOMMU group's number in sysfs; `None` if it is in no group.
    pub iommu_group: Option<u32>,
    /// The name of its IOMMU in sysfs, on Grace the SMMU: `smmu3.0x0000000011000000`. GPUs with the
    /// same name share one. `None` if it has none.
    pub smmu: Option<String>,
    /// The name of its device of VFIO for iommufd, `vfio0`; `None` if it has none, or is not bound to
    /// a driver for passthrough.
    pub vfio_device: Option<String>,
    /// Its memory BARs, by number. Those that only its driver for passthrough makes are not
    /// included.
    pub bars: Option<Vec<Bar>>,
    /// The fastest PCIe link that it supports.
    pub link: PcieLink,
    /// The NUMA nodes that the kernel made for its memory: eight, without CPUs. They are inferred from
    /// the order of the GPUs' addresses, only if the host has exactly eight nodes with generic
    /// initiators for each Grace GPU and no GPU's node contradicts that; otherwise `None`.
    pub own_nodes: Option<IdList>,
    /// Its NUMA node according to the kernel.
    pub numa_node: GpuNode,
    /// The CPUs local to it according to the kernel: all CPUs if it has no node.
    pub local_cpus: Option<IdList>,
    /// The NUMA node with the CPUs of its socket, and the source of that fact.
    pub host_node: Option<(NodeId, NodeSource)>,
    /// Whether the host has it; a region may still list a removed GPU.
    pub is_there: bool,
    /// Warnings about it.
    pub warnings: Vec<Warning>,
}

/// The contents of `numa_node`.
pub(super) const NODE_EXPECTED: &str = "a NUMA node, or -1 for none";

/// The drivers for passthrough.
const PASSTHROUGH: [&str; 3] = ["nvgrace_gpu_vfio_pci", "nvidia_vgpu_vfio", "vfio-pci"];

/// Whether a GPU is bound to a driver for passthrough.
pub(crate) fn is_passthrough(gpu: &Gpu) -> bool {
    gpu.driver.name().is_some_and(|name| PASSTHROUGH.contains(&name))
}

/// The driver for passthrough of any PCI function: with it, the guest has no access to the memory of
/// a Grace GPU.
const PLAIN: &str = "vfio-pci";

impl Gpu {
    /// Whether it is a Grace GPU bound to the general driver for passthrough.
    pub(crate) fn lacks_memory_access(&self) -> bool {
        self.driver.name() == Some(PLAIN) && self.is_grace() == Some(true)
    }
}

impl Driver {
    /// The reason why a GPU with this driver is not fit for a guest with EGM.
    pub(crate) fn unfit(&self) -> String {
        if self.name() == Some(PLAIN) {
            return "is bound to vfio-pci, so the guest has no access to its memory".into();
        }
        format!("is not bound for passthrough ({})", self.in_words())
    }
}

/// The NUMA node of a function according to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuNode {
    /// Not read, or unreadable.
    #[default]
    Unknown,
    /// No node (-1, `NUMA_NO_NODE`).
    None,
    /// This node, which may be the GPU's own, without CPUs.
    Node(NodeId),
}

impl GpuNode {
    /// The node, if there is one and it is known.
    #[must_use]
    pub fn id(self) -> Option<NodeId> {
        match self {
            Self::Node(id) => Some(id),
            Self::Unknown | Self::None => None,
        }
    }
}

/// The driver of a PCI function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// Not read, or unreadable.
    #[default]
    Unknown,
    /// No driver.
    Unbound,
    /// The driver with this name.
    Bound(String),
}

impl Driver {
    /// The name of the driver, if there is one and it is known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Bound(name) => Some(name),
            Self::Unbound | Self::Unknown => None,
        }
    }

    /// A description for people.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Bound(name) => format!("driver {}", excerpt(name, SHOWN)),
            Self::Unbound => "no driver".into(),
            Self::Unknown => "unknown driver".into(),
        }
    }
}

impl Gpu {
    /// A GPU with only its address known.
    pub(super) fn at(address: PciAddress, path: PathBuf) -> Self {
        Self {
            address,
            path,
            vendor_id: None,
            device_id: None,
            class: None,
            name: None,
            driver: Driver::Unknown,
            iommu_group: None,
            smmu: None,
            vfio_device: None,
            bars: None,
            link: PcieLink::default(),
            own_nodes: None,
            numa_node: GpuNode::Unknown,
            local_cpus: None,
            host_node: None,
            is_there: true,
            warnings: Vec::new(),
        }
    }

    /// Reads vendor and class, which identify a GPU.
    fn read_kind(&mut self, root: &Sysroot) {
        let dir = DeviceDir::new(root, &self.path);
        self.vendor_id = read_id(&dir, "vendor", &mut self.warnings);
        if self.vendor_id == Some(NVIDIA) {
            self.class = read_class(&dir, &mut self.warnings);
        }
    }

    /// Reads IDs, class, driver and IOMMU group.
    pub(super) fn read_details(&mut self, root: &Sysroot) {
        let dir = DeviceDir::new(root, &self.path);
        self.vendor_id = read_id(&dir, "vendor", &mut self.warnings);
        self.class = read_class(&dir, &mut self.warnings);
        self.read_rest(&dir);
    }

    pub(super) fn read_rest(&mut self, dir: &DeviceDir) {
        let warnings = &mut self.warnings;
        self.device_id = read_id(dir, "device", warnings);
        self.driver = match dir.link_name("driver") {
            Ok(Some(name)) => Driver::Bound(name),
            // A missing link means no driver only if the function exists.
            Ok(None) if self.vendor_id.is_some() => Driver::Unbound,
            Ok(None) => Driver::Unknown,
            Err(error) => unreadable(&error, warnings),
        };
        self.iommu_group = match dir.link_name("iommu_group") {
            Ok(Some(name)) => read_group(dir, name, warnings),
            Ok(None) => None,
            Err(error) => unreadable(&error, warnings),
        };
    }

    /// Reads the SMMU, the memory BARs and the PCIe link.
    pub(super) fn read_pci(&mut self, root: &Sysroot) {
        let dir = DeviceDir::new(root, &self.path);
        let warnings = &mut self.warnings;
        self.smmu = dir.link_name("iommu").unwrap_or_else(|error| unreadable(&error, warnings));
        let expected = "six lines with the start, end and flags of a BAR in hexadecimal";
        self.bars = dir.value("resource", expected, bars::parse, warnings);
        self.link = PcieLink::read(&dir, warnings);
    }

    /// Reads the name of the VFIO device (`vfio-dev/vfio0` in sysfs, since Linux 6.5).
    pub(super) fn read_vfio(&mut self, root: &Sysroot) {
        let directory = self.path.join("vfio-dev");
        let entries = match root.entries(&directory) {
            Ok(entries) => entries,
            Err(error) if error.is_absent() => return,
            Err(error) => return unreadable(&error, &mut self.warnings),
        };
        let is_device =
            |name: &&String| name.strip_prefix("vfio").and_then(decimal::<u32>).is_some();
        // Without a number it has no device node: the kernel was built without VFIO_DEVICE_CDEV.
        let has_node = |name: &&String| root.stat(directory.join(name).join("dev")).is_ok();
        self.vfio_device = entries.iter().filter(is_device).find(has_node).cloned();
    }

    /// Reads the NUMA node, and the local CPUs if `ask_cpus` returns true for that node.
    pub(super) fn read_node(&mut self, root: &Sysroot, ask_cpus: impl Fn(GpuNode) -> bool) {
        let dir = DeviceDir::new(root, &self.path);
        let node = dir.value("numa_node", NODE_EXPECTED, parse_node, &mut self.warnings);
        self.numa_node = node.unwrap_or_default();
        if ask_cpus(self.numa_node) {
            let parse = |text: &str| text.parse().ok();
            let expected = "a list of CPUs such as 0-71";
            self.local_cpus = dir.value("local_cpulist", expected, parse, &mut self.warnings);
        }
    }

    /// Whether it identifies itself as an NVIDIA GPU: class 0x0300 (VGA) or 0x0302 (3D controller).
    fn is_nvidia_gpu(&self) -> bool {
        self.vendor_id == Some(NVIDIA)
            && matches!(self.class.map(|class| class >> 8), Some(0x0300 | 0x0302))
    }

    /// Whether it is a GPU with EGM, by its IDs; `None` if they are unknown.
    pub(crate) fn is_grace(&self) -> Option<bool> {
        Some(is_grace((self.vendor_id?, self.device_id?)))
    }

    /// Whether two GPUs are known to be the same model.
    pub(super) fn is_same_kind(&self, other: &Self) -> bool {
        self.vendor_id.is_some()
            && self.device_id.is_some()
            && (self.vendor_id, self.device_id) == (other.vendor_id, other.device_id)
    }
}

/// The NVIDIA GPUs that no region lists.
pub(super) struct Others {
    /// By address, with IDs, class, driver and IOMMU group.
    pub(super) gpus: Vec<Gpu>,
    /// Whether every function of the host could be listed and identified, so that no GPU is missing.
    pub(super) is_complete: bool,
}

/// The NVIDIA GPUs of the host except the known ones. Other functions are read only as far as
/// needed to exclude them, and warnings about them are dropped.
pub(super) fn find_others(
    root: &Sysroot,
    bus: &PciBus<'_>,
    known: &BTreeSet<PciAddress>,
) -> Others {
    let mut gpus = Vec::new();
    let is_listed = |gpu| bus.functions().binary_search(gpu).is_ok();
    let mut is_complete = bus.warning().is_none() && known.iter().all(is_listed);
    for address in bus.functions().iter().filter(|address| !known.contains(address)) {
        let mut gpu = Gpu::at(*address, PciBus::path_of(*address));
        gpu.read_kind(root);
        let is_identified = match gpu.vendor_id {
            Some(NVIDIA) => gpu.class.is_some(),
            vendor => vendor.is_some(),
        };
        is_complete &= is_identified;
        if gpu.is_nvidia_gpu() {
            gpu.read_rest(&DeviceDir::new(root, &gpu.path));
            gpus.push(gpu);
        }
    }
    Others { gpus, is_complete }
}

fn unreadable<T: Default>(error: &ReadError, warnings: &mut Vec<Warning>) -> T {
    warnings.push(Warning::unreadable(error));
    T::default()
}

fn read_id(dir: &DeviceDir, name: &str, warnings: &mut Vec<Warning>) -> Option<u16> {
    let parse = |text: &str| number(text)?.try_into().ok();
    dir.value(name, "a PCI id such as 0x10de", parse, warnings)
}

fn read_class(dir: &DeviceDir, warnings: &mut Vec<Warning>) -> Option<u32> {
    let parse = |text: &str| u32::try_from(number(text)?).ok().filter(|class| class >> 24 == 0);
    dir.value("class", "a PCI class such as 0x030200", parse, warnings)
}

fn read_group(dir: &DeviceDir, name: String, warnings: &mut Vec<Warning>) -> Option<u32> {
    let group = decimal(&name);
    if group.is_none() {
        let path = dir.path().join("iommu_group");
        let expected = "a link to a numbered group";
        warnings.push(Warning::Malformed { path, found: name, expected });
    }
    group
}

pub(super) fn parse_node(text: &str) -> Option<GpuNode> {
    if text == "-1" {
        Some(GpuNode::None)
    } else {
        decimal(text).map(|id| GpuNode::Node(NodeId(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::{GpuNode, NodeId, parse_node};

    #[test]
    fn minus_one_means_no_node_rather_than_node_0() {
        assert_eq!(parse_node("-1"), Some(GpuNode::None));
        assert_eq!(parse_node("0"), Some(GpuNode::Node(NodeId(0))));
        assert_eq!(parse_node("31"), Some(GpuNode::Node(NodeId(31))));
        for text in ["", "-2", "+1", "0x1", "4294967296", "node0"] {
            assert_eq!(parse_node(text), None, "{text}");
        }
    }
}
