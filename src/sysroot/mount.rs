//! The running host's `/sys`, where attributes are read without asking first what they are.

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

/// `/sys`, mounted as it is everywhere: so that the kernel opens no device on it (`nodev`; `may_open`
/// in fs/namei.c). Elsewhere a stat must tell beforehand that a path leads to no device; here to
/// stay on the mount is as safe, and costs half.
#[derive(Debug)]
pub(super) struct Sys(OwnedFd);

impl Sys {
    /// `None` where it is mounted in another way.
    pub(super) fn look() -> Option<Self> {
        // By the C library: umockdev replaces its functions to put another tree at `/sys`.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mount = open(PATH, flags, Mode::empty()).ok()?;
        fstatvfs(&mount).ok()?.flags().contains(FsFlags::ST_NODEV).then_some(Self(mount))
    }

    /// Opens a regular file; `None` where that must be tried in another way: it is not below
    /// `/sys`, the path leads to another mount, or the kernel is older than 5.6.
    pub(super) fn open(&self, path: &Path) -> Option<io::Result<File>> {
        let below = path.strip_prefix(PATH).ok()?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        match openat2(&self.0, below, OpenHow::new().flags(flags).resolve(resolve)) {
            Ok(file) => Some(regular(file.into())),
            // There are attributes that not every driver has.
            Err(Errno::ENOENT) => Some(Err(os_error(Errno::ENOENT))),
            Err(_) => None,
        }
    }
}

/// It may still be a directory, or a FIFO, which opens at once and has nothing to read.
fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    match kind {
        _ if kind.is_file() => Ok(file),
        _ if kind.is_dir() => Err(os_error(Errno::EISDIR)),
        _ => Err(not_a_file()),
    }
}
