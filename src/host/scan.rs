//! The reading of a whole host, in the one order that reads every file once.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::bus::PciBus;
use super::device_node::Nodes;
use super::gpu::{Gpu, find_others};
use super::needs::Needs;
use super::numa::Topology;
use super::placement::place;
use super::region::{self, CLASS, Reading, Region, RegionName};
use super::shape::Shape;
use crate::names::{self, DeviceId};
use crate::pci::PciAddress;
use crate::sysroot::Sysroot;
use crate::udev_links;
use crate::warning::Warning;

/// How often an incomplete region of the running host is read, and the pause between. Drivers
/// were seen to take 1 to 17 ms from a region's first file to its last.
const READS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// A host, as far as it was asked for.
///
/// ```
/// use egm_probe::host::{Host, Needs};
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::from_tar(&include_bytes!("../../tests/fixtures/gb200-gpu-list/host.tar.gz")[..])?;
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
    /// Its NVIDIA GPUs that no region names, by address.
    pub other_gpus: Vec<Gpu>,
    /// Its NUMA nodes.
    pub topology: Topology,
    /// Whether the driver's class is there at all.
    pub has_class: bool,
    /// What is odd about the host as a whole.
    pub warnings: Vec<Warning>,
}

impl Host {
    /// Reads a host. Whatever is wrong with one region or attribute becomes a warning, and the
    /// rest is there.
    #[must_use]
    pub fn read(root: &Sysroot, needs: Needs) -> Self {
        let mut host = Self::default();
        let bus = host.read_regions(root, needs);
        if needs.contains(Needs::NUMA) || needs.contains(Needs::NUMA_NODES) {
            host.topology = Topology::read_outline(root, &mut host.warnings);
        }
        if needs.contains(Needs::NUMA_NODES) {
            host.topology.read_nodes(root, &mut host.warnings);
        }
        if needs.contains(Needs::NUMA) || needs.contains(Needs::GPU_DETAILS) {
            host.read_gpus(root, needs);
        }
        if needs.contains(Needs::NUMA) {
            host.place_regions(root);
        }
        if needs.contains(Needs::OTHER_GPUS) {
            host.find_other_gpus(root, &bus);
        }
        if needs.contains(Needs::GPU_NAMES) {
            host.name_gpus(root);
        }
        host.read_device_nodes(root, needs);
        host
    }

    /// The region of this name.
    #[must_use]
    pub fn region(&self, name: &RegionName) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == *name)
    }

    /// The GPU of this address, and the region that names it.
    #[must_use]
    pub fn gpu(&self, address: PciAddress) -> Option<(&Gpu, Option<&Region>)> {
        let of_regions = self
            .regions
            .iter()
            .flat_map(|region| region.gpus.iter().map(move |gpu| (gpu, Some(region))));
        let mut gpus = of_regions.chain(self.other_gpus.iter().map(|gpu| (gpu, None)));
        gpus.find(|(gpu, _)| gpu.address == address)
    }

    /// The addresses of all GPUs that are known, those of regions first.
    pub fn gpu_addresses(&self) -> impl Iterator<Item = &PciAddress> {
        let gpus = self.regions.iter().flat_map(|region| &region.gpus).chain(&self.other_gpus);
        gpus.map(|gpu| &gpu.address)
    }

    /// Reads the regions; on the running host those that are incomplete again for a while, since
    /// a driver makes and removes a region file by file and no event tells when it is done.
    fn read_regions<'a>(&mut self, root: &'a Sysroot, needs: Needs) -> PciBus<'a> {
        let most = if root.is_host() { READS } else { 1 };
        let mut known: BTreeMap<RegionName, Reading> = BTreeMap::new();
        let mut warnings = Vec::new();
        let mut bus = PciBus::of(root);
        for read in 1..=most {
            warnings.clear();
            let names = self.region_names(root, &mut warnings);
            known.retain(|name, reading| !reading.incomplete && names.contains(name));
            for name in names {
                if !known.contains_key(&name)
                    && let Some(reading) = region::read(root, &bus, &name, needs)
                {
                    known.insert(name, reading);
                }
            }
            if known.values().all(|reading| !reading.incomplete) {
                break;
            }
            if read < most {
                thread::sleep(PAUSE);
                bus = PciBus::of(root);
            }
        }
        self.warnings.append(&mut warnings);
        for mut reading in known.into_values() {
            if reading.incomplete && most > 1 {
                reading.region.warnings.push(Warning::Incomplete { reads: most });
            }
            self.regions.push(reading.region);
        }
        self.report_shared_gpus();
        bus
    }

    /// The regions that the class names. Whatever else is there is none.
    fn region_names(&mut self, root: &Sysroot, warnings: &mut Vec<Warning>) -> Vec<RegionName> {
        match root.entries(CLASS) {
            Ok(entries) => {
                self.has_class = true;
                entries.iter().filter_map(|entry| entry.parse().ok()).collect()
            }
            Err(error) => {
                self.has_class = !error.is_absent();
                if self.has_class {
                    warnings.push(Warning::unreadable(&error));
                }
                Vec::new()
            }
        }
    }

    fn report_shared_gpus(&mut self) {
        let mut owners: BTreeMap<PciAddress, &RegionName> = BTreeMap::new();
        for region in &self.regions {
            for gpu in &region.gpus {
                if let Some(first) = owners.insert(gpu.address, &region.name) {
                    self.warnings.push(Warning::GpuOfTwoRegions {
                        address: gpu.address,
                        first: first.clone(),
                        second: region.name.clone(),
                    });
                }
            }
        }
    }

    /// Reads each GPU of the regions once, however many regions name it.
    fn read_gpus(&mut self, root: &Sysroot, needs: Needs) {
        let topology = &self.topology;
        // The CPUs are wanted where the node alone does not tell, or where all is to be shown.
        let ask_cpus = |node| {
            needs.contains(Needs::NUMA_NODES)
                || needs.contains(Needs::NUMA) && !topology.knows_cpus_of(node)
        };
        let mut read: BTreeMap<PciAddress, (Gpu, Vec<Warning>)> = BTreeMap::new();
        for region in &mut self.regions {
            for gpu in &mut region.gpus {
                let (known, warnings) = read.entry(gpu.address).or_insert_with(|| {
                    let mut warnings = Vec::new();
                    if needs.contains(Needs::GPU_DETAILS) {
                        gpu.read_details(root, &mut warnings);
                    }
                    gpu.read_node(root, ask_cpus, &mut warnings);
                    (gpu.clone(), warnings)
                });
                gpu.clone_from(known);
                region.warnings.extend_from_slice(warnings);
            }
        }
    }

    fn place_regions(&mut self, root: &Sysroot) {
        let topology = &mut self.topology;
        for gpu in self.regions.iter().flat_map(|region| &region.gpus) {
            if topology.knows_cpus_of(gpu.numa_node) {
                continue;
            }
            if let Some(node) = gpu.numa_node {
                topology.read_distances(root, node, &mut self.warnings);
            }
            topology.read_cpu_nodes(root, &mut self.warnings);
        }
        for region in &mut self.regions {
            place(region, topology);
        }
    }

    /// Finds the GPUs that no region names, and those of them that a region may have all the same.
    fn find_other_gpus(&mut self, root: &Sysroot, bus: &PciBus<'_>) {
        let regions = &self.regions;
        let is_named = |address| {
            regions.iter().flat_map(|region| &region.gpus).any(|gpu| gpu.address == address)
        };
        self.other_gpus = find_others(root, bus, is_named, &mut self.warnings);
        for region in &mut self.regions {
            if !region.shape.is_some_and(Shape::lists_only_bound_gpus) {
                continue;
            }
            let is_peer = |other: &&Gpu| {
                region.gpus.iter().any(|gpu| {
                    gpu.is_same_kind(other)
                        && gpu.numa_node.is_some()
                        && gpu.numa_node == other.numa_node
                })
            };
            let suspected = self.other_gpus.iter().filter(is_peer).map(|gpu| {
                let driver = gpu.driver.name().map(str::to_owned);
                Warning::SuspectedPeer { address: gpu.address, driver }
            });
            region.warnings.extend(suspected);
        }
    }

    fn name_gpus(&mut self, root: &Sysroot) {
        let gpus = || self.regions.iter().flat_map(|region| &region.gpus).chain(&self.other_gpus);
        let names = names::read(root, gpus().filter_map(id).collect());
        let regions = self.regions.iter_mut().flat_map(|region| &mut region.gpus);
        for gpu in regions.chain(&mut self.other_gpus) {
            gpu.name = id(gpu).and_then(|id| names.get(&id).cloned());
        }
    }

    fn read_device_nodes(&mut self, root: &Sysroot, needs: Needs) {
        if self.regions.is_empty() {
            return;
        }
        if needs.contains(Needs::DEVICE_NODE) {
            let nodes = Nodes::of(root);
            for region in &mut self.regions {
                nodes.look_at(&mut region.device, &mut region.warnings);
            }
        }
        if needs.contains(Needs::DEVICE_LINKS) {
            for region in &mut self.regions {
                region.device.links = udev_links::read(root, &region.path, region.device.number);
            }
        }
    }
}

fn id(gpu: &Gpu) -> Option<DeviceId> {
    Some((gpu.vendor_id?, gpu.device_id?))
}
