//! Reading real files: those of the running host, and those below another directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, major, minor};

use super::{FileKind, Stat, not_a_file, path::resolve, too_large};

/// The real path of a host path below `base`, all links followed within `base`.
pub(super) fn locate(base: &Path, path: &Path) -> io::Result<PathBuf> {
    resolve(path, true, |at| link_below(base, at)).map(|at| below(base, &at))
}

/// The same, but a link at the very end is not followed.
pub(super) fn locate_link(base: &Path, path: &Path) -> io::Result<PathBuf> {
    resolve(path, false, |at| link_below(base, at)).map(|at| below(base, &at))
}

fn below(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

fn link_below(base: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(below(base, path)) {
        Ok(target) => Ok(Some(target)),
        // What readlink says of anything that is there and is no link.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn stat(path: &Path) -> io::Result<Stat> {
    let stat = nix::sys::stat::stat(path)?;
    let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileKind::Regular,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFLNK => FileKind::Link,
        SFlag::S_IFCHR => FileKind::CharDevice(major(stat.st_rdev), minor(stat.st_rdev)),
        _ => FileKind::Other,
    };
    Ok(Stat { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid })
}

/// Reads a regular file. Asking stat first is what keeps devices from being opened.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    match stat(path)?.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(super::error::os_error(Errno::EISDIR)),
        _ => return Err(not_a_file()),
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    // Not by the size that stat gives: in sysfs it is a page, in proc 0.
    let mut bytes = Vec::with_capacity(4096);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(too_large(limit)) } else { Ok(bytes) }
}
