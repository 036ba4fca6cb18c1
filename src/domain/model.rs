//! The part of libvirt's domain XML that concerns EGM, as types: each value with its place.

use std::ops::Range;

use roxmltree::NodeId;

use super::FileMemory;
use crate::values::numbers::decimal;
use crate::values::text::{SHOWN, excerpt};
use crate::values::{Bytes, IdList, PciAddress};

/// A virtual machine as libvirt defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Domain {
    /// Its name; empty if it has none, which libvirt refuses.
    pub name: String,
    /// The place of the name.
    pub name_span: Option<Range<usize>>,
    /// Whether this is a status file of libvirt, that is, the domain is running.
    pub is_status: bool,
    /// The process that runs it, according to the status file.
    pub pid: Option<u32>,
    /// The place of its start tag.
    pub span: Range<usize>,
    /// Its host memory that comes from files, such as EGM.
    pub file_memory: Vec<FileMemory>,
    /// Its firmware and machine, `<os><type arch='aarch64' machine='virt'>`.
    pub os: Os,
    /// Whether the guest has ACPI tables, `<features><acpi/>`.
    pub has_acpi: bool,
    /// Its memory, `<memory>`.
    pub memory: Option<Value<Bytes>>,
    /// Its memory at the start, `<currentMemory>`.
    pub current_memory: Option<Value<Bytes>>,
    /// Its maximum memory, `<maxMemory>`.
    pub max_memory: Option<Value<Bytes>>,
    /// The number of slots for memory devices, `<maxMemory slots='4'>`.
    pub memory_slots: Option<Value<u32>>,
    /// The backing of its memory, `<memoryBacking>`.
    pub backing: Backing,
    /// The number of its virtual CPUs, `<vcpu>`.
    pub vcpus: Option<Value<u32>>,
    /// The number of virtual CPUs that it starts with.
    pub current_vcpus: Option<Value<u32>>,
    /// The numbers of the virtual CPUs in `<vcpus>`.
    pub vcpu_ids: Vec<Value<u32>>,
    /// Its `<topology>`.
    pub topology: Option<CpuTopology>,
    /// Its NUMA cells.
    pub cells: Vec<Cell>,
    /// Its EGM devices, `<memory model='egm'>`.
    pub egm: Vec<EgmDevice>,
    /// Its memory devices of other models.
    pub other_memory: Vec<MemoryDevice>,
    /// Devices in the obsolete syntax `<acpiEgmMemory>`.
    pub obsolete: Vec<Range<usize>>,
    /// The pinning of its virtual CPUs, `<vcpupin>`.
    pub pins: Vec<Pin>,
    /// Additional arguments for QEMU, `<qemu:arg>`.
    pub qemu_arguments: Vec<Value<String>>,
    /// The host memory of the cells that have no `<memnode>`, `<numatune><memory>`.
    pub memory_policy: Option<MemoryPolicy>,
    /// The cells that have a policy of their own, `<numatune><memnode>`.
    pub placed_cells: Vec<(Value<u32>, MemoryPolicy)>,
    /// The PCI functions of its network interfaces.
    pub interfaces: Vec<Value<PciAddress>>,
    /// Its `<hostdev>` devices.
    pub hostdevs: Vec<Hostdev>,
    /// Whether its `<hostdev>` devices use iommufd, unless they say otherwise, `<iommufd enabled='yes'/>`.
    pub iommufd: Option<Value<bool>>,
    /// Its IOMMUs, `<iommu model='smmuv3'>`.
    pub iommus: Vec<Iommu>,
    /// Its PCI and USB controllers.
    pub controllers: Vec<Controller>,
    /// The places of the start tags of its USB devices.
    pub usb_devices: Vec<Range<usize>>,
    /// The aliases of all its devices.
    pub aliases: Vec<Value<String>>,
}

/// A value of the XML: its text, meaning and place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value<T> {
    /// The text.
    pub text: String,
    /// The meaning; `None` if the text is invalid.
    pub value: Option<T>,
    /// Its bytes in the source: the text of an element, or an attribute's value within its quotes.
    pub span: Range<usize>,
}

impl<T> Value<T> {
    /// The text for messages.
    pub(crate) fn shown(&self) -> String {
        excerpt(&self.text, SHOWN)
    }
}

/// Access to a value that may be missing.
pub(crate) trait Maybe<T: Clone> {
    /// Its meaning, if it is present and valid.
    fn known(&self) -> Option<T>;
    /// Its text; empty if it is missing.
    fn text(&self) -> &str;
    /// Its place, or if it is missing, the given one.
    fn place<'a>(&'a self, whole: &'a Range<usize>) -> &'a Range<usize>;
}

impl<T: Clone> Maybe<T> for Option<Value<T>> {
    fn known(&self) -> Option<T> {
        self.as_ref()?.value.clone()
    }

    fn text(&self) -> &str {
        self.as_ref().map_or("", |value| &value.text)
    }

    fn place<'a>(&'a self, whole: &'a Range<usize>) -> &'a Range<usize> {
        self.as_ref().map_or(whole, |value| &value.span)
    }
}

/// The firmware and machine of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Os {
    /// Whether `<os>` has the required `<type>`.
    pub has_type: bool,
    /// The kind of firmware for libvirt to choose, `<os firmware='efi'>`.
    pub firmware: Option<Value<String>>,
    /// The type of the firmware's file, `<loader type='pflash'>`.
    pub loader: Option<Value<String>>,
    /// Its architecture; by default that of the host.
    pub arch: Option<Value<String>>,
    /// The type of its machine; by default QEMU's.
    pub machine: Option<Value<String>>,
}

/// A memory device that is not EGM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryDevice {
    /// Its model, such as `dimm`.
    pub model: Option<Value<String>>,
    /// Its memory.
    pub size: Option<Value<Bytes>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// A PCI or USB controller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controller {
    /// `pci` or `usb`.
    pub bus: Value<String>,
    /// Its number, by which other elements refer to it.
    pub index: Option<Value<u32>>,
    /// Its model, such as `pcie-root`.
    pub model: Option<Value<String>>,
    /// The window for large PCI devices, `<pcihole64>`.
    pub hole: Option<Value<Bytes>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// The pinning of a virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The virtual CPU.
    pub vcpu: Option<u32>,
    /// The CPUs of the host.
    pub cpus: Value<IdList>,
}

/// The backing of a domain's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// The place of `<hugepages>`.
    pub hugepages: Option<Range<usize>>,
    /// `<access mode='shared'/>`.
    pub access: Option<Value<String>>,
    /// `<allocation mode='immediate'/>`.
    pub allocation: Option<Value<String>>,
    /// The number of threads that allocate, `<allocation threads='4'/>`.
    pub allocation_threads: Option<Value<u32>>,
}

/// The host NUMA nodes that memory of the guest comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPolicy {
    /// The use of the nodes; strict if missing.
    pub mode: Option<Value<MemoryMode>>,
    /// The nodes; `None` if libvirt asks numad for them.
    pub nodes: Option<Value<IdList>>,
}

/// The use of the host NUMA nodes of a [`MemoryPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryMode {
    /// Memory comes from these nodes only.
    Strict,
    /// Memory comes from another node if the preferred one has none left.
    Preferred,
    /// Pages alternate between the nodes.
    Interleave,
    /// Only libvirt's cgroup limits the nodes; QEMU sets no policy.
    Restrictive,
}

/// The topology of a guest's CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTopology {
    /// The resulting number of CPUs; `None` if it is invalid.
    pub cpus: Option<u32>,
    /// The numbers of sockets, dies, clusters, cores and threads, as far as they are given.
    pub levels: Vec<(&'static str, u32)>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// A NUMA cell of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// Its number; by default its position in the list.
    pub id: Value<u32>,
    /// Its memory.
    pub memory: Option<Value<Bytes>>,
    /// Its virtual CPUs.
    pub cpus: Option<Value<IdList>>,
    /// Whether its memory is shared, `memAccess`.
    pub access: Option<Value<String>>,
    /// The cells with a given distance, and the distance.
    pub distances: Vec<(Value<u32>, Option<u32>)>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// An EGM device: memory of the host's region for one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgmDevice {
    /// `access`, which should be `shared`.
    pub access: Option<Value<String>>,
    /// The region's device.
    pub path: Option<Value<String>>,
    /// The size.
    pub size: Option<Value<Bytes>>,
    /// The guest's NUMA cell that it backs.
    pub cell: Option<Value<u32>>,
    /// The alias of its GPU's `<hostdev>`.
    pub pci_dev: Option<Value<String>>,
    /// The `iommu` attribute of its `<driver>`.
    pub iommu: Option<Value<String>>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// A device of the host that is assigned to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hostdev {
    /// Its address, if it is a PCI function.
    pub address: Option<Value<PciAddress>>,
    /// Its alias.
    pub alias: Option<Value<String>>,
    /// The type of its address in the guest, `<address type='pci'>`.
    pub address_type: Option<Value<String>>,
    /// The guest's NUMA cells that belong to it, `<acpi nodeset='2-9'/>`.
    pub cells: Option<Value<IdList>>,
    /// Whether the guest sees its option ROM, `<rom bar='off'/>`.
    pub rom_bar: Option<Value<bool>>,
    /// Whether it uses iommufd, `<driver iommufd='yes'/>`.
    pub iommufd: Option<Value<bool>>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// An IOMMU of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iommu {
    /// Its model, such as `smmuv3`.
    pub model: Option<Value<String>>,
    /// The attributes of its `<driver>`.
    pub driver: Vec<Attribute>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// An attribute of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The place of its name and value.
    pub span: Range<usize>,
}

impl Iommu {
    /// Whether it is an `SMMUv3`.
    #[must_use]
    pub fn is_smmuv3(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.text == "smmuv3")
    }

    /// Whether the host's SMMU translates for it, `accel='on'`.
    #[must_use]
    pub fn is_accelerated(&self) -> bool {
        self.attribute("accel").is_some_and(|accel| accel.value == "on")
    }

    /// The index of the controller that it belongs to, `pciBus`.
    #[must_use]
    pub fn pci_bus(&self) -> Option<u32> {
        decimal(&self.attribute("pciBus")?.value)
    }

    /// An attribute of its `<driver>`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.driver.iter().find(|attribute| attribute.name == name)
    }
}

impl MemoryDevice {
    /// Whether its model looks like a typo of `egm`: `EGM`, `egmm`.
    #[must_use]
    pub fn is_like_egm(&self) -> bool {
        self.model.as_ref().is_some_and(|model| {
            let model = model.text.trim().to_ascii_lowercase();
            !model.is_empty() && strsim::osa_distance(&model, "egm") <= 1
        })
    }

    /// Its share of the domain's memory: libvirt counts all known models
    /// (`virDomainMemoryModel`, `src/conf/domain_conf.h`) except EGM.
    #[must_use]
    pub fn counts(&self) -> Bytes {
        let size = self.size.as_ref().and_then(|size| size.value);
        size.filter(|_| self.is_known()).unwrap_or(Bytes(0))
    }

    /// Whether libvirt has a memory device of this model.
    #[must_use]
    pub fn is_known(&self) -> bool {
        const KNOWN: [&str; 5] = ["dimm", "nvdimm", "virtio-pmem", "virtio-mem", "sgx-epc"];
        self.model.as_ref().is_some_and(|model| KNOWN.contains(&model.text.as_str()))
    }

    /// Whether it takes one of the slots of `<maxMemory>`.
    #[must_use]
    pub fn takes_a_slot(&self) -> bool {
        self.model.as_ref().is_some_and(|model| matches!(model.text.as_str(), "dimm" | "nvdimm"))
    }
}

impl Hostdev {
    /// Its address, if it is a PCI function with a valid address.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        self.address.as_ref()?.value
    }
}
