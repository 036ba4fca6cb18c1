//! The five sysfs layouts in which drivers show a region and its GPUs. The interface was never
//! merged and is still changing, so everything that depends on the layout is in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::bus::PciBus;
use super::gpu::Gpu;
use crate::host::sysfs::DeviceDir;
use crate::sysroot::{ReadError, Sysroot, join_link};
use crate::values::{PciAddress, RegionName, named};
use crate::warning::Warning;

named! {
    /// A generation of the driver, identified by its sysfs layout.
    #[non_exhaustive]
    pub enum Shape {
        /// The oldest NVIDIA 6.8 to 6.14 kernels: a virtual device, links to the GPUs in it, and a
        /// link to it in each GPU's directory.
        PciLinks = "pci-links",
        /// Kernel RFC v1, 2025-09: an auxiliary device under every GPU, with links to the GPUs.
        AuxPerGpu = "aux-per-gpu",
        /// Kernel RFC v2, 2026-02: an auxiliary device under the first GPU; the links to the GPUs are
        /// in the region's directory.
        AuxFirstGpu = "aux-first-gpu",
        /// NVIDIA's own kernels, 6.8 to 6.18: a virtual device with a text file `gpu_devices` that
        /// lists the GPUs bound to the driver.
        GpuList = "gpu-list",
        /// Kernel patch series of mid-2026: a virtual device with links to its GPUs, bound or not.
        Standalone = "standalone",
    }
}

impl Shape {
    /// Whether the driver maps from the start of the region, whatever the offset of the mapping.
    #[must_use]
    pub fn ignores_offset(self) -> bool {
        matches!(self, Self::PciLinks | Self::GpuList)
    }

    /// Whether the driver omits GPUs that are not bound to it.
    #[must_use]
    pub fn lists_only_bound_gpus(self) -> bool {
        matches!(self, Self::PciLinks | Self::AuxPerGpu | Self::GpuList)
    }
}

named! {
    /// A source of a region's GPUs.
    #[non_exhaustive]
    pub enum GpuSource {
        /// The region's text file `gpu_devices`.
        GpuDevices = "gpu_devices",
        /// Links in the region's directory, named by the GPUs' addresses.
        RegionLinks = "region-links",
        /// Such links in the directory of the region's auxiliary device.
        DeviceLinks = "device-links",
        /// The region's directory is below the GPU's.
        ParentDevice = "parent-device",
        /// A link with the region's name in the GPU's directory.
        PciLinks = "pci-links",
        /// The region's attribute `numa_node`, from which its GPUs are inferred.
        NumaNode = "numa_node",
    }
}

/// Maximum number of GPUs of a region: current sockets have two.
const GPUS_LIMIT: usize = 64;

/// The GPUs of a region, and their sources.
pub(super) struct Members {
    pub(super) shape: Option<Shape>,
    pub(super) learnt_from: BTreeSet<GpuSource>,
    /// By address.
    pub(super) gpus: Vec<Gpu>,
    /// A file disappeared while it was read.
    pub(super) incomplete: bool,
    pub(super) warnings: Vec<Warning>,
}

/// Finds the GPUs of a region from the sources of all drivers.
pub(super) fn read(
    root: &Sysroot,
    bus: &PciBus<'_>,
    name: &RegionName,
    dir: &DeviceDir,
    entries: &[String],
) -> Members {
    let mut search = Search {
        root,
        region: dir.path(),
        learnt_from: BTreeSet::new(),
        named: BTreeMap::new(),
        incomplete: false,
        warnings: Vec::new(),
    };
    search.add_links(GpuSource::RegionLinks, dir.path(), entries);
    let has_list = entries.iter().any(|entry| entry == "gpu_devices");
    if has_list {
        search.add_list(dir);
    }
    search.add_links_back(bus, name);
    let is_aux = search.add_parent();
    let learnt = |source| search.learnt_from.contains(&source);
    let shape = if has_list {
        Some(Shape::GpuList)
    } else if is_aux && learnt(GpuSource::DeviceLinks) {
        Some(Shape::AuxPerGpu)
    } else if is_aux {
        learnt(GpuSource::RegionLinks).then_some(Shape::AuxFirstGpu)
    } else if learnt(GpuSource::PciLinks) {
        Some(Shape::PciLinks)
    } else {
        learnt(GpuSource::RegionLinks).then_some(Shape::Standalone)
    };
    search.finish(shape)
}

struct Search<'a> {
    root: &'a Sysroot,
    /// The region's own directory.
    region: &'a Path,
    learnt_from: BTreeSet<GpuSource>,
    /// Each GPU, and the path that its source leads to.
    named: BTreeMap<PciAddress, PathBuf>,
    incomplete: bool,
    warnings: Vec<Warning>,
}

impl Search<'_> {
    fn add(&mut self, source: GpuSource, address: PciAddress, path: PathBuf) {
        self.learnt_from.insert(source);
        self.named.entry(address).or_insert(path);
    }

    fn failed(&mut self, error: &ReadError) {
        self.incomplete = true;
        self.warnings.push(Warning::unreadable(error));
    }

    /// Adds links that are named by PCI addresses.
    fn add_links(&mut self, source: GpuSource, directory: &Path, entries: &[String]) {
        for entry in entries {
            let Some(address) = PciAddress::from_kernel_name(entry) else { continue };
            let link = directory.join(entry);
            match self.root.read_link(&link) {
                Ok(target) => {
                    let leads_to = join_link(&link, &target);
                    if leads_to.starts_with("/sys") && leads_to.ends_with(entry) {
                        self.add(source, address, leads_to);
                    } else {
                        self.warnings.push(Warning::Malformed {
                            path: link,
                            found: target.to_string_lossy().into_owned(),
                            expected: "a link to the directory of that PCI function",
                        });
                    }
                }
                // It disappeared after its directory was read, or is not a link.
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Adds the GPUs in the text file: one address per line today, which is not guaranteed.
    fn add_list(&mut self, dir: &DeviceDir) {
        const LIST: &str = "gpu_devices";
        let text = match dir.text(LIST) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => return self.failed(&error),
        };
        let mut malformed = None;
        let is_separator = |c: char| c.is_ascii_whitespace() || c == ',';
        for word in text.split(is_separator).filter(|word| !word.is_empty()) {
            // Without a domain, an address is ambiguous.
            match word.parse().ok().filter(|_| word.split(':').count() == 3) {
                Some(address) => self.add(GpuSource::GpuDevices, address, PciBus::path_of(address)),
                None => malformed = malformed.or(Some(word)),
            }
        }
        if let Some(word) = malformed {
            self.warnings.push(Warning::Malformed {
                path: dir.path().join(LIST),
                found: word.to_owned(),
                expected: "PCI addresses such as 0009:01:00.0, one per line",
            });
        }
    }

    /// Adds functions whose directory has a link to the region.
    fn add_links_back(&mut self, bus: &PciBus<'_>, name: &RegionName) {
        if let Some(links) = bus.links_back(name) {
            for (address, target) in &links.targets {
                // Relative targets start at the function's real directory, which is unknown here;
                // the end of the path is sufficient.
                let end: PathBuf =
                    target.components().skip_while(|part| *part == Component::ParentDir).collect();
                if end.ends_with(name.as_str()) && self.region.ends_with(&end) {
                    self.add(GpuSource::PciLinks, *address, PciBus::path_of(*address));
                }
            }
            self.warnings.extend_from_slice(&links.warnings);
        }
        self.incomplete |= bus.warning().is_some();
    }

    /// Adds the GPU whose directory contains the region's, and the links in the directory of the
    /// auxiliary device between them. Returns whether there is such a GPU: other ancestors, such as
    /// a bridge, are not GPUs.
    fn add_parent(&mut self) -> bool {
        let Some((address, gpu, aux)) = parent_gpu(self.region) else { return false };
        match self.root.entries(aux) {
            Ok(entries) => self.add_links(GpuSource::DeviceLinks, aux, &entries),
            Err(error) => self.failed(&error),
        }
        let is_gpu = self.named.is_empty() || self.named.contains_key(&address);
        if is_gpu {
            self.add(GpuSource::ParentDevice, address, gpu.to_owned());
        }
        is_gpu
    }

    /// Checks whether the GPUs exist. A GPU that was removed leaves a dangling link, which works
    /// again when the GPU comes back.
    fn finish(mut self, shape: Option<Shape>) -> Members {
        if self.named.len() > GPUS_LIMIT {
            let (what, found) = ("GPUs of one region", self.named.len());
            self.warnings.push(Warning::TooMany { what, found, limit: GPUS_LIMIT });
        }
        let mut gpus = Vec::new();
        for (address, leads_to) in self.named.into_iter().take(GPUS_LIMIT) {
            // The path on the bus is the same for every layout.
            let by_bus = PciBus::path_of(address);
            let is_there = |path: &PathBuf| self.root.stat(path).is_ok();
            let path = [&by_bus, &leads_to].into_iter().find(|path| is_there(path)).cloned();
            let mut gpu = Gpu::at(address, path.clone().unwrap_or(leads_to));
            gpu.is_there = path.is_some();
            if !gpu.is_there {
                gpu.warnings.push(Warning::GpuGone { address, path: gpu.path.clone() });
            }
            gpus.push(gpu);
        }
        let Self { learnt_from, incomplete, warnings, .. } = self;
        Members { shape, learnt_from, gpus, incomplete, warnings }
    }
}

/// The GPU whose directory contains the region's, its directory, and the next directory on the path
/// to the region, which is the auxiliary device's.
fn parent_gpu(region: &Path) -> Option<(PciAddress, &Path, &Path)> {
    let mut child = region;
    for ancestor in region.ancestors().skip(1) {
        let name = ancestor.file_name()?.to_str()?;
        if let Some(address) = PciAddress::from_kernel_name(name) {
            return Some((address, ancestor, child));
        }
        child = ancestor;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::parent_gpu;
    use std::path::Path;

    #[test]
    fn the_nearest_ancestor_is_the_gpu_of_a_region() {
        let region = "/sys/devices/pci0008:00/0008:00:00.0/0008:01:00.0/driver.egm.4/egm/egm4";
        let (address, gpu, child) = parent_gpu(Path::new(region)).unwrap();
        assert_eq!(address.to_string(), "0008:01:00.0");
        assert!(gpu.ends_with("0008:01:00.0"));
        assert!(child.ends_with("driver.egm.4"));
        assert_eq!(parent_gpu(Path::new("/sys/devices/virtual/egm/egm4")), None);
    }
}
