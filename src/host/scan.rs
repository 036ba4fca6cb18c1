//! Reads a whole host, each file once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::accounts::Accounts;
use super::bus::PciBus;
use super::device_links;
use super::device_node::Nodes;
use super::gpu::{Gpu, GpuNode, find_others};
use super::iommufd;
use super::needs::Needs;
use super::numa::NumaTopology;
use super::numa_reader::NumaReader;
use super::own_nodes;
use super::placement::{place_gpu, place_region};
use super::region::{self, CLASS, Reading, Region};
use crate::host::pci_names::{self, DeviceId};
use crate::sysroot::Sysroot;
use crate::values::{PciAddress, RegionName};
use crate::warning::Warning;
use std::thread::sleep;

/// How often an incomplete region of the running host is read, and the pause in between. Drivers
/// were observed to take 1 to 17 ms from a region's first file to its last.
const READS: u32 = 5;

/// The driver's module.
const MODULE: &str = "/sys/module/nvgrace_egm";

const PAUSE: Duration = Duration::from_millis(10);

/// Maximum number of regions: no driver has more minor numbers.
const REGIONS_LIMIT: usize = 256;

/// A host, with the requested parts.
///
/// ```
/// use egm_probe::host::{Host, Needs};
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::capture("tests/fixtures/gb200-gpu-list/host.tar.gz".as_ref())?;
/// let host = Host::read(&root, Needs::NUMA);
/// let egm5 = &host.regions[1];
/// assert_eq!(egm5.name.as_str(), "egm5");
/// assert_eq!(egm5.numa_node.map(|node| node.0), Some(1));
/// assert_eq!(egm5.gpus[0].address.to_string(), "0018:01:00.0");
/// # Ok::<(), egm_probe::sysroot::OpenError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Host {
    /// Its EGM regions, in natural order of their names.
    pub regions: Vec<Region>,
    /// Its NVIDIA GPUs that no region lists, by address.
    pub other_gpus: Vec<Gpu>,
    /// Its NUMA nodes.
    pub topology: NumaTopology,
    /// Whether it has the device `/dev/iommu`; `None` if its device nodes are unknown, as in a capture
    /// by an older version.
    pub iommufd: Option<bool>,
    /// The state of the driver's class.
    pub class: Class,
    /// Whether the driver was being loaded or removed at the end: regions may be missing.
    pub is_changing: bool,
    /// Warnings about the host as a whole.
    pub warnings: Vec<Warning>,
}

/// The state of the directory in which the driver shows its regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// It does not exist: the driver is not loaded.
    #[default]
    Absent,
    /// It does not exist, but the driver is loaded: it found no EGM.
    NoEgm,
    /// It cannot be read, or `/sys` does not exist.
    Unreadable,
    /// It was read, and may be empty.
    Listed,
}

/// The state of the driver's module: `coming` until the last link of the last region exists, then
/// `live`, and `going` from the first step of its removal.
fn module_state(root: &Sysroot) -> Option<String> {
    let state = root.read_text(format!("{MODULE}/initstate")).ok()?;
    Some(state.trim_end().to_owned())
}

impl Host {
    /// Reads a host. A problem with one region or attribute becomes a warning and does not affect
    /// the rest.
    #[must_use]
    pub fn read(root: &Sysroot, needs: Needs) -> Self {
        Self::read_with(root, needs, &Accounts::of(root))
    }

    pub(crate) fn read_with(root: &Sysroot, needs: Needs, accounts: &Accounts<'_>) -> Self {
        let mut host = Self::default();
        let nodes = Nodes::of(root, accounts).filter(|_| needs.contains(Needs::DEVICE_NODE));
        let bus = host.read_regions(root, needs, nodes.as_ref());
        let mut numa = NumaReader::of(root);
        let infers_gpus = needs.contains(Needs::GPUS) && host.lists_no_gpus_of_a_node();
        if needs.contains(Needs::NUMA) || needs.contains(Needs::NUMA_NODES) || infers_gpus {
            numa.read_outline();
        }
        if needs.contains(Needs::NUMA_NODES) {
            numa.read_nodes();
        }
        host.read_gpus(root, needs, &mut numa);
        host.read_other_gpus(root, needs, infers_gpus, &bus, &mut numa);
        // Every region whose GPUs were read has used the bus, as has the search for other GPUs.
        let used_bus = needs.contains(Needs::GPUS) && !host.regions.is_empty();
        if used_bus || needs.contains(Needs::OTHER_GPUS) {
            host.warnings.extend(bus.warning());
        }
        host.topology = numa.topology;
        host.warnings.append(&mut numa.warnings);
        if needs.contains(Needs::GPU_NAMES) {
            host.name_gpus(root);
        }
        host.read_device_nodes(root, needs, nodes.as_ref());
        if needs.contains(Needs::IOMMUFD) {
            host.iommufd = iommufd::exists(root);
        }
        host
    }

    /// The region with this name.
    #[must_use]
    pub fn region(&self, name: &RegionName) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == *name)
    }

    /// The GPU with this address, and the region that lists it.
    #[must_use]
    pub fn gpu(&self, address: PciAddress) -> Option<(&Gpu, Option<&Region>)> {
        self.gpus().find(|(gpu, _)| gpu.address == address)
    }

    /// All known GPUs, each with the region that lists it; GPUs of regions come first.
    pub fn gpus(&self) -> impl Iterator<Item = (&Gpu, Option<&Region>)> {
        let of_regions = self
            .regions
            .iter()
            .flat_map(|region| region.gpus.iter().map(move |gpu| (gpu, Some(region))));
        of_regions.chain(self.other_gpus.iter().map(|gpu| (gpu, None)))
    }

    /// Reads the regions. On the running host, incomplete regions are read again for a while: a
    /// driver creates and removes a region file by file, and no event announces the end. The device
    /// node is the first to go.
    fn read_regions<'a>(
        &mut self,
        root: &'a Sysroot,
        needs: Needs,
        nodes: Option<&Nodes<'_>>,
    ) -> PciBus<'a> {
        let is_whole = |reading: &Reading| {
            let lacks_node = || nodes.is_some_and(|nodes| nodes.lacks(&reading.region.device));
            !(reading.incomplete || root.may_change() && lacks_node())
        };
        let most = if root.may_change() { READS } else { 1 };
        let mut known: BTreeMap<RegionName, Reading> = BTreeMap::new();
        let mut warnings = Vec::new();
        let mut read = 0;
        let bus = loop {
            read += 1;
            warnings.clear();
            // The regions are whole only if the module was live before and after they were read.
            let before = module_state(root);
            let names = self.region_names(root, &mut warnings);
            let bus = PciBus::of(root, names.clone());
            known.retain(|name, reading| names.contains(name) && is_whole(reading));
            for name in names {
                if !known.contains_key(&name)
                    && let Some(reading) = region::read(root, &bus, &name, needs)
                {
                    known.insert(name, reading);
                }
            }
            let after = module_state(root);
            self.is_changing = before != after || after.is_some_and(|state| state != "live");
            let are_whole = known.values().all(is_whole) && !self.is_changing;
            if read == most || are_whole {
                break bus;
            }
            if self.is_changing {
                // A region that had a GPU may get another one.
                known.clear();
            }
            sleep(PAUSE);
        };
        self.warnings.append(&mut warnings);
        if self.is_changing {
            self.warnings.push(Warning::DriverChanging);
        }
        let was_live = root.may_change() || root.recorded().is_some_and(|recorded| recorded.live);
        for mut reading in known.into_values() {
            if reading.incomplete && was_live {
                reading.region.warnings.push(Warning::Incomplete { reads: READS });
            }
            self.regions.push(reading.region);
        }
        self.report_shared_gpus();
        bus
    }

    /// The regions in the class; other entries are ignored.
    fn region_names(
        &mut self,
        root: &Sysroot,
        warnings: &mut Vec<Warning>,
    ) -> BTreeSet<RegionName> {
        let entries = match root.entries(CLASS) {
            Ok(entries) => {
                self.class = Class::Listed;
                entries
            }
            Err(error) if error.is_absent() => {
                // A missing /sys means that this is not a host, or that it is hidden.
                self.class = match root.stat("/sys") {
                    Err(error) if error.is_absent() => {
                        warnings.push(Warning::unreadable(&error));
                        Class::Unreadable
                    }
                    _ if root.stat(MODULE).is_ok() => Class::NoEgm,
                    _ => Class::Absent,
                };
                Vec::new()
            }
            Err(error) => {
                self.class = Class::Unreadable;
                warnings.push(Warning::unreadable(&error));
                Vec::new()
            }
        };
        let names: BTreeSet<_> = entries.iter().filter_map(|entry| entry.parse().ok()).collect();
        if names.len() > REGIONS_LIMIT {
            let (what, found) = ("regions", names.len());
            warnings.push(Warning::TooMany { what, found, limit: REGIONS_LIMIT });
        }
        names.into_iter().take(REGIONS_LIMIT).collect()
    }

    /// Reads each GPU of the regions once, even if several regions list it, and derives the
    /// regions' nodes.
    fn read_gpus(&mut self, root: &Sysroot, needs: Needs, numa: &mut NumaReader<'_>) {
        let mut read: BTreeMap<PciAddress, Gpu> = BTreeMap::new();
        for region in &mut self.regions {
            for gpu in &mut region.gpus {
                let known = read.entry(gpu.address).or_insert_with(|| {
                    if needs.contains(Needs::GPU_DETAILS) {
                        gpu.read_details(root);
                    }
                    if needs.contains(Needs::GPU_PCI) {
                        gpu.read_pci(root);
                    }
                    if needs.contains(Needs::VFIO) {
                        gpu.read_vfio(root);
                    }
                    if needs.contains(Needs::NUMA) || needs.contains(Needs::GPU_DETAILS) {
                        read_and_place(gpu, root, needs, numa);
                    }
                    gpu.clone()
                });
                gpu.clone_from(known);
            }
            place_region(region);
        }
    }

    /// Searches the bus for the GPUs that no region lists, if they are needed, must be counted, or may
    /// be those of a region that lists none.
    fn read_other_gpus(
        &mut self,
        root: &Sysroot,
        needs: Needs,
        infers_gpus: bool,
        bus: &PciBus<'_>,
        numa: &mut NumaReader<'_>,
    ) {
        let are_needed = needs.contains(Needs::OTHER_GPUS) || infers_gpus;
        let has_grace = || self.gpus().any(|(gpu, _)| gpu.is_grace() == Some(true));
        let are_counted = needs.contains(Needs::OWN_NODES) && has_grace();
        if !are_needed && !are_counted {
            return;
        }
        let known = self.gpus().map(|(gpu, _)| gpu.address).collect();
        let mut others = find_others(root, bus, &known);
        if are_needed {
            self.other_gpus = std::mem::take(&mut others.gpus);
            for gpu in &mut self.other_gpus {
                if needs.contains(Needs::GPU_PCI) {
                    gpu.read_pci(root);
                }
                read_and_place(gpu, root, Needs::all(), numa);
            }
        }
        if infers_gpus {
            self.infer_gpus();
        }
        if needs.contains(Needs::OWN_NODES) {
            let known: Vec<_> = self.gpus().map(|(gpu, _)| gpu).collect();
            let nodes = own_nodes::read(&known, &others, numa).unwrap_or_default();
            for gpu in self.gpus_mut() {
                gpu.own_nodes = nodes.get(&gpu.address).cloned();
            }
        }
        if needs.contains(Needs::OTHER_GPUS) {
            self.suspect_peers();
        } else {
            self.other_gpus.clear();
        }
    }

    fn gpus_mut(&mut self) -> impl Iterator<Item = &mut Gpu> {
        self.regions.iter_mut().flat_map(|region| &mut region.gpus).chain(&mut self.other_gpus)
    }

    fn name_gpus(&mut self, root: &Sysroot) {
        let wanted = self.gpus().filter_map(|(gpu, _)| id(gpu)).collect();
        let names = pci_names::read(root, wanted);
        for gpu in self.gpus_mut() {
            gpu.name = id(gpu).and_then(|id| names.get(&id).cloned());
        }
    }

    /// Whether everything was read, and nothing of it will change without an event.
    #[cfg(feature = "cli")]
    pub(crate) fn is_whole(&self) -> bool {
        let mut regions = self.regions.iter().flat_map(Region::all_warnings);
        self.warnings.is_empty() && regions.next().is_none() && !self.is_changing
    }

    /// Reads mode and owner of the device nodes again.
    #[cfg(feature = "cli")]
    pub(crate) fn read_permissions(&mut self, root: &Sysroot, accounts: &Accounts<'_>) {
        let Some(nodes) = Nodes::of(root, accounts) else { return };
        for region in &mut self.regions {
            region.device.owner = None;
            nodes.look_at(&mut region.device, &mut region.warnings);
        }
    }

    fn read_device_nodes(&mut self, root: &Sysroot, needs: Needs, nodes: Option<&Nodes<'_>>) {
        if let Some(nodes) = nodes {
            for region in &mut self.regions {
                nodes.look_at(&mut region.device, &mut region.warnings);
            }
        }
        if needs.contains(Needs::DEVICE_LINKS) {
            for region in &mut self.regions {
                region.device.links = device_links::read(root, &region.path, region.device.number);
            }
        }
    }
}

/// Reads a GPU's NUMA node, and determines its host node if requested.
fn read_and_place(gpu: &mut Gpu, root: &Sysroot, needs: Needs, numa: &mut NumaReader<'_>) {
    if !needs.contains(Needs::NUMA) {
        gpu.read_node(root, |_| false);
        return;
    }
    // The CPUs are needed if the node is not sufficient, or if everything is shown.
    let suffices =
        |node: GpuNode| node.id().and_then(|id| numa.topology.has_cpus(id)) == Some(true);
    gpu.read_node(root, |node| needs.contains(Needs::NUMA_NODES) || !suffices(node));
    numa.read_for(gpu);
    place_gpu(gpu, &numa.topology);
}

fn id(gpu: &Gpu) -> Option<DeviceId> {
    Some((gpu.vendor_id?, gpu.device_id?))
}
