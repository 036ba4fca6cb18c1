//! Selects the parts of a host to read.

bitflags::bitflags! {
    /// The parts of a host that a caller needs. Other parts are not read, and are `None` or empty
    /// in the result. Names and sizes of the regions are always read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Needs: u32 {
        /// The addresses of each region's GPUs, and the layout of the driver's sysfs.
        const GPUS = 1;
        /// Details of the GPUs: IDs, class, driver, IOMMU group, NUMA node.
        const GPU_DETAILS = 1 << 1 | Self::GPUS.bits();
        /// The GPUs' names.
        const GPU_NAMES = 1 << 2 | Self::GPU_DETAILS.bits();
        /// The regions' host NUMA nodes.
        const NUMA = 1 << 3 | Self::GPUS.bits();
        /// CPUs, memory and distances of every NUMA node of the host.
        const NUMA_NODES = 1 << 4;
        /// Mode and owner of the device nodes.
        const DEVICE_NODE = 1 << 5;
        /// The other names that udev gave to the device nodes.
        const DEVICE_LINKS = 1 << 6;
        /// The holders of the regions.
        const CLAIMS = 1 << 8;
        /// The GPUs' SMMUs, memory BARs and PCIe links.
        const GPU_PCI = 1 << 9 | Self::GPU_DETAILS.bits();
        /// The NUMA nodes of the GPUs' memory, for which every GPU of the host is identified.
        const OWN_NODES = 1 << 10 | Self::GPU_DETAILS.bits();
        /// Whether the host has `/dev/iommu`.
        const IOMMUFD = 1 << 11;
        /// The GPUs' VFIO devices.
        const VFIO = 1 << 12 | Self::GPU_DETAILS.bits();
        /// The GPUs that no region lists, and which of them may belong to a region.
        const OTHER_GPUS = 1 << 7 | Self::GPU_DETAILS.bits() | Self::NUMA.bits();
    }
}
