//! The shared and the writable files that a process maps, one query of the kernel each
//! (`PROCMAP_QUERY`, Linux 6.11). Most mappings are of programs and libraries and are neither, so this
//! is several times faster than to read all mappings as text.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::{FileId, Sysroot};
use crate::values::DeviceNumber;

/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA` and `PROCMAP_QUERY_FILE_BACKED_VMA`: the first mapping of a
/// file that ends after the address.
const NEXT_FILE: u64 = 0x10 | 0x20;

/// `PROCMAP_QUERY_VMA_SHARED` and `PROCMAP_QUERY_VMA_WRITABLE`. Both in one query would find only
/// mappings that are shared and writable.
const PASSES: [u64; 2] = [0x08, 0x02];

/// `struct procmap_query` (`include/uapi/linux/fs.h`)
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    permissions: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

const PROCMAP_QUERY: Opcode = opcode::read_write::<Query>(b'f', 17);

/// A mapping of a file.
pub(crate) struct MappedFile {
    pub(crate) file: FileId,
    start: u64,
    end: u64,
}

impl MappedFile {
    /// Its name in `/proc/<pid>/map_files`.
    pub(crate) fn name(&self) -> String {
        format!("{:x}-{:x}", self.start, self.end)
    }
}

/// The shared mappings of files of one process by address, then those that are writable.
pub(crate) struct MappedFiles {
    maps: File,
    pass: usize,
    address: u64,
}

impl Sysroot {
    /// The mappings of a running process, by the path of its `maps`; `None` if this is not the running
    /// host.
    pub(crate) fn mapped_files(&self, maps: impl AsRef<Path>) -> Option<io::Result<MappedFiles>> {
        let maps = self.0.is_host().then(|| self.open_file(maps.as_ref())).flatten()?;
        Some(maps.map(|maps| MappedFiles { maps, pass: 0, address: 0 }))
    }
}

impl Iterator for MappedFiles {
    type Item = Result<MappedFile, Errno>;

    #[expect(unsafe_code, reason = "the standard library has no ioctl")]
    fn next(&mut self) -> Option<Self::Item> {
        let size = size_of::<Query>() as u64;
        while let Some(pass) = PASSES.get(self.pass) {
            let (flags, address) = (NEXT_FILE | pass, self.address);
            let mut query = Query { size, flags, address, ..Query::default() };
            // SAFETY: this is the type of the request, and the kernel writes only to it: there are no
            // buffers for a name and a build ID.
            let result = unsafe { ioctl(&self.maps, Updater::<PROCMAP_QUERY, _>::new(&mut query)) };
            match result {
                Ok(()) => {
                    self.address = query.end;
                    let device = DeviceNumber { major: query.major, minor: query.minor };
                    let file = FileId { device, inode: query.inode };
                    return Some(Ok(MappedFile { file, start: query.start, end: query.end }));
                }
                Err(Errno::NOENT) => (self.pass, self.address) = (self.pass + 1, 0),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}
