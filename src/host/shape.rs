//! The five shapes in which drivers show a region and its GPUs in sysfs. The interface was never
//! merged and is still changing, so whatever depends on its shape is in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bus::PciBus;
use super::region::RegionName;
use crate::pci::PciAddress;
use crate::sysfs::DeviceDir;
use crate::sysroot::{Sysroot, join_link};
use crate::warning::Warning;

/// A generation of the driver, by the way it shows regions in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// The oldest NVIDIA 6.8 to 6.14 kernels: a virtual device, links to the GPUs in it, and a
    /// link to it in each GPU's directory.
    PciLinks,
    /// Kernel RFC v1, 2025-09: an auxiliary device under every GPU, with links to the GPUs.
    AuxPerGpu,
    /// Kernel RFC v2, 2026-02: an auxiliary device under the first GPU; the links to the GPUs are
    /// in the region's directory.
    AuxFirstGpu,
    /// NVIDIA's own kernels, 6.8 to 6.18: a virtual device with a text file `gpu_devices` that
    /// lists the GPUs bound to the driver.
    GpuList,
    /// Kernel series of mid-2026: a virtual device with links to its GPUs, bound or not.
    Standalone,
}

impl Shape {
    /// The name, as it is in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PciLinks => "pci-links",
            Self::AuxPerGpu => "aux-per-gpu",
            Self::AuxFirstGpu => "aux-first-gpu",
            Self::GpuList => "gpu-list",
            Self::Standalone => "standalone",
        }
    }

    /// Whether the driver leaves out GPUs that are not bound to it.
    #[must_use]
    pub fn lists_only_bound_gpus(self) -> bool {
        matches!(self, Self::PciLinks | Self::AuxPerGpu | Self::GpuList)
    }
}

/// A way in which a region names its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Source {
    /// The text file `gpu_devices` of the region.
    #[serde(rename = "gpu_devices")]
    GpuDevices,
    /// Links in the region's directory, named by the GPUs' addresses.
    #[serde(rename = "region-links")]
    RegionLinks,
    /// Such links in the directory of the auxiliary device that the region belongs to.
    #[serde(rename = "device-links")]
    DeviceLinks,
    /// The region's directory lies below the GPU's.
    #[serde(rename = "parent-device")]
    ParentDevice,
    /// A link named as the region in the GPU's directory.
    #[serde(rename = "pci-links")]
    PciLinks,
}

impl Source {
    /// The name, as it is in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GpuDevices => "gpu_devices",
            Self::RegionLinks => "region-links",
            Self::DeviceLinks => "device-links",
            Self::ParentDevice => "parent-device",
            Self::PciLinks => "pci-links",
        }
    }
}

/// The GPUs of a region, and how they were learnt.
#[derive(Default)]
pub(super) struct Members {
    pub(super) shape: Option<Shape>,
    pub(super) learnt_from: BTreeSet<Source>,
    /// Each GPU's directory in sysfs.
    pub(super) gpus: BTreeMap<PciAddress, PathBuf>,
    /// A GPU is named that is not there, or something went away while it was read.
    pub(super) incomplete: bool,
    pub(super) warnings: Vec<Warning>,
}

impl Members {
    fn add(&mut self, source: Source, address: PciAddress, path: PathBuf) {
        self.learnt_from.insert(source);
        self.gpus.entry(address).or_insert(path);
    }

    fn learnt(&self, source: Source) -> bool {
        self.learnt_from.contains(&source)
    }
}

/// Finds the GPUs of a region in every way that any driver names them.
pub(super) fn read(
    root: &Sysroot,
    bus: &PciBus<'_>,
    name: &RegionName,
    dir: &DeviceDir,
    entries: &[String],
) -> Members {
    let mut members = Members::default();
    add_links(root, &mut members, Source::RegionLinks, dir.path(), entries);
    let parent = parent_gpu(dir.path());
    if let Some((address, gpu, child)) = parent {
        members.add(Source::ParentDevice, address, gpu.to_owned());
        match root.entries(child) {
            Ok(entries) => {
                add_links(root, &mut members, Source::DeviceLinks, child, &entries);
            }
            Err(error) => members.warnings.push(Warning::unreadable(&error)),
        }
    }
    let has_list = entries.iter().any(|entry| entry == "gpu_devices");
    if has_list {
        add_list(&mut members, dir);
    }
    add_links_back(root, bus, &mut members, name);

    members.shape = if has_list {
        Some(Shape::GpuList)
    } else if parent.is_some() {
        if members.learnt(Source::DeviceLinks) {
            Some(Shape::AuxPerGpu)
        } else {
            members.learnt(Source::RegionLinks).then_some(Shape::AuxFirstGpu)
        }
    } else if members.learnt(Source::PciLinks) {
        Some(Shape::PciLinks)
    } else {
        members.learnt(Source::RegionLinks).then_some(Shape::Standalone)
    };
    report_missing(root, &mut members);
    members
}

/// Links of a directory that are named by PCI addresses.
fn add_links(
    root: &Sysroot,
    members: &mut Members,
    source: Source,
    directory: &Path,
    entries: &[String],
) {
    for entry in entries {
        let Some(address) = PciAddress::from_kernel_name(entry) else {
            continue;
        };
        let link = directory.join(entry);
        match root.read_link(&link) {
            Ok(target) => members.add(source, address, join_link(&link, &target)),
            Err(error) => {
                // It went while its directory was read, or is no link at all.
                members.incomplete = true;
                members.warnings.push(Warning::unreadable(&error));
            }
        }
    }
}

/// The GPU that a region's directory lies below, its directory, and the one below that on the way
/// to the region: the auxiliary device's.
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

/// The text file that lists addresses, one a line.
fn add_list(members: &mut Members, dir: &DeviceDir) {
    const LIST: &str = "gpu_devices";
    let text = match dir.text(LIST) {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => {
            members.incomplete = true;
            members.warnings.push(Warning::unreadable(&error));
            return;
        }
    };
    let mut malformed = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match PciAddress::from_kernel_name(line) {
            Some(address) => members.add(Source::GpuDevices, address, PciBus::path_of(address)),
            None => malformed = malformed.or(Some(line)),
        }
    }
    if let Some(line) = malformed {
        members.warnings.push(Warning::Malformed {
            path: dir.path().join(LIST),
            found: line.to_owned(),
            expected: "PCI addresses such as 0009:01:00.0, one a line",
        });
    }
}

/// Links to the region in the directories of GPUs. Every function of the host is looked at only
/// where the region's driver is of the kind that makes them, or names no GPU otherwise.
fn add_links_back(root: &Sysroot, bus: &PciBus<'_>, members: &mut Members, name: &RegionName) {
    let has_link = |gpu: &Path| {
        let target = root.read_link(gpu.join(name.as_str()));
        target.is_ok_and(|target| target.file_name().is_some_and(|last| last == name.as_str()))
    };
    if members.gpus.is_empty() || members.gpus.values().any(|gpu| has_link(gpu)) {
        for address in bus.functions() {
            let path = PciBus::path_of(*address);
            if has_link(&path) {
                members.add(Source::PciLinks, *address, path);
            }
        }
    }
}

/// A GPU that was taken out of the host leaves a link that leads nowhere; it heals when the GPU
/// comes back.
fn report_missing(root: &Sysroot, members: &mut Members) {
    for (address, path) in &members.gpus {
        if root.stat(path).is_err_and(|error| error.is_absent()) {
            members.incomplete = true;
            members.warnings.push(Warning::GpuGone { address: *address, path: path.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, Source, parent_gpu};
    use std::path::Path;

    #[test]
    fn names_are_those_of_the_json() {
        for shape in [
            Shape::PciLinks,
            Shape::AuxPerGpu,
            Shape::AuxFirstGpu,
            Shape::GpuList,
            Shape::Standalone,
        ] {
            assert_eq!(serde_json::to_value(shape).unwrap(), shape.name());
        }
        for source in [
            Source::GpuDevices,
            Source::RegionLinks,
            Source::DeviceLinks,
            Source::ParentDevice,
            Source::PciLinks,
        ] {
            assert_eq!(serde_json::to_value(source).unwrap(), source.name());
        }
    }

    #[test]
    fn the_gpu_above_a_region_is_the_nearest_one() {
        let region = "/sys/devices/pci0008:00/0008:00:00.0/0008:01:00.0/driver.egm.4/egm/egm4";
        let (address, gpu, child) = parent_gpu(Path::new(region)).unwrap();
        assert_eq!(address.to_string(), "0008:01:00.0");
        assert!(gpu.ends_with("0008:01:00.0"));
        assert!(child.ends_with("driver.egm.4"));
        assert_eq!(parent_gpu(Path::new("/sys/devices/virtual/egm/egm4")), None);
    }
}
