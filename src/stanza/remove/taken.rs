//! The parts that are taken out of a domain: devices, and the cells that only they need.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roxmltree::NodeId;

use crate::domain::{Cell, Domain, EgmDevice, Hostdev, Maybe, PciController};
use crate::plan::orphans;
use crate::values::{Bytes, IdList, PciAddress, RegionName};

/// A selection of devices to take out of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct Removal {
    /// All EGM devices.
    pub all: bool,
    /// The EGM devices of these GPUs.
    pub gpus: Vec<PciAddress>,
    /// The EGM devices of these regions.
    pub regions: Vec<RegionName>,
    /// Other functions that are assigned to the domain, such as NICs.
    pub devices: Vec<PciAddress>,
    /// Also the `<hostdev>` of each GPU and its cells, and sets of eight empty cells that nothing names
    /// if the GPUs that are left have cells.
    pub hostdev: bool,
    /// Also the PCI buses, ports and SMMUs that no other device uses.
    pub pci: bool,
    /// Also the pinning of the virtual CPUs in cells that get no EGM memory any more.
    pub pinning: bool,
    /// The memory of the domain if no EGM device is left.
    pub memory: Option<Bytes>,
}

/// The devices that are taken out, and those that are left.
pub(super) struct Taken<'a> {
    pub(super) devices: Vec<&'a EgmDevice>,
    pub(super) kept: Vec<&'a EgmDevice>,
    pub(super) hostdevs: Vec<&'a Hostdev>,
    pub(super) hostdev_nodes: HashSet<NodeId>,
    /// How many of the `<hostdev>` devices were named themselves.
    pub(super) others: usize,
}

impl<'a> Taken<'a> {
    pub(super) fn of(domain: &'a Domain, removal: &Removal) -> Self {
        let hostdev_of = domain.find_hostdev();
        let is_taken = |device: &&EgmDevice| {
            let of_region = device.path.as_ref().is_some_and(|path| {
                let name = path.text.rsplit('/').next().unwrap_or_default();
                removal.regions.iter().any(|region| region.as_str() == name)
            });
            let gpu = hostdev_of(device).and_then(Hostdev::pci);
            let of_gpu = gpu.is_some_and(|gpu| removal.gpus.contains(&gpu));
            removal.all || of_region || of_gpu
        };
        let (devices, kept): (Vec<_>, Vec<_>) = domain.egm.iter().partition(is_taken);
        let names = |devices: &[&'a EgmDevice]| -> BTreeSet<&'a str> {
            devices.iter().filter_map(|it| Some(it.pci_dev.as_ref()?.text.as_str())).collect()
        };
        let (used, needed) = (names(&devices), names(&kept));
        let is_other = |hostdev: &&Hostdev| {
            hostdev.pci().is_some_and(|address| removal.devices.contains(&address))
        };
        let is_gpu = |hostdev: &&Hostdev| {
            let alias = hostdev.alias.as_ref().map(|alias| alias.text.as_str());
            removal.hostdev && alias.is_some_and(|it| used.contains(it) && !needed.contains(it))
        };
        let of_domain = || domain.hostdevs.iter();
        let hostdevs: Vec<_> = of_domain().filter(|it| is_gpu(it) || is_other(it)).collect();
        Self {
            others: of_domain().filter(is_other).count(),
            hostdev_nodes: hostdevs.iter().map(|hostdev| hostdev.node).collect(),
            hostdevs,
            devices,
            kept,
        }
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let devices = self.devices.iter().map(|device| device.node);
        devices.chain(self.hostdev_nodes.iter().copied()).collect()
    }

    /// The GPUs of the devices that are left.
    pub(super) fn kept_gpus(&self, domain: &Domain) -> Vec<PciAddress> {
        self.kept
            .iter()
            .copied()
            .filter_map(domain.find_hostdev())
            .filter_map(Hostdev::pci)
            .collect()
    }

    /// Whether the GPU of each device that is left has cells of its own, so that no others are for it.
    fn all_kept_have_cells(&self, domain: &Domain) -> bool {
        let hostdev_of = domain.find_hostdev();
        self.kept.iter().all(|it| hostdev_of(it).is_some_and(|hostdev| hostdev.cells.is_some()))
    }

    pub(super) fn has_hostdev(&self, hostdev: &Hostdev) -> bool {
        self.hostdev_nodes.contains(&hostdev.node)
    }
}

/// The cells after the removal.
pub(super) struct Cells {
    /// The cells that go.
    pub(super) gone: BTreeSet<u32>,
    /// The new number of each cell that stays.
    pub(super) numbers: BTreeMap<u32, u32>,
    /// The cells that stay without their EGM memory.
    pub(super) emptied: Vec<u32>,
}

impl Cells {
    pub(super) fn of(
        domain: &Domain,
        removal: &Removal,
        taken: &Taken<'_>,
        controllers: &HashSet<NodeId>,
        of_other_memory: impl IntoIterator<Item = u32>,
    ) -> Self {
        let cells_of = |hostdev: &Hostdev| -> BTreeSet<u32> {
            hostdev.cells.known().iter().flat_map(IdList::iter).take(domain.cells.len()).collect()
        };
        let place_of = |device: &&EgmDevice| device.cell.known();
        let kept: BTreeSet<_> = taken.kept.iter().filter_map(place_of).collect();
        let of_others = domain.hostdevs.iter().filter(|hostdev| !taken.has_hostdev(hostdev));
        let mut used: BTreeSet<_> =
            of_others.flat_map(cells_of).chain(kept.iter().copied()).collect();
        used.extend(of_other_memory);
        let stays = |it: &&PciController| it.node.is_some_and(|node| !controllers.contains(&node));
        let buses = domain.pci_controllers.iter().filter(stays);
        used.extend(buses.filter_map(|controller| controller.target.node.known()));
        let is_unused = |id: &u32| !used.contains(id);
        let mut of_gpus: BTreeSet<_> = taken.hostdevs.iter().copied().flat_map(cells_of).collect();
        if removal.hostdev && taken.all_kept_have_cells(domain) {
            let orphans = orphans::sets(&orphans::of(domain), orphans::GPU_CELLS);
            of_gpus.extend(orphans.into_iter().flatten());
        }
        let empty =
            domain.cells.iter().filter(|cell| cell.is_empty()).filter_map(|cell| cell.id.value);
        let mut gone: BTreeSet<_> =
            empty.filter(|id| of_gpus.contains(id)).filter(is_unused).collect();
        let emptied: BTreeSet<_> = taken.devices.iter().filter_map(place_of).collect();
        let emptied = emptied.into_iter().filter(|id| !kept.contains(id));
        let (unused, mut emptied): (Vec<_>, Vec<_>) = emptied.partition(is_unused);
        let ids: Vec<_> = domain.cells.iter().filter_map(|cell| cell.id.value).collect();
        let would_go = |id: &u32| gone.contains(id) || unused.contains(id);
        let has_others = ids.iter().any(|id| !would_go(id));
        if has_others && taken.kept.is_empty() {
            // They get the domain's memory.
            emptied.extend(unused);
        } else {
            gone.extend(unused);
        }
        let stay = ids.iter().copied().filter(|id| !gone.contains(id)).collect::<BTreeSet<_>>();
        if taken.kept.is_empty() {
            // Also those that were emptied before.
            let lacks = |cell: &&Cell| cell.cpus.is_some() && cell.memory.known() == Some(Bytes(0));
            let lacking = domain.cells.iter().filter(lacks).filter_map(|cell| cell.id.value);
            emptied.extend(lacking.filter(|id| stay.contains(id)));
            emptied.sort_unstable();
            emptied.dedup();
        }
        Self { numbers: stay.into_iter().zip(0..).collect(), gone, emptied }
    }
}
