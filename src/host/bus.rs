//! The PCI bus: which functions the host has.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use crate::pci::PciAddress;
use crate::sysroot::Sysroot;
use crate::warning::Warning;

/// Where every PCI function has a link by its address.
const DEVICES: &str = "/sys/bus/pci/devices";

/// The functions of a host, listed once and only when they are asked for.
pub(super) struct PciBus<'a> {
    root: &'a Sysroot,
    functions: OnceCell<(Vec<PciAddress>, Option<Warning>)>,
}

impl<'a> PciBus<'a> {
    pub(super) fn of(root: &'a Sysroot) -> Self {
        Self { root, functions: OnceCell::new() }
    }

    /// The link by which a function is found.
    pub(super) fn path_of(address: PciAddress) -> PathBuf {
        Path::new(DEVICES).join(address.to_string())
    }

    /// Every function of the host, sorted.
    pub(super) fn functions(&self) -> &[PciAddress] {
        &self.list().0
    }

    /// Why they could not be listed; a host without PCI is none.
    pub(super) fn warning(&self) -> Option<Warning> {
        self.list().1.clone()
    }

    fn list(&self) -> &(Vec<PciAddress>, Option<Warning>) {
        self.functions.get_or_init(|| match self.root.entries(DEVICES) {
            Ok(names) => {
                let addresses = names.iter().filter_map(|name| PciAddress::from_kernel_name(name));
                let mut addresses: Vec<_> = addresses.collect();
                addresses.sort_unstable();
                (addresses, None)
            }
            Err(error) => {
                let warning = (!error.is_absent()).then(|| Warning::unreadable(&error));
                (Vec::new(), warning)
            }
        })
    }
}
