//! How much of a host is read.

bitflags::bitflags! {
    /// What a caller wants to know of a host. What is not asked for is not read, and is `None` or
    /// empty in the answer. Names and sizes of the regions are always read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Needs: u32 {
        /// The addresses of each region's GPUs, and the shape of the driver's sysfs.
        const GPUS = 1;
        /// What the GPUs are: ids, class, driver, IOMMU group, NUMA node.
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
        /// Who holds the regions.
        const CLAIMS = 1 << 8;
        /// The GPUs that no region names, and which of them a region may have all the same.
        const OTHER_GPUS = 1 << 7 | Self::GPU_DETAILS.bits() | Self::NUMA.bits();
    }
}
