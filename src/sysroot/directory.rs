//! Reads real files: of the running host, or below another directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, major, minor};
use rustix::fs::{AtFlags, CWD, Dir, StatxFlags, lgetxattr, statx};
use rustix::path::Arg;

use crate::values::DeviceNumber;

use super::acl::{self, Acl};
use super::{DIRECTORY_LIMIT, FileId, FileKind, Stat, not_a_file, path::resolve, too_large};

/// The real path of a host path below `base`. All links are followed within `base`.
pub(super) fn locate(base: &Path, path: &Path) -> io::Result<PathBuf> {
    resolve(path, true, |at| link_below(base, at)).map(|at| below(base, &at))
}

/// Like [`locate`], but a link at the end is not followed.
pub(super) fn locate_link(base: &Path, path: &Path) -> io::Result<PathBuf> {
    resolve(path, false, |at| link_below(base, at)).map(|at| below(base, &at))
}

fn below(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

fn link_below(base: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(below(base, path)) {
        Ok(target) => Ok(Some(target)),
        // The error of readlink(2) for a file that is not a link.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn stat(path: &Path) -> io::Result<Stat> {
    let stat = nix::sys::stat::stat(path)?;
    Ok(Stat {
        kind: kind(stat.st_mode, number(major(stat.st_rdev), minor(stat.st_rdev))),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        file: Some(FileId {
            device: number(major(stat.st_dev), minor(stat.st_dev)),
            inode: stat.st_ino,
        }),
    })
}

/// The access ACL, if the file system and the file have one.
pub(super) fn acl(path: &Path) -> io::Result<Option<Acl>> {
    let mut value = vec![0; acl::LIMIT];
    // By name, so that a device is not opened.
    let length = match lgetxattr(path, acl::ATTRIBUTE, value.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let acl = Acl::of_bytes(value.get(..length).unwrap_or_default(), stat(path)?.mode);
    acl.map_err(|problem| io::Error::other(format!("invalid ACL: {problem}")))
}

/// The names in a directory that are UTF-8, unsorted.
pub(crate) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if names.len() == DIRECTORY_LIMIT {
            return Err(io::Error::other(format!("more than {DIRECTORY_LIMIT} entries")));
        }
        names.push(name);
    }
    Ok(names)
}

/// The names in a directory like [`names`], and their files like [`stat_cached`].
pub(super) fn names_and_stats(path: &Path) -> io::Result<Vec<(String, io::Result<Stat>)>> {
    // Without this flag a link to a device would open it, and one to a FIFO would block.
    let flags = OFlag::O_DIRECTORY.bits();
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut directory = Dir::new(directory)?;
    let mut found = Vec::new();
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !matches!(name, "." | "..") {
            found.push((name.to_owned(), stat_at(directory.fd()?, entry.file_name())));
        }
        if found.len() > DIRECTORY_LIMIT {
            return Err(io::Error::other(format!("more than {DIRECTORY_LIMIT} entries")));
        }
    }
    Ok(found)
}

/// Like [`stat`], without querying a file server.
pub(super) fn stat_cached(path: &Path) -> io::Result<Stat> {
    stat_at(CWD, path)
}

fn stat_at(directory: impl AsFd, path: impl Arg) -> io::Result<Stat> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = statx(directory, path, flags, StatxFlags::BASIC_STATS)?;
    let device = DeviceNumber { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
    let holder = DeviceNumber { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
    Ok(Stat {
        kind: kind(stat.stx_mode.into(), device),
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        file: Some(FileId { device: holder, inode: stat.stx_ino }),
    })
}

/// The kernel's numbers have 12 and 20 bits; the C library's types are wider.
fn number(major: u64, minor: u64) -> DeviceNumber {
    let fitting = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    DeviceNumber { major: fitting(major), minor: fitting(minor) }
}

fn kind(mode: u32, number: DeviceNumber) -> FileKind {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileKind::Regular,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFCHR => FileKind::CharDevice(number),
        _ => FileKind::Other,
    }
}

/// Reads a regular file. Calling stat first keeps devices from being opened.
pub(super) fn read(
    path: &Path,
    follow_last: bool,
    limit: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    // The files of processes are always regular, and there are very many.
    let is_maps = follow_last && path.starts_with("/proc") && path.ends_with("maps");
    let open = if is_maps { open_regular } else { open_file };
    read_file(open(path, follow_last)?, limit, buffer)
}

/// Reads an open regular file.
pub(super) fn read_file(file: fs::File, limit: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    file.take(limit as u64 + 1).read_to_end(buffer)?;
    if buffer.len() > limit { Err(too_large(limit)) } else { Ok(()) }
}

/// Opens a file if it is regular.
pub(super) fn open_file(path: &Path, follow_last: bool) -> io::Result<fs::File> {
    match stat(path)?.kind {
        FileKind::Regular => open_regular(path, follow_last),
        FileKind::Directory => Err(super::error::os_error(Errno::EISDIR)),
        _ => Err(not_a_file()),
    }
}

/// Opens a file that is known to be regular.
fn open_regular(path: &Path, follow_last: bool) -> io::Result<fs::File> {
    // Below another root all links were followed; a new link at the end could lead out.
    let last = if follow_last { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | last;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use super::names_and_stats;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;
    use std::time::Duration;
    use std::{io, thread};

    #[test]
    fn a_file_in_place_of_a_directory_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [fifo, link] = ["fifo", "link"].map(|name| folder.path().join(name));
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        symlink(&fifo, &link).unwrap();
        let (send, result) = channel();
        thread::spawn(move || send.send(names_and_stats(&link).map_err(|error| error.kind())));
        // To open a FIFO without a writer would block.
        let result = result.recv_timeout(Duration::from_secs(5)).expect("it was opened");
        assert_eq!(result.err(), Some(io::ErrorKind::NotADirectory));
    }
}
