//! An EGM region and its own attributes.

use std::path::{Path, PathBuf};

use super::bus::PciBus;
use super::device_node::{Device, dev_path};
use super::gpu::{Gpu, GpuNode, NODE_EXPECTED, parse_node};
use super::needs::Needs;
use super::placement::NodeSource;
use super::shape::{self, GpuSource, Shape};
use crate::host::sysfs::DeviceDir;
use crate::sysroot::{Sysroot, join_link};
use crate::values::numbers::number;
use crate::values::{Bytes, DeviceNumber, NodeId, RegionName};
use crate::warning::Warning;

/// The class in which the driver shows its regions (`class_create("egm")`).
pub(super) const CLASS: &str = "/sys/class/egm";

/// An EGM region of the host: memory of one socket that is hidden from the host's kernel and given
/// to one virtual machine at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Its name in sysfs.
    pub name: RegionName,
    /// Its real directory in sysfs, `/sys/devices/virtual/egm/egm4`.
    pub path: PathBuf,
    /// The layout of the driver's sysfs; `None` if unknown.
    pub shape: Option<Shape>,
    /// The sources of its GPUs.
    pub learnt_from: Vec<GpuSource>,
    /// Its size.
    pub size: Option<Bytes>,
    /// Its character device.
    pub device: Device,
    /// Its GPUs, by address: the union of all sources.
    pub gpus: Vec<Gpu>,
    /// The host NUMA node of its memory.
    pub numa_node: Option<NodeId>,
    /// The source of the node.
    pub numa_node_from: Option<NodeSource>,
    /// Warnings about the region, without those about its GPUs.
    pub warnings: Vec<Warning>,
}

impl Region {
    /// A region with only its name known.
    fn new(name: &RegionName, path: PathBuf) -> Self {
        // The name that devtmpfs uses unless the uevent contains another one.
        let device = Device {
            path: Path::new("/dev").join(name.as_str()),
            number: None,
            owner: None,
            links: None,
        };
        Self {
            name: name.clone(),
            path,
            shape: None,
            learnt_from: Vec::new(),
            size: None,
            device,
            gpus: Vec::new(),
            numa_node: None,
            numa_node_from: None,
            warnings: Vec::new(),
        }
    }

    /// A region that the driver removed while a process held it.
    pub(crate) fn gone(name: &RegionName) -> Self {
        let mut region = Self::new(name, Path::new(CLASS).join(name.as_str()));
        region.warnings.push(Warning::RegionGone);
        region
    }

    /// The reason why the device node cannot be used; only with [`Needs::DEVICE_NODE`].
    #[must_use]
    pub fn node_problem(&self) -> Option<&Warning> {
        self.warnings.iter().find(|warning| warning.is_of_node())
    }

    /// Whether its GPUs are inferred from its NUMA node because the driver lists none.
    #[must_use]
    pub fn has_inferred_gpus(&self) -> bool {
        self.learnt_from.contains(&GpuSource::NumaNode)
    }

    /// Warnings about the region and its GPUs.
    pub fn all_warnings(&self) -> impl Iterator<Item = &Warning> {
        self.warnings.iter().chain(self.gpus.iter().flat_map(|gpu| &gpu.warnings))
    }
}

/// A region as it was read, and whether to read it again.
pub(super) struct Reading {
    pub(super) region: Region,
    /// It lacks something that every region has from its creation to its removal.
    pub(super) incomplete: bool,
}

/// Reads one region. `None` if it is gone.
pub(super) fn read(
    root: &Sysroot,
    bus: &PciBus<'_>,
    name: &RegionName,
    needs: Needs,
) -> Option<Reading> {
    let in_class = Path::new(CLASS).join(name.as_str());
    let path = match root.read_link(&in_class) {
        Ok(target) => join_link(&in_class, &target),
        Err(error) if error.is_absent() => return None,
        // If it is not a link, it is the directory itself.
        Err(_) => in_class,
    };
    let mut region = Region::new(name, path);
    if !region.path.starts_with("/sys") {
        region.warnings.push(Warning::Malformed {
            found: region.path.to_string_lossy().into_owned(),
            path: Path::new(CLASS).join(name.as_str()),
            expected: "a link to a directory below /sys",
        });
        region.path = Path::new(CLASS).join(name.as_str());
        return Some(Reading { region, incomplete: true });
    }
    let incomplete = match root.entries(&region.path) {
        Ok(entries) => read_into(&mut region, root, bus, &entries, needs),
        Err(error) => {
            region.warnings.push(Warning::unreadable(&error));
            true
        }
    };
    Some(Reading { region, incomplete })
}

/// Reads the attributes in the region's directory. Returns whether something is missing.
fn read_into(
    region: &mut Region,
    root: &Sysroot,
    bus: &PciBus<'_>,
    entries: &[String],
    needs: Needs,
) -> bool {
    let dir = DeviceDir::new(root, &region.path);
    region.size = read_size(&dir, &mut region.warnings);
    read_device(&dir, &mut region.device, &mut region.warnings);
    if !needs.contains(Needs::GPUS) {
        // Whether a region must have a size depends on the layout.
        return region.device.number.is_none();
    }
    let members = shape::read(root, bus, &region.name, &dir, entries);
    region.warnings.extend(members.warnings);
    region.shape = members.shape;
    region.learnt_from = members.learnt_from.into_iter().collect();
    region.gpus = members.gpus;
    read_own_node(region, &dir, entries);
    let lacks_gpus = region.gpus.is_empty() && region.numa_node.is_none();
    if lacks_gpus {
        region.warnings.push(Warning::NoGpus { path: region.path.clone() });
    }
    // The oldest drivers with links in both directions never show a size.
    let lacks_size = region.size.is_none() && region.shape != Some(Shape::PciLinks);
    members.incomplete || lacks_size || region.device.number.is_none() || lacks_gpus
}

/// Reads the NUMA node of the region itself. No released driver has it; it was asked for in the
/// review of the kernel patch series, instead of links to GPUs.
fn read_own_node(region: &mut Region, dir: &DeviceDir, entries: &[String]) {
    if !entries.iter().any(|entry| entry == "numa_node") {
        return;
    }
    let node = dir.value("numa_node", NODE_EXPECTED, parse_node, &mut region.warnings);
    region.numa_node = node.and_then(GpuNode::id);
    region.numa_node_from = region.numa_node.map(|_| NodeSource::Region);
}

fn read_size(dir: &DeviceDir, warnings: &mut Vec<Warning>) -> Option<Bytes> {
    let expected = "a size in bytes, hexadecimal with 0x or decimal, greater than 0";
    let parse = |text: &str| number(text).filter(|size| *size > 0);
    value_or_absent(dir, "egm_size", "the size", expected, parse, warnings).map(Bytes)
}

fn read_device(dir: &DeviceDir, device: &mut Device, warnings: &mut Vec<Warning>) {
    let expected = "a device number such as 510:4";
    let parse = |text: &str| text.parse::<DeviceNumber>().ok();
    device.number = value_or_absent(dir, "dev", "the device number", expected, parse, warnings);
    let uevent = dir.text("uevent").unwrap_or_else(|error| {
        warnings.push(Warning::unreadable(&error));
        None
    });
    let devname = uevent
        .as_ref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("DEVNAME=")));
    match devname.map(|devname| (devname, dev_path(devname))) {
        None => {}
        Some((_, Some(path))) => device.path = path,
        Some((devname, None)) => warnings.push(Warning::Malformed {
            path: dir.path().join("uevent"),
            found: format!("DEVNAME={devname}"),
            expected: "the name of a device node below /dev",
        }),
    }
}

/// An attribute of every region: its absence is a warning.
fn value_or_absent<T>(
    dir: &DeviceDir,
    name: &str,
    unknown: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    warnings: &mut Vec<Warning>,
) -> Option<T> {
    let before = warnings.len();
    let value = dir.value(name, expected, parse, warnings);
    if value.is_none() && warnings.len() == before {
        warnings.push(Warning::Absent { path: dir.path().join(name), unknown });
    }
    value
}
