//! A fast way to tell that a process maps no region: queries of the kernel for its shared and
//! writable mappings, which the memory of a guest is one of. It is several times faster than to read
//! all mappings, but overlooks a read-only copy.

use std::collections::HashSet;

use rustix::io::Errno;

use super::targets::Targets;
use crate::sysroot::{FileId, Sysroot};

pub(super) struct Queries<'a> {
    root: &'a Sysroot,
    targets: &'a Targets,
    /// Mapped files that are no regions: most are the same few libraries.
    others: HashSet<FileId>,
}

/// The kernel does not answer queries, or the mapped files cannot be examined.
pub(super) struct Refused;

impl<'a> Queries<'a> {
    pub(super) fn new(root: &'a Sysroot, targets: &'a Targets) -> Self {
        Self { root, targets, others: HashSet::new() }
    }

    /// Whether none of these mappings of a task is of a region. If not, or if it is not clear, its
    /// mappings have to be read.
    pub(super) fn find_none(&mut self, task: &str, links: &str) -> Result<bool, Refused> {
        let maps = format!("{task}/maps");
        let Some(Ok(files)) = self.root.mapped_files(maps) else { return Ok(false) };
        for mapped in files {
            let mapped = match mapped {
                Ok(mapped) if self.others.contains(&mapped.file) => continue,
                Ok(mapped) => mapped,
                // A kernel thread and a process that has exited have no mappings.
                Err(Errno::SRCH) => return Ok(false),
                Err(_) => return Err(Refused),
            };
            match self.root.stat_cached(format!("{links}/map_files/{}", mapped.name())) {
                Ok(stat) if self.targets.by_stat(&stat).is_some() => return Ok(false),
                Ok(stat) if self.targets.may_be_removed(&stat) => return Ok(false),
                Ok(_) => self.others.insert(mapped.file),
                // It was changed in the meantime.
                Err(error) if error.is_gone() => return Ok(false),
                Err(_) => return Err(Refused),
            };
        }
        Ok(true)
    }
}
