//! PCI functions: the GPUs of regions, and those that no region names.

use std::path::PathBuf;

use super::bus::PciBus;
use super::numa::NodeId;
use crate::id_list::IdList;
use crate::pci::PciAddress;
use crate::sysfs::{DeviceDir, number};
use crate::sysroot::{ReadError, Sysroot};
use crate::warning::Warning;

/// NVIDIA's vendor id.
const NVIDIA: u16 = 0x10de;

/// A GPU: any PCI function that a region names, whoever made it; or an NVIDIA display controller
/// that no region names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Its address.
    pub address: PciAddress,
    /// Its directory in sysfs, by the link through which it was found.
    pub path: PathBuf,
    /// Vendor id, `0x10de` for NVIDIA.
    pub vendor_id: Option<u16>,
    /// Device id, `0x2941` for a GB200.
    pub device_id: Option<u16>,
    /// Class, subclass and programming interface: `0x030200` is a 3D controller.
    pub class: Option<u32>,
    /// Its name by `pci.ids`.
    pub name: Option<String>,
    /// The driver it is bound to.
    pub driver: Driver,
    /// The IOMMU group, by the number in sysfs; `None` where it is in none.
    pub iommu_group: Option<u32>,
    /// The NUMA node that the kernel gives it; `None` where it gives none (-1).
    pub numa_node: Option<NodeId>,
    /// The CPUs that the kernel calls local to it: all of them where it has no node.
    pub local_cpus: Option<IdList>,
}

/// What a PCI function is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Not read, or not readable.
    #[default]
    Unknown,
    /// To no driver.
    Unbound,
    /// To the driver of this name.
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
}

impl Gpu {
    /// A GPU of which nothing but its address is known.
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
            numa_node: None,
            local_cpus: None,
        }
    }

    /// Reads ids, class, driver and IOMMU group.
    pub(super) fn read_details(&mut self, root: &Sysroot, warnings: &mut Vec<Warning>) {
        let dir = DeviceDir::new(root, &self.path);
        self.vendor_id = read_id(&dir, "vendor", warnings);
        self.device_id = read_id(&dir, "device", warnings);
        self.class = read_class(&dir, warnings);
        self.driver = match dir.link_name("driver") {
            Ok(Some(name)) => Driver::Bound(name),
            // No link is no driver only where there is a function at all.
            Ok(None) if self.vendor_id.is_some() => Driver::Unbound,
            Ok(None) => Driver::Unknown,
            Err(error) => unreadable(&error, warnings),
        };
        self.iommu_group = match dir.link_name("iommu_group") {
            Ok(Some(name)) => name.parse().ok(),
            Ok(None) => None,
            Err(error) => unreadable(&error, warnings),
        };
    }

    /// Reads the NUMA node; and the local CPUs where `ask_cpus` says, for what was found, that
    /// they are wanted.
    pub(super) fn read_node(
        &mut self,
        root: &Sysroot,
        ask_cpus: impl Fn(Option<NodeId>) -> bool,
        warnings: &mut Vec<Warning>,
    ) {
        let dir = DeviceDir::new(root, &self.path);
        let expected = "a NUMA node, or -1 for none";
        self.numa_node =
            dir.value("numa_node", expected, parse_node, warnings).and_then(|node| node.0);
        if ask_cpus(self.numa_node) {
            let parse = |text: &str| text.parse().ok();
            let expected = "a list of CPUs such as 0-71";
            self.local_cpus = dir.value("local_cpulist", expected, parse, warnings);
        }
    }

    /// Whether it is a GPU by what it says of itself: an NVIDIA function of class 0x0300 (VGA)
    /// or 0x0302 (3D controller).
    fn is_nvidia_gpu(&self) -> bool {
        self.vendor_id == Some(NVIDIA)
            && matches!(self.class.map(|class| class >> 8), Some(0x0300 | 0x0302))
    }

    /// Whether two GPUs are of the same model, where both are known.
    pub(super) fn is_same_kind(&self, other: &Self) -> bool {
        self.vendor_id.is_some()
            && self.device_id.is_some()
            && (self.vendor_id, self.device_id) == (other.vendor_id, other.device_id)
    }
}

/// The NVIDIA GPUs of the host, but for those that `is_known` picks, with their details.
pub(super) fn find_others(
    root: &Sysroot,
    bus: &PciBus<'_>,
    is_known: impl Fn(PciAddress) -> bool,
    warnings: &mut Vec<Warning>,
) -> Vec<Gpu> {
    warnings.extend(bus.warning());
    let mut gpus = Vec::new();
    for address in bus.functions().iter().copied().filter(|address| !is_known(*address)) {
        let mut gpu = Gpu::at(address, PciBus::path_of(address));
        let mut found = Vec::new();
        gpu.read_details(root, &mut found);
        // What is wrong with other functions is none of our business.
        if gpu.is_nvidia_gpu() {
            gpu.read_node(root, |_| true, &mut found);
            gpus.push(gpu);
            warnings.append(&mut found);
        }
    }
    gpus
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

/// What a function's `numa_node` says: -1 is no node (`NUMA_NO_NODE`).
#[derive(Debug, PartialEq, Eq)]
struct NodeOrNone(Option<NodeId>);

fn parse_node(text: &str) -> Option<NodeOrNone> {
    if text == "-1" {
        return Some(NodeOrNone(None));
    }
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    let id = digits.then(|| text.parse().ok()).flatten()?;
    Some(NodeOrNone(Some(NodeId(id))))
}

#[cfg(test)]
mod tests {
    use super::{NodeId, NodeOrNone, parse_node};

    #[test]
    fn minus_one_is_no_node_and_never_node_0() {
        assert_eq!(parse_node("-1"), Some(NodeOrNone(None)));
        assert_eq!(parse_node("0"), Some(NodeOrNone(Some(NodeId(0)))));
        assert_eq!(parse_node("31"), Some(NodeOrNone(Some(NodeId(31)))));
        for text in ["", "-2", "+1", "0x1", "4294967296", "node0"] {
            assert_eq!(parse_node(text), None, "{text}");
        }
    }
}
