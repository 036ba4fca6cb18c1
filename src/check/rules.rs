//! The rules that a domain with EGM is checked against: one table, from which manual page, README
//! and `--explain` are made.

use super::rule::{Rule, Severity};

/// The rules for the PCI buses of GPUs, and whether there are any.
pub(crate) const OF_BUSES: &[Rule] = &[
    INCOMPLETE,
    GPU_BUS,
    GPU_SMMU,
    SMMU_BUS,
    BUS_NODE,
    BUS_NUMBERS,
    CHASSIS,
    PORT_DEVICE,
    PORT_INDEX,
    IOMMUFD,
    IOMMUFD_MIXED,
];

/// The rules for the window of large PCI devices.
pub(crate) const OF_HOLE: &[Rule] = &[HOLE, PCI_HOLE];

/// The rules for the cells of GPUs.
pub(crate) const OF_GPU_CELLS: &[Rule] = &[GPU_CELLS, GPU_WITHOUT_CELLS, EIGHT_CELLS, DEVICE_CELLS];

impl Rule {
    /// Whether a plan reports the same, in more detail.
    pub(crate) fn is_of_plans(&self) -> bool {
        [PARTIAL, HELD, DRIVER, SUSPECTED, DEFINED, RESERVED].contains(self)
    }
}

macro_rules! rules {
    ($($name:ident = $code:literal $severity:ident $title:literal $explanation:literal $source:literal;)*) => {
        $(pub(crate) const $name: Rule = Rule {
            code: $code,
            severity: Severity::$severity,
            title: $title,
            explanation: $explanation,
            source: $source,
        };)*

        /// Every rule, by code.
        pub const RULES: &[Rule] = &[$($name),*];
    };
}

rules! {
    PATH = "EGM001" Error
        "An EGM device has the path of the region's device"
        "<source><path> is the character device of a region, such as /dev/egm4. QEMU maps it as the guest's memory, and libvirt groups the devices of one region by this text."
        "libvirt RFC v3, src/conf/domain_validate.c";
    PCI_DEV = "EGM002" Error
        "An EGM device names its GPU by an alias"
        "<target><pciDev> is the alias of the GPU's <hostdev>."
        "libvirt RFC v3, src/conf/domain_validate.c";
    NO_HOSTDEV = "EGM003" Error
        "The alias in <pciDev> is that of a <hostdev> of the same domain"
        "QEMU looks up the GPU by this id when it builds the ACPI tables, and exits if there is none."
        "QEMU hw/acpi, acpi-egm-memory";
    NO_PCI = "EGM004" Error
        "The <hostdev> of an EGM device is a PCI function"
        "EGM belongs to a GPU, which is passed through by its PCI address."
        "QEMU hw/acpi, acpi-egm-memory";
    TWO_DEVICES = "EGM005" Error
        "A GPU has only one EGM device"
        "The guest's driver looks for one EGM region per GPU, so all of its memory must be in one device."
        "QEMU hw/acpi, acpi-egm-memory";
    ALIAS_TWICE = "EGM006" Error
        "No two devices have the same alias"
        "Aliases are the ids of QEMU's devices, which must be unique."
        "libvirt src/conf/domain_validate.c";
    ALIAS_LASTS = "EGM007" Error
        "The alias in <pciDev> begins with `ua-`"
        "libvirt silently replaces every other alias with a generated one (hostdev0, hostdev1, ..), and <pciDev> then names no device. Only a warning if <pciDev> is the alias that libvirt generates."
        "libvirt USER_ALIAS_PREFIX, src/conf/device_conf.c";
    NODE = "EGM008" Error
        "An EGM device backs a NUMA cell that the guest has"
        "<target><node> is the number of a <cell> of <cpu><numa>."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    CELL_PATHS = "EGM009" Error
        "The EGM devices of one guest cell have the same path"
        "A cell is backed by one memory backend, and each path has its own backend."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    PATH_CELLS = "EGM010" Error
        "A path backs only one guest cell"
        "There is one memory backend per path, and it cannot back two cells."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    CELL_SUM = "EGM011" Error
        "A cell's memory is the sum of its EGM devices"
        "EGM is the memory of the cell, not an addition to it."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    TOTAL = "EGM012" Warning
        "The domain's <memory> is the sum of its cells"
        "libvirt replaces any other number with the sum of the cells. An error if it is not a number, which libvirt refuses."
        "libvirt src/conf/numa_conf.c, QEMU hw/core/numa.c";
    ACCESS = "EGM013" Error
        "EGM is shared memory"
        "With private access, the kernel replaces each page that the guest writes to with an ordinary copy. The device's `access` takes precedence over the cell's `memAccess`, and that over <access mode=..> in <memoryBacking>."
        "libvirt qemuBuildMemoryBackendProps, src/qemu/qemu_command.c; mmap(2), MAP_PRIVATE";
    SIZE = "EGM014" Error
        "The size of an EGM device is a multiple of 2 MiB, and not 0"
        "libvirt rounds each memory device up to 2 MiB and each cell up to 1 MiB; with any other size the sums differ, and QEMU exits."
        "libvirt qemuDomainAlignMemorySizes, src/qemu/qemu_domain.c";
    CELLS = "EGM015" Error
        "The guest's cells are numbered 0, 1, .. without gaps"
        "libvirt refuses any other numbering. QEMU supports at most 128 cells."
        "libvirt virDomainNumaDefParseXML, src/conf/numa_conf.c";
    MAX_MEMORY = "EGM016" Error
        "<maxMemory> is not less than the memory of the domain"
        "libvirt refuses a smaller value."
        "libvirt src/conf/domain_postparse.c";
    VCPUS = "EGM017" Error
        "The virtual CPUs of the cells exist, and each is in one cell only"
        "libvirt refuses cells with more CPUs than <vcpu>, or with the same CPU twice, and other elements that name a missing CPU. QEMU's machine has at most 512."
        "libvirt src/conf/domain_validate.c, src/conf/numa_conf.c; QEMU hw/arm/virt.c";
    TOPOLOGY = "EGM018" Error
        "<topology> has as many CPUs as <vcpu>"
        "libvirt refuses any other number."
        "libvirt src/conf/domain_validate.c";
    GPU_CELLS = "EGM019" Error
        "The cells in an <acpi nodeset> exist; the cells of a GPU are empty and not used by another GPU"
        "The guest maps the GPU's own memory there, in up to eight parts. Other devices, such as network cards, name the cells near them."
        "NVIDIA libvirt; QEMU acpi-generic-initiator";
    TWO_HOSTDEVS = "EGM020" Error
        "No two <hostdev> are the same PCI function"
        "libvirt assigns a function to a guest only once."
        "libvirt virHostdevPreparePCIDevices, src/hypervisor/virhostdev.c";
    DISTANCES = "EGM021" Error
        "The cells in <distances> exist, and the distance of a cell to itself is 10"
        "libvirt refuses a distance to a missing cell, and a distance of a cell to itself that is not 10."
        "libvirt virDomainNumaDefNodeDistanceParseXML, src/conf/numa_conf.c";
    SHIFTED = "EGM022" Warning
        "A GPU's address has the PCI domain in `domain`"
        "0009:01:00.0 is domain 0x0009, bus 0x01, slot 0x00. It is often written as domain 0x0000, bus 0x09, slot 0x01, a function that no Grace host has."
        "the PCI domains of Grace hosts: 0008, 0009, 0018, ..";
    HUGE_PAGES = "EGM023" Warning
        "A domain with EGM has no <hugepages>"
        "The region's driver maps the memory itself. Huge pages would be reserved on the host for nothing, or the domain would not start."
        "libvirt RFC v3; src/qemu/qemu_validate.c";
    ALLOCATION = "EGM024" Warning
        "Memory is allocated at startup: <allocation mode='immediate'/>"
        "QEMU then maps all of its memory when the guest starts, and reports a failure immediately."
        "libvirt RFC v3, `prealloc`";
    OBSOLETE = "EGM025" Warning
        "EGM is written as <memory model='egm'>"
        "<acpiEgmMemory> is the syntax of the first patch series (July 2025). libvirt silently drops the element. An error if the domain has no other EGM."
        "libvirt RFC v1";
    MACHINE = "EGM026" Warning
        "EGM is for aarch64 guests on the machine type `virt`"
        "QEMU supports acpi-egm-memory only for these."
        "QEMU hw/arm/virt-acpi-build.c";
    OTHER_MEMORY = "EGM027" Warning
        "All memory of the guest is EGM"
        "Other memory devices and other cells with memory use ordinary host memory, which is scarce on a Grace host with EGM, and slow for a GPU."
        "NVIDIA, platform policy";
    COMMAND_LINE = "EGM028" Warning
        "EGM is not passed to QEMU in <qemu:arg>"
        "libvirt writes the memory backends and the NUMA nodes of the cells itself, and <qemu:arg> only adds to them: a duplicate node is an error. libvirt also does not grant QEMU access to the device."
        "libvirt src/qemu/qemu_command.c";
    UNEVEN = "EGM029" Warning
        "The GPUs of one region have equal shares of it"
        "The guest's driver expects the layout of a real host: the region divided equally among its GPUs."
        "NVIDIA, platform policy; KubeVirt";
    NAME = "EGM030" Error
        "A domain has a name, without a slash"
        "libvirt refuses any other name."
        "libvirt src/conf/domain_conf.c";
    PLACED = "EGM031" Error
        "The cells in <numatune> exist"
        "libvirt refuses to place the memory of a cell that the guest does not have."
        "libvirt virDomainNumatuneNodeParseXML, src/conf/numa_conf.c";
    NO_CPUS = "EGM032" Warning
        "If any cell has virtual CPUs, every cell with memory has some, and each CPU is in a cell"
        "Otherwise all CPUs of the guest are far from the memory and the GPUs of the other cells. libvirt adds CPUs in no cell to the first one."
        "NVIDIA, platform policy";
    NO_MAX_MEMORY = "EGM033" Error
        "A domain with memory devices has <maxMemory>"
        "libvirt refuses a memory device of any model in a domain without it. The value of <memory> is enough, and EGM takes no slots."
        "libvirt virDomainDefPostParseMemory, src/conf/domain_postparse.c";
    ACPI = "EGM034" Error
        "The guest has ACPI: <features><acpi/></features>"
        "Without it libvirt starts the guest with acpi=off: it has neither EGM nor cells for the GPUs' memory."
        "libvirt qemuBuildMachineACPI, src/qemu/qemu_command.c";
    UEFI = "EGM035" Error
        "A guest with ACPI has UEFI firmware"
        "libvirt refuses ACPI on aarch64 without <os firmware='efi'> or a <loader type='pflash'>."
        "libvirt qemuValidateDomainDefFeatures, src/qemu/qemu_validate.c";
    OS_TYPE = "EGM036" Error
        "<os> has a <type>"
        "libvirt refuses a domain without it."
        "libvirt src/conf/domain_conf.c";
    MODEL = "EGM037" Error
        "The model of a memory device is known to libvirt"
        "libvirt refuses other models; they are case-sensitive."
        "libvirt virDomainMemoryModel, src/conf/domain_conf.h";
    SLOTS = "EGM038" Error
        "<maxMemory> has a slot for each dimm and nvdimm"
        "Otherwise libvirt finds no slot for the device, and refuses the domain."
        "libvirt src/qemu/qemu_domain_address.c";
    UNASSIGNED = "EGM039" Error
        "The GPU of an EGM device is assigned to the guest"
        "QEMU gets no device for a <hostdev> with <address type='unassigned'/>, and exits because the EGM device names it."
        "libvirt src/qemu/qemu_command.c";
    DRIVER_IOMMU = "EGM040" Error
        "An EGM device has no <driver iommu=..>"
        "libvirt's schema accepts it, but libvirt refuses it."
        "libvirt src/conf/domain_validate.c";
    HOLE = "EGM041" Error
        "<pcihole64> is in the controller of model pcie-root"
        "libvirt refuses it in other controllers, and a controller of model pci-root on the machine type `virt`. The value is a number, in KiB by default."
        "libvirt src/qemu/qemu_validate.c";
    USB = "EGM042" Error
        "A domain with USB devices has a USB controller"
        "The machine type `virt` has none by default, and libvirt refuses the domain."
        "libvirt src/conf/domain_validate.c";
    ENCODING = "EGM043" Error
        "A domain is written in UTF-8"
        "libvirt refuses UTF-16."
        "libvirt virXMLParseHelper, src/util/virxml.c";
    SCHEMA = "EGM090" Error
        "The domain conforms to libvirt's schema, extended for a Grace guest"
        "The schema is that of the installed libvirt, extended by schema/egm-domain.rng. libvirt silently drops some unknown elements and attributes, and refuses others."
        "libvirt, /usr/share/libvirt/schemas";
    UNSUPPORTED = "EGM091" Note
        "The libvirt of the schema supports every part of the domain"
        "The domain uses an element or attribute of a Grace guest that the schema does not define. A newer libvirt or NVIDIA's does; an older one refuses it or silently drops it. There is one note for each such part."
        "libvirt, /usr/share/libvirt/schemas";
    UNSUPPORTED_EGM = "EGM092" Warning
        "The libvirt of this host supports EGM"
        "The schema of the installed libvirt lacks the memory model egm, so `virsh define` refuses the domain. Only NVIDIA's libvirt has it so far."
        "libvirt, /usr/share/libvirt/schemas";
    RELEASED = "EGM093" Note
        "The libvirt dialect supports EGM"
        "--libvirt upstream selects released libvirt, which does not support EGM; only NVIDIA's libvirt does so far."
        "libvirt, to 12.8";
    SPELLING = "EGM094" Error
        "The PASID size of an SMMUv3 is spelled as in the libvirt dialect"
        "It is ssidSize='20' in NVIDIA's libvirt 12.4, pasid='on' in NVIDIA's libvirt 11.9, and ssidsize='20' in released libvirt. Each refuses the other spellings or silently drops them, which leaves the GPU without process address spaces. --libvirt selects the dialect."
        "libvirt virDomainIOMMUDefParseXML, src/conf/domain_conf.c";
    ACCELERATED = "EGM095" Error
        "An SMMUv3 with `ats`, `ril`, `oas`, `cmdqv` or a PASID size has accel='on'"
        "These are properties of the host's SMMU. libvirt refuses them without accel='on', whatever their values."
        "libvirt virDomainIOMMUDefValidate, src/conf/domain_validate.c";
    NOT_A_REGION = "EGM101" Error
        "The path is an EGM region of this host"
        "QEMU cannot open a missing device."
        "this host's /sys/class/egm";
    NO_GPU = "EGM102" Error
        "The GPU exists on this host"
        "libvirt cannot pass through a missing GPU."
        "this host's /sys/bus/pci/devices";
    OTHER_REGION = "EGM103" Error
        "The GPU belongs to the region"
        "A GPU has fast access only to the memory of its own socket, which the guest's driver assumes EGM to be."
        "this host's /sys/class/egm";
    BEYOND = "EGM104" Error
        "The devices of a region fit into it"
        "The driver maps no more than the size of the region."
        "this host's egm_size";
    OTHER_NAME = "EGM105" Error
        "The path is the region's own, not another name for it"
        "libvirt groups the devices of one region by the text of the path; links are for people only."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    PARTIAL = "EGM106" Warning
        "The guest has every GPU of each region that it uses"
        "No other VM can have the remaining memory of the region, or use the EGM of the other GPU."
        "NVIDIA, platform policy; KubeVirt";
    TRAY = "EGM107" Warning
        "On a Grace Blackwell host the guest has all EGM GPUs"
        "The GPUs of a tray form one NVLink domain, which is assigned to one guest."
        "NVIDIA, platform policy";
    HELD = "EGM108" Warning
        "The region is not used by another VM"
        "A region belongs to one virtual machine at a time. With older drivers two would share the same memory; with newer ones the second fails to start. An error with --start."
        "this host's /proc and libvirt";
    DRIVER = "EGM109" Warning
        "The GPU is bound to a driver for passthrough of Grace GPUs"
        "libvirt binds it when the guest starts, unless the host still uses it. With vfio-pci, the guest sees a GPU without coherent memory."
        "this host's /sys/bus/pci/devices";
    SUSPECTED = "EGM110" Warning
        "The region lists all of its GPUs"
        "Some drivers list only GPUs that are bound to them. Another GPU makes the shares smaller."
        "this host's /sys/bus/pci/devices";
    PINNING = "EGM111" Warning
        "The virtual CPUs of a cell run on the NUMA node of its memory"
        "A region is memory of one socket. Access from the CPUs of another is slower."
        "this host's /sys/devices/system/node";
    DEVICE_NODE = "EGM112" Error
        "The device node is the region's device"
        "QEMU opens the node by its path. A missing node makes it fail; that of another region gives the guest memory of the wrong socket."
        "this host's /dev";
    DEFINED = "EGM113" Warning
        "No other domain is defined with the region"
        "A region belongs to one virtual machine at a time, so only one of the domains can run."
        "this host's /etc/libvirt/qemu";
    RESERVED = "EGM114" Warning
        "The region is not reserved for another VM"
        "`egm-probe reserve` keeps a region for one virtual machine until the reservation is released or expires. An error with --start."
        "this host's /run/egm-probe/leases.json";
    UNKNOWN = "EGM115" Error
        "With --start, the holders of the region are known"
        "A region whose holders cannot all be determined may be in use. Checked only with --start."
        "this host's /proc, libvirt and /run/egm-probe/leases.json";
    INCOMPLETE = "EGM201" Warning
        "A domain with EGM is a complete Grace guest"
        "CUDA in the guest also needs an expander bus with an SMMUv3 and a root port for each GPU, iommufd, a large PCI hole and eight empty cells per GPU. This domain has none of them. `egm-probe stanza --complete` writes them. If a domain has some of them, the other rules from EGM202 on apply."
        "NVIDIA, platform policy; KubeVirt; kata";
    GPU_BUS = "EGM202" Error
        "A GPU with EGM is on a root port below an expander bus"
        "Only an expander bus has a NUMA cell and an SMMUv3 of its own, and only ports are plugged into it. A warning if libvirt chooses the address of the GPU or of its port, usually on the first bus."
        "QEMU pxb-pcie; libvirt src/conf/domain_addr.c; KubeVirt";
    GPU_SMMU = "EGM203" Error
        "An expander bus with a GPU has exactly one SMMUv3"
        "Without one, the guest has no address translation for the GPU. QEMU refuses a second one of the same bus. Several GPUs may share a bus and its SMMUv3."
        "QEMU hw/arm/smmu-common.c; kata; KubeVirt";
    SMMU_BUS = "EGM204" Error
        "<driver pciBus> of an SMMUv3 is the index of an expander bus or of the first bus"
        "It is the `index` of the controller in decimal, not its busNr. Without pciBus, the SMMUv3 is that of the whole machine, which cannot use the host's SMMU for GPUs."
        "libvirt src/qemu/qemu_validate.c; QEMU arm-smmuv3 `primary-bus`";
    BUS_NODE = "EGM205" Error
        "The <node> of an expander bus is the guest cell of its GPU's EGM"
        "The guest takes the NUMA node of the GPU from its bus. It is the cell with the CPUs and the memory, never one of the GPU's empty cells. A warning if <node> is missing: the guest then knows no node near to the GPU."
        "QEMU pxb-pcie `numa_node`; review of libvirt's EGM series";
    BUS_NUMBERS = "EGM206" Error
        "The bus numbers of the expander buses do not overlap"
        "An expander bus needs its own number, busNr, and one for each controller below it. The first bus needs 0 and one for each of its ports. Without a free number, the guest does not see the devices behind a port."
        "QEMU docs/pci_expander_bridge.txt; UEFI, numbering of PCI buses";
    CHASSIS = "EGM207" Error
        "Each port has a chassis number of its own"
        "QEMU refuses two ports with the same chassis and slot, and libvirt sets only the chassis: by default, to the index of the controller."
        "QEMU hw/pci/pcie_port.c; libvirt src/qemu/qemu_domain_address.c";
    PORT_DEVICE = "EGM208" Error
        "A port has one device, in slot 0 with function 0, and no two devices have the same address"
        "libvirt and QEMU refuse any other slot of a port, and an address that is in use. The functions of one device share a slot; without function 0, the guest does not look for the others."
        "libvirt src/conf/domain_addr.c; QEMU hw/pci/pci.c";
    PORT_INDEX = "EGM209" Error
        "The index of a controller is above that of the bus that it is on"
        "libvirt passes controllers to QEMU in the order of their indexes, and QEMU refuses a device on a bus that does not exist yet."
        "libvirt 12.8, src/qemu/qemu_command.c";
    IOMMUFD = "EGM210" Error
        "Devices below an SMMUv3 with accel='on' use iommufd"
        "QEMU uses the host's SMMU through iommufd, and refuses an assigned device without it."
        "QEMU hw/arm/smmuv3-accel.c";
    IOMMUFD_MIXED = "EGM211" Warning
        "All GPUs with EGM use iommufd, or none does"
        "Otherwise the memory of the guest is mapped once for iommufd and once for each VFIO container, and peer-to-peer access between the GPUs fails."
        "QEMU hw/vfio; KubeVirt";
    GPU_WITHOUT_CELLS = "EGM212" Error
        "A GPU with EGM has NUMA cells without CPUs: <acpi nodeset>"
        "The guest's driver adds the memory of the GPU to these cells. Without them, CUDA has no memory in the guest, which is a warning; cells with CPUs are an error."
        "QEMU acpi-generic-initiator; NVIDIA, platform policy";
    EIGHT_CELLS = "EGM213" Warning
        "A GPU has eight cells, after the cells with CPUs or memory"
        "A GPU is divided into up to eight parts (MIG), and each needs a cell. NVIDIA's guests have the cells with CPUs first."
        "NVIDIA, platform policy; KubeVirt; kata";
    DEVICE_CELLS = "EGM214" Error
        "Other assigned devices do not use the cells of a GPU"
        "<acpi nodeset> of a network card or a disk is a cell with CPUs, or missing. The cells of a GPU have only the memory of that GPU."
        "KubeVirt; kata; NVIDIA, platform policy";
    PCI_HOLE = "EGM215" Error
        "The PCI hole is large enough for the GPUs, and a power of two"
        "<pcihole64> of the first bus becomes QEMU's highmem-mmio-size: a power of two. NVIDIA's guests have 4 TiB, or 8 TiB for GB300, and each GPU needs 512 GiB or more. If it is too small, the firmware of the guest leaves GPUs without memory. More than 16 TiB is a warning."
        "QEMU hw/arm/virt.c; NVIDIA, platform policy; KubeVirt";
    CPU_MODE = "EGM216" Warning
        "The guest has the host's CPU: <cpu mode='host-passthrough'>"
        "KVM on aarch64 supports no other model, and the SMMUv3 and the GPU's driver depend on features of the Grace CPU."
        "QEMU docs/system/arm/virt.rst; NVIDIA, platform policy";
    GIC = "EGM217" Warning
        "The guest has version 3 of the interrupt controller: <gic version='3'/>"
        "GICv2 supports only eight virtual CPUs, and no message-signalled interrupts behind an SMMUv3. libvirt chooses the version of the host if <gic> is missing."
        "QEMU docs/system/arm/virt.rst; libvirt src/qemu/qemu_postparse.c";
    CMDQV = "EGM218" Warning
        "An SMMUv3 with cmdqv='on' is in a guest with contiguous memory"
        "The host's SMMU reads the command queues of the guest by host address. EGM and huge pages are contiguous; ordinary memory is not."
        "QEMU tegra241-cmdqv; kubevirt-aie";
    MATRIX = "EGM219" Warning
        "<distances> has every pair of cells, or no pair"
        "libvirt uses the distance of the opposite direction if one is missing. If both are missing, it writes 20, which rarely fits with the others."
        "libvirt virDomainNumaGetNodeDistance, src/conf/numa_conf.c";
    HARD_LIMIT = "EGM220" Warning
        "<hard_limit> is not less than the memory of the domain"
        "It limits the memory that QEMU uses and locks. Assigned devices lock all memory of the guest, so the guest does not start or is killed."
        "libvirt qemuDomainGetMemLockLimitBytes, src/qemu/qemu_domain.c";
    PINS = "EGM221" Warning
        "<vcpupin> is for a virtual CPU of the domain"
        "libvirt silently drops it otherwise."
        "libvirt virDomainVcpuPinDefParseXML, src/conf/domain_conf.c";
}
