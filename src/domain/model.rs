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
    /// Its name; empty where it has none, which libvirt refuses.
    pub name: String,
    /// Where the name stands.
    pub name_span: Option<Range<usize>>,
    /// Whether this is a status file of libvirt's: the domain is running.
    pub is_status: bool,
    /// The process that runs it, by the status file.
    pub pid: Option<u32>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    /// What it says of host memory by the path of a file: EGM is that, and so are other things.
    pub file_memory: Vec<FileMemory>,
    /// What it is: `<type arch='aarch64' machine='virt'>`.
    pub os: Os,
    /// Whether the guest has ACPI tables, `<features><acpi/>`.
    pub has_acpi: bool,
    /// How much memory it has, `<memory>`.
    pub memory: Option<Value<Bytes>>,
    /// How much of it at the start, `<currentMemory>`.
    pub current_memory: Option<Value<Bytes>>,
    /// How much it may come to have, `<maxMemory>`.
    pub max_memory: Option<Value<Bytes>>,
    /// The number of slots for memory devices, `<maxMemory slots='4'>`.
    pub memory_slots: Option<Value<u32>>,
    /// What its memory is made of, `<memoryBacking>`.
    pub backing: Backing,
    /// How many virtual CPUs it has, `<vcpu>`.
    pub vcpus: Option<Value<u32>>,
    /// How many of them it starts with.
    pub current_vcpus: Option<Value<u32>>,
    /// The numbers of those that `<vcpus>` lists.
    pub vcpu_ids: Vec<Value<u32>>,
    /// Its `<topology>`.
    pub topology: Option<CpuTopology>,
    /// Its NUMA cells.
    pub cells: Vec<Cell>,
    /// Its EGM devices, `<memory model='egm'>`.
    pub egm: Vec<EgmDevice>,
    /// Its memory devices of other models.
    pub other_memory: Vec<MemoryDevice>,
    /// The devices of a form that libvirt has given up, `<acpiEgmMemory>`.
    pub obsolete: Vec<Range<usize>>,
    /// Which virtual CPUs run where, `<vcpupin>`.
    pub pins: Vec<Pin>,
    /// What is given to QEMU past libvirt, `<qemu:arg>`.
    pub qemu_arguments: Vec<Value<String>>,
    /// The host memory of the cells that have no `<memnode>`, `<numatune><memory>`.
    pub memory_policy: Option<MemoryPolicy>,
    /// The cells that have a policy of their own, `<numatune><memnode>`.
    pub placed_cells: Vec<(Value<u32>, MemoryPolicy)>,
    /// The PCI functions that it has as network interfaces.
    pub interfaces: Vec<Value<PciAddress>>,
    /// Its `<hostdev>` devices.
    pub hostdevs: Vec<Hostdev>,
    /// Whether its `<hostdev>` devices use iommufd, unless they say otherwise, `<iommufd enabled='yes'/>`.
    pub iommufd: Option<Value<bool>>,
    /// Its IOMMUs, `<iommu model='smmuv3'>`.
    pub iommus: Vec<Iommu>,
    /// Its PCI and USB controllers.
    pub controllers: Vec<Controller>,
    /// Its devices on a USB bus; where their start tags stand.
    pub usb_devices: Vec<Range<usize>>,
    /// The aliases of all its devices.
    pub aliases: Vec<Value<String>>,
}

/// A value of the XML: what is written, what it means, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value<T> {
    /// What is written.
    pub text: String,
    /// What it means; `None` where it means nothing.
    pub value: Option<T>,
    /// The bytes of the source that say it: the text of an element, or an attribute's value
    /// within its quotes.
    pub span: Range<usize>,
}

impl<T> Value<T> {
    /// The text as messages show it.
    pub(crate) fn shown(&self) -> String {
        excerpt(&self.text, SHOWN)
    }
}

/// Looks into a value that may be missing.
pub(crate) trait Maybe<T: Clone> {
    /// Its meaning, if it is there and has one.
    fn known(&self) -> Option<T>;
    /// Its text; empty if it is missing.
    fn text(&self) -> &str;
    /// Its place, or if it is missing, that of what it belongs to.
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

/// What machine a domain is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Os {
    /// Whether `<os>` has the `<type>` that libvirt requires.
    pub has_type: bool,
    /// The kind of firmware that libvirt is to choose, `<os firmware='efi'>`.
    pub firmware: Option<Value<String>>,
    /// The type of the firmware's file, `<loader type='pflash'>`.
    pub loader: Option<Value<String>>,
    /// Its architecture; that of the host where nothing is said.
    pub arch: Option<Value<String>>,
    /// The type of its machine; QEMU's default where nothing is said.
    pub machine: Option<Value<String>>,
}

/// A memory device that is not EGM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryDevice {
    /// Its model, such as `dimm`.
    pub model: Option<Value<String>>,
    /// How much memory it has.
    pub size: Option<Value<Bytes>>,
    /// Where its start tag stands.
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
    /// Where its start tag stands.
    pub span: Range<usize>,
}

/// Where a virtual CPU runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The virtual CPU.
    pub vcpu: Option<u32>,
    /// The CPUs of the host.
    pub cpus: Value<IdList>,
}

/// What the memory of a domain is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// Where `<hugepages>` stands.
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

/// How the CPUs of a guest are arranged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTopology {
    /// How many CPUs that makes; `None` where it is more than can be, or nothing.
    pub cpus: Option<u32>,
    /// The numbers of sockets, dies, clusters, cores, threads: those that are written.
    pub levels: Vec<(&'static str, u32)>,
    /// Where its start tag stands.
    pub span: Range<usize>,
}

/// A NUMA cell of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// Its number; where none is written, its place in the list.
    pub id: Value<u32>,
    /// How much memory it has.
    pub memory: Option<Value<Bytes>>,
    /// Its virtual CPUs.
    pub cpus: Option<Value<IdList>>,
    /// Whether its memory is shared, `memAccess`.
    pub access: Option<Value<String>>,
    /// The cells that it says its distance to, and the distance.
    pub distances: Vec<(Value<u32>, Option<u32>)>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// An EGM device: memory of the host's region for one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgmDevice {
    /// `access`, which is to be `shared`.
    pub access: Option<Value<String>>,
    /// The region's device.
    pub path: Option<Value<String>>,
    /// How much of it.
    pub size: Option<Value<Bytes>>,
    /// The guest's NUMA cell that it backs.
    pub cell: Option<Value<u32>>,
    /// The alias of its GPU's `<hostdev>`.
    pub pci_dev: Option<Value<String>>,
    /// The `iommu` attribute of its `<driver>`.
    pub iommu: Option<Value<String>>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// A device of the host that the guest has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hostdev {
    /// Its address, where it is a PCI function.
    pub address: Option<Value<PciAddress>>,
    /// Its alias.
    pub alias: Option<Value<String>>,
    /// The type of its address in the guest, `<address type='pci'>`.
    pub address_type: Option<Value<String>>,
    /// The guest's NUMA cells that it is bound to, `<acpi nodeset='2-9'/>`.
    pub cells: Option<Value<IdList>>,
    /// Whether the guest sees its option ROM, `<rom bar='off'/>`.
    pub rom_bar: Option<Value<bool>>,
    /// Whether it uses iommufd, `<driver iommufd='yes'/>`.
    pub iommufd: Option<Value<bool>>,
    /// Where its start tag stands.
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
    /// Where its start tag stands.
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
    /// Where it stands, name and value.
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
    /// Whether it was most likely meant to be EGM: `EGM`, `egmm`.
    #[must_use]
    pub fn is_like_egm(&self) -> bool {
        self.model.as_ref().is_some_and(|model| {
            let model = model.text.trim().to_ascii_lowercase();
            !model.is_empty() && strsim::osa_distance(&model, "egm") <= 1
        })
    }

    /// How much it adds to the domain's memory: libvirt counts all models in that it knows
    /// (`virDomainMemoryModel`, `src/conf/domain_conf.h`), but EGM.
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
    /// Its address, where it is a PCI function and the address is one.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        self.address.as_ref()?.value
    }
}
