//! Files named by the user: read completely, and replaced completely or not at all.

use std::ffi::CStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};

use crate::files::locked_directory::new_file;
use crate::sysroot::{describe, open_named};
use crate::values::text::excerpt;

/// A file that could not be read or replaced.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}{}", excerpt(&path.to_string_lossy(), 300), if *writing { "cannot be written: " } else { "" }, describe(cause))]
pub(crate) struct FileError {
    path: PathBuf,
    writing: bool,
    cause: io::Error,
}

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct FileVersion {
    pub(crate) bytes: Vec<u8>,
    metadata: Metadata,
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<FileVersion, FileError> {
    let failed = |cause| FileError { path: path.to_owned(), writing: false, cause };
    let file = open_named(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let bytes = read_all(file, limit).map_err(failed)?;
    Ok(FileVersion { bytes, metadata })
}

/// Reads a stream of at most `limit` bytes.
pub(crate) fn read_all(stream: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    stream.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let problem = format!("larger than {} MiB", limit >> 20);
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(bytes)
}

/// Replaces the contents of a file that was read before, completely or not at all. Owner and mode
/// are preserved, a link remains a link, and changes by another process are not overwritten.
pub(crate) fn replace(path: &Path, old: &FileVersion, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |cause| FileError { path: path.to_owned(), writing: true, cause };
    replace_file(path, old, bytes).map_err(failed)
}

/// Creates or replaces a file atomically.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |cause| FileError { path: path.to_owned(), writing: true, cause };
    write_file(path, bytes).map_err(failed)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let problem = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let link = fs::symlink_metadata(path).ok();
    // Like fs.protected_symlinks in /tmp: another user must not choose which file is overwritten.
    let is_others = |link: &Metadata| ![0, geteuid().as_raw()].contains(&link.uid());
    if link.as_ref().is_some_and(|link| link.is_symlink() && is_others(link)) {
        return problem("symbolic link owned by another user");
    }
    let real = match fs::canonicalize(path) {
        Ok(real) if real.is_file() => real,
        Ok(_) => return problem("not a regular file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::metadata(path).is_ok() {
                return problem("not a regular file");
            }
            if link.is_some() {
                return problem("dangling symbolic link");
            }
            path.to_owned()
        }
        Err(error) => return Err(error),
    };
    let directory = real.parent().filter(|it| !it.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // Opened before anything is changed: it is needed to sync.
    let synced = File::open(directory)?;
    let mode = fs::metadata(&real).ok().map(|old| old.mode() & 0o777);
    // The umask applies to a new file.
    let mut new = new_file(directory, ".egm-probe-", mode.unwrap_or(0o666))?;
    let file = new.as_file_mut();
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.sync_all()?;
    new.persist(&real).map_err(|error| error.error)?;
    synced.sync_all()
}

fn replace_file(path: &Path, old: &FileVersion, bytes: &[u8]) -> io::Result<()> {
    let problem = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if !old.metadata.is_file() {
        return problem("not a regular file");
    }
    let real = fs::canonicalize(path)?;
    let Some(directory) = real.parent() else { return problem("not a file in a directory") };
    // Opened before anything is changed: it is needed to sync.
    let synced = File::open(directory)?;
    let mut new = new_file(directory, ".egm-probe-", 0o600)?;
    new.write_all(bytes)?;
    let is_ours = {
        let metadata = new.as_file().metadata()?;
        (metadata.uid(), metadata.gid()) == (old.metadata.uid(), old.metadata.gid())
    };
    if !is_ours {
        fchown(new.as_file(), Some(old.metadata.uid()), Some(old.metadata.gid()))
            .map_err(|error| kept("its owner", &error))?;
    }
    // After the owner, because changing the owner clears set-id bits.
    let mode = fs::Permissions::from_mode(old.metadata.mode() & 0o7777);
    new.as_file().set_permissions(mode)?;
    copy_attributes(&File::open(&real)?, new.as_file())
        .map_err(|error| kept("its extended attributes", &error))?;
    new.as_file().sync_all()?;
    if identity(&fs::metadata(&real)?) != identity(&old.metadata) {
        return problem("modified by another process");
    }
    new.persist(&real).map_err(|error| error.error)?;
    synced.sync_all()
}

/// The error if a property of the old file cannot be applied to the new one.
fn kept(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} cannot be preserved: {}", describe(error)))
}

/// Copies labels, access control lists and other extended attributes.
fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    const MOST: usize = 1 << 16;
    let mut names = vec![0; MOST];
    let length = match flistxattr(from, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let mut value = vec![0; MOST];
        let length = fgetxattr(from, name, &mut value)?;
        let value = value.get(..length).unwrap_or_default();
        // Skip attributes inherited from the directory.
        let mut has = vec![0; MOST];
        let same =
            fgetxattr(to, name, &mut has).is_ok_and(|length| has.get(..length) == Some(value));
        if !same {
            fsetxattr(to, name, value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// Changes whenever the file is modified.
fn identity(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::{read, replace};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn replacing_a_file_preserves_owner_mode_and_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(&real, Some(12345), Some(54321)).unwrap();
        }
        symlink("real", &link).unwrap();
        let old = read(&link, 100).unwrap();
        assert_eq!(old.bytes, b"old");
        replace(&link, &old, b"new").unwrap();
        let metadata = fs::symlink_metadata(&real).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert!(!is_root || (metadata.uid(), metadata.gid()) == (12345, 54321));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn changes_by_another_process_are_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "old").unwrap();
        let old = read(&path, 100).unwrap();
        fs::write(&path, "other").unwrap();
        let error = replace(&path, &old, b"new").unwrap_err().to_string();
        assert!(error.ends_with("file: cannot be written: modified by another process"));
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_files_within_bounds_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [0; 101]).unwrap();
        assert!(read(&path, 100).is_err() && read(&path, 101).is_ok());
        assert!(read(directory.path(), 100).is_err());
        let error = read("/dev/null".as_ref(), 100).unwrap_err().to_string();
        assert_eq!(error, "/dev/null: not a regular file");
    }
}
