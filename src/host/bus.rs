//! The PCI bus: the functions of the host, and their links to regions.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::sysroot::Sysroot;
use crate::values::{PciAddress, RegionName};
use crate::warning::Warning;

/// Directory with a link to every PCI function, named by its address.
pub(super) const DEVICES: &str = "/sys/bus/pci/devices";

/// Maximum number of functions; large hosts have a few thousand.
const FUNCTIONS_LIMIT: usize = 65_536;

/// With more regions than this, listing a function's directory costs less than trying each region.
const FEW_REGIONS: usize = 8;

/// The functions of a host, read once and only if needed.
pub(super) struct PciBus<'a> {
    root: &'a Sysroot,
    regions: BTreeSet<RegionName>,
    functions: OnceCell<(Vec<PciAddress>, Option<Warning>)>,
    links: OnceCell<BTreeMap<RegionName, LinksBack>>,
}

/// The links to one region in the directories of PCI functions.
#[derive(Default)]
pub(super) struct LinksBack {
    /// The targets of the links, as written.
    pub(super) targets: Vec<(PciAddress, PathBuf)>,
    /// Links that could not be read.
    pub(super) warnings: Vec<Warning>,
}

impl<'a> PciBus<'a> {
    /// The bus of a host with these regions.
    pub(super) fn of(root: &'a Sysroot, regions: BTreeSet<RegionName>) -> Self {
        Self { root, regions, functions: OnceCell::new(), links: OnceCell::new() }
    }

    /// The link to a function.
    pub(super) fn path_of(address: PciAddress) -> PathBuf {
        Path::new(DEVICES).join(address.to_string())
    }

    /// Every function of the host, sorted.
    pub(super) fn functions(&self) -> &[PciAddress] {
        &self.list().0
    }

    /// The reason why they could not be listed; a host without PCI is not an error.
    pub(super) fn warning(&self) -> Option<Warning> {
        self.list().1.clone()
    }

    /// The links to a region in the directories of all functions.
    pub(super) fn links_back(&self, region: &RegionName) -> Option<&LinksBack> {
        self.links.get_or_init(|| self.find_links()).get(region)
    }

    fn list(&self) -> &(Vec<PciAddress>, Option<Warning>) {
        self.functions.get_or_init(|| match self.root.entries(DEVICES) {
            Ok(names) => {
                let addresses = names.iter().filter_map(|name| PciAddress::from_kernel_name(name));
                let mut addresses: Vec<_> = addresses.collect();
                addresses.sort_unstable();
                let warning = (addresses.len() > FUNCTIONS_LIMIT).then_some(Warning::TooMany {
                    what: "PCI functions",
                    found: addresses.len(),
                    limit: FUNCTIONS_LIMIT,
                });
                addresses.truncate(FUNCTIONS_LIMIT);
                (addresses, warning)
            }
            Err(error) => {
                let warning = (!error.is_absent()).then(|| Warning::unreadable(&error));
                (Vec::new(), warning)
            }
        })
    }

    fn find_links(&self) -> BTreeMap<RegionName, LinksBack> {
        let mut found: BTreeMap<RegionName, LinksBack> = BTreeMap::new();
        for address in self.functions() {
            let directory = Self::path_of(*address);
            let listed = if self.regions.len() <= FEW_REGIONS {
                self.regions.clone()
            } else {
                let entries = self.root.entries(&directory).unwrap_or_default();
                entries.iter().filter_map(|entry| entry.parse().ok()).collect()
            };
            for region in listed {
                match self.root.read_link(directory.join(region.as_str())) {
                    Ok(target) => found.entry(region).or_default().targets.push((*address, target)),
                    Err(error) if error.is_absent() => {}
                    Err(error) => {
                        found.entry(region).or_default().warnings.push(Warning::unreadable(&error));
                    }
                }
            }
        }
        found
    }
}
