//! The running host's `/sys`, where attributes are read without asking first what they are.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatvfs, openat2,
};

use super::directory::walk_to;
use super::error::os_error;
use super::not_a_file;

const PATH: &str = "/sys";

/// `/sys`, mounted as it is everywhere: so that the kernel opens no device on it (`nodev`; `may_open`
/// in fs/namei.c). Elsewhere a stat must tell beforehand that a path leads to no device; here to
/// stay on the mount is as safe, and costs half.
#[derive(Debug)]
pub(super) struct Sys(OwnedFd);

impl Sys {
    /// `None` where it is mounted in another way.
    pub(super) fn look() -> Option<Self> {
        let mount = walk_to(Path::new(PATH)).ok()?;
        let flags = fstatvfs(&mount).ok()?.f_flag;
        flags.contains(StatVfsMountFlags::NODEV).then_some(Self(mount))
    }

    /// Opens a regular file; `None` where that must be tried in another way: it is not below
    /// `/sys`, the path leads to another mount, or the kernel is older than 5.6.
    pub(super) fn open(&self, path: &Path) -> Option<io::Result<File>> {
        let below = path.strip_prefix(PATH).ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.0, below, flags, Mode::empty(), resolve) {
            Ok(file) => Some(regular(file)),
            // There are attributes that not every driver has.
            Err(error) if error.raw_os_error() == Errno::ENOENT as i32 => Some(Err(error.into())),
            Err(_) => None,
        }
    }
}

/// It may still be a directory, or a FIFO, which opens at once and has nothing to read.
fn regular(file: OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        FileType::Directory => Err(os_error(Errno::EISDIR)),
        _ => Err(not_a_file()),
    }
}
