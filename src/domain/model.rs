//! The part of libvirt's domain XML that concerns EGM, as types: each value with its place.

use std::ops::Range;

use super::{
    Backing, Cell, CommandLine, CpuMode, CpuTopology, DeviceOverride, EgmDevice, Features,
    FileMemory, Hostdev, Iommu, MemoryDevice, MemoryPolicy, Os, PciController, PciDevice, Pin,
    UsbController, Value,
};
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
    /// Its features, `<features>`.
    pub features: Features,
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
    /// The kind of placement of virtual CPUs, `<vcpu placement='static'>`.
    pub vcpu_placement: Option<Value<String>>,
    /// The CPUs of the host for virtual CPUs that have no `<vcpupin>`, `<vcpu cpuset='0-71'>`.
    pub vcpu_cpus: Option<Value<IdList>>,
    /// The virtual CPUs that `<vcpus>` and `<vcpusched>` name.
    pub vcpu_ids: Vec<Value<IdList>>,
    /// The model of its CPUs, `<cpu mode='host-passthrough'>`.
    pub cpu_mode: Option<Value<CpuMode>>,
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
    /// The CPUs of the host for QEMU's other threads, `<emulatorpin>` and `<iothreadpin>`.
    pub thread_pins: Vec<Value<IdList>>,
    /// The maximum memory of QEMU's process, `<memtune><hard_limit>`, which is also its limit of
    /// locked memory.
    pub hard_limit: Option<Value<Bytes>>,
    /// Additional arguments for QEMU, `<qemu:arg>`.
    pub qemu_arguments: Vec<Value<String>>,
    /// The part of the PCI machine that those arguments create.
    pub command_line: CommandLine,
    /// Properties of devices that it overrides, `<qemu:override>`.
    pub overrides: Vec<DeviceOverride>,
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
    /// Its PCI controllers.
    pub pci_controllers: Vec<PciController>,
    /// All its devices that have a PCI address, also controllers and `<hostdev>` devices.
    pub pci_devices: Vec<PciDevice>,
    /// Its USB controllers.
    pub usb_controllers: Vec<UsbController>,
    /// The places of the start tags of its USB devices.
    pub usb_devices: Vec<Range<usize>>,
    /// The aliases of all its devices.
    pub aliases: Vec<Value<String>>,
}
