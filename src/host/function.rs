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

    /// Reads the network controllers of a host that is being recorded: they can be assigned to a
    /// guest as well.
    pub(crate) fn record_network_controllers(recording: &Sysroot) {
        let bus = PciBus::of(recording, std::collections::BTreeSet::new());
        for address in bus.functions() {
            let class = recording.read_text(PciBus::path_of(*address).join("class"));
            // The class of network controllers is 02 (PCI Code and ID Assignment Specification).
            if class.is_ok_and(|class| class.starts_with("0x02")) {
                let _ = Self::function(recording, *address);
            }
        }
    }
}
