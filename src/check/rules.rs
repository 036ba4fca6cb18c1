//! The rules that a domain with EGM is held against: one table, from which everything that names
//! a rule is made.

use serde::Serialize;

/// How bad it is to break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Against policy, or what only may fail.
    Warning,
    /// libvirt or QEMU refuses it, or the virtual machine gets wrong memory.
    Error,
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, `EGM001`: never given to another rule.
    pub code: &'static str,
    /// How bad it is to break it.
    pub severity: Severity,
    /// What it asks for, in a line.
    pub title: &'static str,
    /// Why.
    pub explanation: &'static str,
    /// Whose rule it is.
    pub source: &'static str,
}

macro_rules! rules {
    ($($name:ident = $code:literal $severity:ident $title:literal $explanation:literal $source:literal;)*) => {
        $(pub(super) const $name: Rule = Rule {
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
        "An EGM device names the region's device by its path"
        "<source><path> is the character device of a region, such as /dev/egm4. QEMU maps it as the guest's memory, and libvirt joins the devices of one region by this text."
        "libvirt RFC v3, src/conf/domain_validate.c";
    PCI_DEV = "EGM002" Error
        "An EGM device names its GPU by an alias"
        "<target><pciDev> is the alias of the <hostdev> through which the guest has the GPU."
        "libvirt RFC v3, src/conf/domain_validate.c";
    NO_HOSTDEV = "EGM003" Error
        "The alias in <pciDev> is that of a <hostdev> of the same domain"
        "QEMU looks the GPU up by this id when it builds the ACPI tables, and stops where there is none."
        "QEMU hw/acpi, acpi-egm-memory";
    NO_PCI = "EGM004" Error
        "The <hostdev> of an EGM device is a PCI function"
        "EGM belongs to a GPU, which is passed through by its PCI address."
        "QEMU hw/acpi, acpi-egm-memory";
    TWO_DEVICES = "EGM005" Error
        "A GPU has one EGM device"
        "The guest's driver looks for one EGM region a GPU; all of its memory goes into one device."
        "QEMU hw/acpi, acpi-egm-memory";
    ALIAS_TWICE = "EGM006" Error
        "No two devices have the same alias"
        "Aliases are the ids of QEMU's devices, and those must differ."
        "libvirt src/conf/domain_validate.c";
    ALIAS_LASTS = "EGM007" Warning
        "An alias that is named elsewhere begins with `ua-`"
        "libvirt drops every other alias without a word when a domain is defined, and makes up its own (hostdev0, hostdev1, ..) when it starts: it fits by luck only."
        "libvirt USER_ALIAS_PREFIX, src/conf/device_conf.c";
    NODE = "EGM008" Error
        "An EGM device backs a NUMA cell that the guest has"
        "<target><node> is the number of a <cell> of <cpu><numa>."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    CELL_PATHS = "EGM009" Error
        "The EGM devices of one guest cell have the same path"
        "A cell is backed by one memory backend, and each path has a backend of its own."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    PATH_CELLS = "EGM010" Error
        "A path backs one guest cell"
        "There is one memory backend a path, which cannot be the memory of two cells."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    CELL_SUM = "EGM011" Error
        "A cell's memory is the sum of its EGM devices"
        "EGM is the memory of the cell and not an addition to it."
        "libvirt RFC v3, src/qemu/qemu_command.c";
    TOTAL = "EGM012" Error
        "The domain's <memory> is the sum of its cells"
        "libvirt would correct it without a word, and QEMU stops where its nodes do not add up to its memory."
        "libvirt src/conf/numa_conf.c, QEMU hw/core/numa.c";
    ACCESS = "EGM013" Error
        "EGM is shared memory"
        "With private access the kernel gives the guest a copy of each page that it writes to: not EGM."
        "libvirt RFC v3; mmap(2), MAP_PRIVATE";
    SIZE = "EGM014" Error
        "The size of an EGM device is a number of whole MiB, and not 0"
        "libvirt rounds what is not whole MiB up, device by device and cell by cell, and then the sums are wrong."
        "libvirt qemuDomainAlignMemorySizes, src/qemu/qemu_domain.c";
    CELLS = "EGM015" Error
        "The guest's cells are numbered 0, 1, .. without a gap"
        "libvirt refuses others."
        "libvirt virDomainNumaDefParseXML, src/conf/numa_conf.c";
    MAX_MEMORY = "EGM016" Error
        "<maxMemory> is not less than <memory>"
        "libvirt refuses it."
        "libvirt src/conf/domain_postparse.c";
    VCPUS = "EGM017" Error
        "The cells' virtual CPUs are those of the domain, each in one cell"
        "libvirt refuses cells with more CPUs than <vcpu> has, or with one twice."
        "libvirt src/conf/domain_validate.c, src/conf/numa_conf.c";
    TOPOLOGY = "EGM018" Error
        "<topology> makes as many CPUs as <vcpu> says"
        "libvirt refuses others."
        "libvirt src/conf/domain_validate.c";
    GPU_CELLS = "EGM019" Error
        "The cells in a GPU's <acpi nodeset> exist, are empty and are its alone"
        "The guest puts the GPU's own memory there, in up to eight parts."
        "NVIDIA libvirt; QEMU acpi-generic-initiator";
    NOT_A_REGION = "EGM101" Error
        "The path is an EGM region of this host"
        "QEMU cannot open what is not there."
        "this host's /sys/class/egm";
    NO_GPU = "EGM102" Error
        "The GPU is one of this host"
        "libvirt cannot pass through what is not there."
        "this host's /sys/bus/pci/devices";
    OTHER_REGION = "EGM103" Error
        "The GPU belongs to the region"
        "A GPU reaches fast only the memory of its own socket; the guest's driver takes the memory for the GPU's own socket's."
        "this host's /sys/class/egm";
    BEYOND = "EGM104" Error
        "The devices of a region fit into it"
        "The driver maps no more than there is."
        "this host's egm_size";
}
