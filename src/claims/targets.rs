//! The devices to search for, by number, inode and name.

use std::path::{Path, PathBuf};

use super::ranges::Ranges;
use crate::host::{Region, Shape};
use crate::sysroot::{FileId, FileKind, Stat, Sysroot};
use crate::values::{Bytes, DeviceNumber, RegionName};

/// The devices of a host's regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets(Vec<RegionDevice>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct RegionDevice {
    name: RegionName,
    number: Option<DeviceNumber>,
    size: Option<Bytes>,
    /// Whether every mapping starts at the start of the region, whatever its offset.
    ignores_offset: bool,
    path: PathBuf,
    /// Device and inode of the node, as in `/proc/<pid>/maps`.
    file: Option<String>,
}

impl Targets {
    pub(super) fn of(root: &Sysroot, regions: &[Region]) -> Self {
        let target = |region: &Region| {
            let is_its = |stat: &Stat| is_number(stat, region.device.number);
            let node = root.stat(&region.device.path).ok().filter(is_its);
            RegionDevice {
                name: region.name.clone(),
                number: region.device.number,
                size: region.size,
                ignores_offset: region.shape.is_some_and(Shape::ignores_offset),
                path: region.device.path.clone(),
                file: node.and_then(|stat| stat.file).map(as_in_maps),
            }
        };
        Self(regions.iter().map(target).collect())
    }

    /// The device number of a region.
    pub(super) fn number(&self, region: &RegionName) -> Option<DeviceNumber> {
        self.get(region)?.number
    }

    fn get(&self, region: &RegionName) -> Option<&RegionDevice> {
        self.0.iter().find(|target| target.name == *region)
    }

    /// The mapped parts of a region, of which mappings have these offsets and lengths.
    pub(super) fn ranges(&self, region: &RegionName, mappings: Vec<(u64, u64)>) -> Ranges {
        let target = self.get(region);
        let ignores_offset = target.is_some_and(|target| target.ignores_offset);
        let start = |offset| if ignores_offset { 0 } else { offset };
        let ranges: Ranges =
            mappings.into_iter().map(|(offset, length)| (start(offset), length)).collect();
        match target.and_then(|target| target.size) {
            Some(size) => ranges.within(size),
            None => ranges,
        }
    }

    /// Only the regions with an unknown number; `None` if there are none.
    pub(super) fn without_number(&self) -> Option<Self> {
        let mut targets = self.clone();
        for target in targets.0.iter_mut().filter(|target| target.number.is_some()) {
            (target.number, target.path, target.file) = (None, PathBuf::new(), None);
        }
        self.0.iter().any(|target| target.number.is_none()).then_some(targets)
    }

    /// The region whose device has the number of this file.
    pub(super) fn by_stat(&self, stat: &Stat) -> Option<&RegionName> {
        self.find(|target| is_number(stat, target.number))
    }

    fn find(&self, is: impl Fn(&RegionDevice) -> bool) -> Option<&RegionName> {
        self.0.iter().find(|target| is(target)).map(|target| &target.name)
    }

    /// The region of a mapping, by its file or path.
    pub(super) fn by_mapping(&self, file: &[u8], path: &[u8]) -> Option<&RegionName> {
        self.by_file(file).or_else(|| self.by_path(path))
    }

    /// The region whose node is this file, by device and inode as in maps.
    fn by_file(&self, file: &[u8]) -> Option<&RegionName> {
        self.find(|target| target.file.as_ref().is_some_and(|node| node.as_bytes() == file))
    }

    /// The region whose node has, or had, this name.
    pub(super) fn by_path(&self, path: &[u8]) -> Option<&RegionName> {
        let path = before_removal(path);
        let is = |target: &RegionDevice| target.path.as_os_str().as_encoded_bytes() == path;
        self.find(|target| is(target) && !path.is_empty())
    }

    /// The region that had a node with this name and does not exist any more.
    pub(super) fn removed(&self, path: &[u8]) -> Option<RegionName> {
        let name = before_removal(path).strip_prefix(b"/dev/")?;
        let name: RegionName = std::str::from_utf8(name).ok()?.parse().ok()?;
        self.get(&name).is_none().then_some(name)
    }

    /// Whether a file may be a device of the driver. All of them have the same major number.
    pub(super) fn may_be_removed(&self, stat: &Stat) -> bool {
        let FileKind::CharDevice(found) = stat.kind else { return false };
        let mut majors = self.0.iter().filter_map(|target| target.number).map(|it| it.major);
        majors.next().is_none_or(|major| major == found.major)
    }

    /// The region that a path in a definition leads to, under any of its names.
    pub(super) fn by_definition(&self, root: &Sysroot, path: &Path) -> Option<&RegionName> {
        // Compared as paths, because `/dev//egm4` is the same.
        let by_path = self.find(|target| target.path == *path);
        by_path.or_else(|| {
            // Relative paths and other paths that no definition should contain do not match, and
            // paths in /proc differ for every process.
            let is_ones = path.is_absolute() && !path.starts_with("/proc");
            let stat = is_ones.then(|| root.stat_cached(path).ok()).flatten()?;
            self.by_stat(&stat)
        })
    }
}

/// A path without the mark of a file that has no name any more.
fn before_removal(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// `00:09 210` (`show_vma_header_prefix`, `fs/proc/task_mmu.c`)
fn as_in_maps(file: FileId) -> String {
    let DeviceNumber { major, minor } = file.device;
    format!("{major:02x}:{minor:02x} {}", file.inode)
}

fn is_number(stat: &Stat, number: Option<DeviceNumber>) -> bool {
    matches!(stat.kind, FileKind::CharDevice(found) if Some(found) == number)
}
