//! Any PCI function of a host, such as a NIC.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::bus::{DEVICES, PciBus};
use super::gpu::Gpu;
use super::sysfs::DeviceDir;
use crate::sysroot::Sysroot;
use crate::values::PciAddress;

impl Gpu {
    /// Any PCI function of a host, GPU or not: its driver, SMMU, BARs and NUMA node. `None` if the
    /// host does not have it. What cannot be read is unknown, as in a capture of GPUs only.
    #[must_use]
    pub fn function(root: &Sysroot, address: PciAddress) -> Option<Self> {
        let bus = PciBus::of(root, BTreeSet::new());
        bus.functions().binary_search(&address).ok()?;
        let mut function = Self::at(address, PciBus::path_of(address));
        function.read_details(root);
        function.read_pci(root);
        function.read_node(root, |_| false);
        Some(function)
    }

    /// Reads the network controllers of a host that is being recorded: they can be assigned to a
    /// guest as well. What was recorded before is not read again.
    pub(crate) fn record_network_controllers(recording: &Sysroot) {
        let (names, known) = {
            let Some(log) = recording.log() else { return };
            let names = log.listings.get(Path::new(DEVICES)).map(|(_, names)| names.clone());
            let known: BTreeSet<PathBuf> = log.files.keys().cloned().collect();
            (names.unwrap_or_default(), known)
        };
        for address in names.iter().filter_map(|name| PciAddress::from_kernel_name(name)) {
            let mut function = Self::at(address, PciBus::path_of(address));
            let class = function.path.join("class");
            // The class of network controllers is 02 (PCI Code and ID Assignment Specification).
            let is_network = !known.contains(&class)
                && recording.read_text(&class).is_ok_and(|class| class.starts_with("0x02"));
            if is_network {
                let dir = DeviceDir::new(recording, &function.path);
                function.read_rest(&dir);
                function.read_pci(recording);
                function.read_node(recording, |_| false);
            }
        }
    }
}
