//! The running host's `/sys`, where attributes can be read without a stat beforehand.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::error::os_error;
use super::not_a_file;

const PATH: &str = "/sys";

/// `/sys`, mounted with `nodev`, as usual: the kernel opens no device on it (`may_open` in
/// fs/namei.c). Elsewhere a stat must show beforehand that a path does not lead to a device; here
/// staying on the mount is as safe, and halves the cost.
#[derive(Debug)]
pub(super) struct Sys(OwnedFd);

impl Sys {
    /// `None` if it is mounted differently.
    pub(super) fn look() -> Option<Self> {
        // With the C library: umockdev replaces its functions to provide another tree at `/sys`.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mount = open(PATH, flags, Mode::empty()).ok()?;
        fstatvfs(&mount).ok()?.flags().contains(FsFlags::ST_NODEV).then_some(Self(mount))
    }

    /// Opens a regular file; `None` if the caller must open it differently: it is not below `/sys`,
    /// the path leads to another mount, or the kernel is older than 5.6.
    pub(super) fn open(&self, path: &Path) -> Option<io::Result<File>> {
        let below = path.strip_prefix(PATH).ok()?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        match openat2(&self.0, below, OpenHow::new().flags(flags).resolve(resolve)) {
            Ok(file) => Some(regular(file.into())),
            // Some attributes exist only with some drivers.
            Err(Errno::ENOENT) => Some(Err(os_error(Errno::ENOENT))),
            Err(_) => None,
        }
    }
}

/// It may still be a directory, or a FIFO, which opens without blocking and is empty.
fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    match kind {
        _ if kind.is_file() => Ok(file),
        _ if kind.is_dir() => Err(os_error(Errno::EISDIR)),
        _ => Err(not_a_file()),
    }
}
