//! The devices to search for, by number, inode and name.

use std::path::{Path, PathBuf};

use super::ranges::Ranges;
use crate::host::{Region, Shape};
use crate::sysroot::{FileId, FileKind, Stat, Sysroot};
use crate::values::{Bytes, DeviceNumber, RegionName};

/// The devices of a host's regions.
#[derive(Clone)]
pub(super) struct Targets(Vec<RegionDevice>);

#[derive(Clone)]
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

    pub(super) fn name(&self, index: usize) -> Option<&RegionName> {
        self.0.get(index).map(|target| &target.name)
    }

    /// The device number of a region.
    pub(super) fn number(&self, index: usize) -> Option<DeviceNumber> {
        self.0.get(index)?.number
    }

    /// The mapped parts of a region, of which mappings have these offsets and lengths.
    pub(super) fn ranges(&self, index: usize, mappings: Vec<(u64, u64)>) -> Ranges {
        let Some(target) = self.0.get(index) else { return Ranges::default() };
        let start = |offset| if target.ignores_offset { 0 } else { offset };
        let ranges: Ranges =
            mappings.into_iter().map(|(offset, length)| (start(offset), length)).collect();
        match target.size {
            Some(size) => ranges.within(size),
            None => ranges,
        }
    }

    /// Only the regions with an unknown number, under their own indices; `None` if there are none.
    pub(super) fn without_number(&self) -> Option<Self> {
        let mut targets = self.clone();
        for target in targets.0.iter_mut().filter(|target| target.number.is_some()) {
            (target.number, target.path, target.file) = (None, PathBuf::new(), None);
        }
        self.0.iter().any(|target| target.number.is_none()).then_some(targets)
    }

    /// The region whose device has the number of this file.
    pub(super) fn by_stat(&self, stat: &Stat) -> Option<usize> {
        self.0.iter().position(|target| is_number(stat, target.number))
    }

    /// The region whose node is this file, by device and inode as in maps.
    pub(super) fn by_file(&self, file: &[u8]) -> Option<usize> {
        let is = |target: &RegionDevice| {
            target.file.as_ref().is_some_and(|node| node.as_bytes() == file)
        };
        self.0.iter().position(is)
    }

    /// The region whose node has, or had, this name.
    pub(super) fn by_path(&self, path: &[u8]) -> Option<usize> {
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let is = |target: &RegionDevice| target.path.as_os_str().as_encoded_bytes() == path;
        self.0.iter().position(is).filter(|_| !path.is_empty())
    }

    /// The region that a path in a definition leads to, under any of its names.
    pub(super) fn by_definition(&self, root: &Sysroot, path: &Path) -> Option<usize> {
        // Compared as paths, because `/dev//egm4` is the same.
        let by_path = self.0.iter().position(|target| target.path == *path);
        by_path.or_else(|| {
            // Relative paths and other paths that no definition should contain do not match, and
            // paths in /proc differ for every process.
            let is_ones = path.is_absolute() && !path.starts_with("/proc");
            let stat = is_ones.then(|| root.stat_cached(path).ok()).flatten()?;
            self.by_stat(&stat)
        })
    }
}

/// `00:09 210` (`show_vma_header_prefix`, `fs/proc/task_mmu.c`)
fn as_in_maps(file: FileId) -> String {
    let DeviceNumber { major, minor } = file.device;
    format!("{major:02x}:{minor:02x} {}", file.inode)
}

fn is_number(stat: &Stat, number: Option<DeviceNumber>) -> bool {
    matches!(stat.kind, FileKind::CharDevice(found) if Some(found) == number)
}
