//! One EGM region: its name, and the reading of its own attributes.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::bus::PciBus;
use super::device_node::{Device, DeviceNumber, path_of};
use super::gpu::Gpu;
use super::needs::Needs;
use super::numa::NodeId;
use super::placement::NodeSource;
use super::shape::{self, Shape, Source};
use crate::sysfs::{DeviceDir, number};
use crate::sysroot::{Sysroot, join_link};
use crate::units::Bytes;
use crate::warning::Warning;

/// Where the driver shows its regions (`class_create("egm")`).
pub(super) const CLASS: &str = "/sys/class/egm";

/// An EGM region of the host: memory of one socket that is hidden from the host's kernel and is
/// given to one virtual machine at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Its name in sysfs.
    pub name: RegionName,
    /// Its real directory in sysfs, `/sys/devices/virtual/egm/egm4`.
    pub path: PathBuf,
    /// How the driver shows it; `None` where nothing tells.
    pub shape: Option<Shape>,
    /// Every way in which its GPUs were learnt.
    pub learnt_from: Vec<Source>,
    /// How large it is.
    pub size: Option<Bytes>,
    /// Its character device.
    pub device: Device,
    /// Its GPUs, by address: the union of every way in which it names them.
    pub gpus: Vec<Gpu>,
    /// The host NUMA node whose memory it is.
    pub numa_node: Option<NodeId>,
    /// How the node was learnt.
    pub numa_node_from: Option<NodeSource>,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// A region as it was read, and whether it is worth reading again.
pub(super) struct Reading {
    pub(super) region: Region,
    /// It lacks something that every region has once it is made, and has until it is removed.
    pub(super) incomplete: bool,
}

/// Reads one region. `None` where it is gone.
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
        // There, but no link: then it is the directory itself.
        Err(_) => in_class,
    };
    // As devtmpfs names a node where the uevent does not say otherwise.
    let device = Device {
        path: Path::new("/dev").join(name.as_str()),
        number: None,
        owner: None,
        links: None,
    };
    let mut region = Region {
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
    };
    let incomplete = match root.entries(&region.path) {
        Ok(entries) => read_into(&mut region, root, bus, &entries, needs),
        Err(error) => {
            region.warnings.push(Warning::unreadable(&error));
            true
        }
    };
    Some(Reading { region, incomplete })
}

/// Reads what the region's directory tells. Gives whether it lacks something.
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
        return region.size.is_none() || region.device.number.is_none();
    }
    let members = shape::read(root, bus, &region.name, &dir, entries);
    region.warnings.extend(members.warnings);
    region.shape = members.shape;
    region.learnt_from = members.learnt_from.into_iter().collect();
    region.gpus = members.gpus.into_iter().map(|(address, path)| Gpu::at(address, path)).collect();
    if region.gpus.is_empty() {
        region.warnings.push(Warning::NoGpus { path: region.path.clone() });
    }
    // The oldest of the drivers that make links both ways never show a size.
    let lacks_size = region.size.is_none() && region.shape != Some(Shape::PciLinks);
    members.incomplete || lacks_size || region.device.number.is_none() || region.gpus.is_empty()
}

fn read_size(dir: &DeviceDir, warnings: &mut Vec<Warning>) -> Option<Bytes> {
    let expected = "a size in bytes, hexadecimal with 0x or decimal";
    value_or_absent(dir, "egm_size", "the size", expected, number, warnings).map(Bytes)
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
    match devname.map(|devname| (devname, path_of(devname))) {
        None => {}
        Some((_, Some(path))) => device.path = path,
        Some((devname, None)) => warnings.push(Warning::Malformed {
            path: dir.path().join("uevent"),
            found: format!("DEVNAME={devname}"),
            expected: "the name of a device node below /dev",
        }),
    }
}

/// An attribute that every region has: its absence is a warning, too.
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

/// The name of a region: `egm` and a number.
///
/// The number is the device's minor, and usually the proximity domain that ACPI gives the region.
/// It is neither an index nor a NUMA node. Names are in natural order: `egm4` before `egm10`.
///
/// ```
/// use egm_probe::host::RegionName;
///
/// let mut names: Vec<RegionName> = ["egm10", "egm4"].map(|name| name.parse().unwrap()).into();
/// names.sort();
/// assert_eq!(names[0].as_str(), "egm4");
/// assert!("egm".parse::<RegionName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegionName(String);

/// A text that is no region's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an EGM region; one looks like egm4")]
pub struct BadRegionName(String);

impl RegionName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits without leading zeros: of two such numbers the longer one is the greater.
    fn digits(&self) -> &str {
        self.0.trim_start_matches("egm").trim_start_matches('0')
    }
}

impl FromStr for RegionName {
    type Err = BadRegionName;

    fn from_str(text: &str) -> Result<Self, BadRegionName> {
        match text.strip_prefix("egm") {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadRegionName(crate::text::printable(text))),
        }
    }
}

impl Ord for RegionName {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |name: &Self| (name.digits().len(), name.digits().to_owned(), name.0.len());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for RegionName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for RegionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RegionName;

    #[test]
    fn names_are_in_natural_order_however_long_their_numbers() {
        let mut names = ["egm10", "egm99999999999999999999", "egm4", "egm05", "egm5", "egm0"]
            .map(|name| name.parse::<RegionName>().expect(name));
        names.sort();
        let sorted: Vec<_> = names.iter().map(RegionName::as_str).collect();
        assert_eq!(sorted, ["egm0", "egm4", "egm5", "egm05", "egm10", "egm99999999999999999999"]);
    }

    #[test]
    fn only_egm_and_digits_is_a_name() {
        for text in
            ["", "egm", "egm4a", "egm-4", "egm 4", "xegm4", "EGM4", "egm_ctl", "egm٤", "egm4/"]
        {
            assert!(text.parse::<RegionName>().is_err(), "{text}");
        }
    }
}
