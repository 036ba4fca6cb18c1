//! Any PCI function of a host, such as a NIC.

use super::bus::PciBus;
use super::gpu::Gpu;
use crate::sysroot::Sysroot;
use crate::values::PciAddress;

impl Gpu {
    /// Any PCI function of a host, GPU or not: its driver, SMMU, BARs and NUMA node. `None` if the
    /// host does not have it. What cannot be read is unknown, as in a capture of GPUs only.
    #[must_use]
    pub fn function(root: &Sysroot, address: PciAddress) -> Option<Self> {
        let bus = PciBus::of(root, std::collections::BTreeSet::new());
        bus.functions().binary_search(&address).ok()?;
        let mut function = Self::at(address, PciBus::path_of(address));
        function.read_details(root);
        function.read_pci(root);
        function.read_node(root, |_| false);
        Some(function)
    }
}
