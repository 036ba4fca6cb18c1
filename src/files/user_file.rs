//! Files named by the user: read completely, and replaced completely or not at all.

use std::ffi::CStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use crate::files::locked_directory::{Locked, OwnDirectory, new_file};
use crate::sysroot::{describe, not_a_file, open_named};
use crate::values::text::{excerpt, shown};

/// A file that could not be read or replaced.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}{}", excerpt(&path.to_string_lossy(), 300), if *writing { "cannot be written: " } else { "" }, describe(cause))]
pub(crate) struct FileError {
    path: PathBuf,
    writing: bool,
    cause: io::Error,
}

/// The start of the name of a file that is about to replace an edited one.
const UNFINISHED: &str = ".egm-probe-edit-";

impl FileError {
    /// Whether the file does not exist.
    pub(crate) fn is_absent(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }
}

/// A file as it was read. No other edit in its directory begins before this one is dropped.
#[derive(Debug)]
pub(crate) struct Edit {
    /// As the user named it.
    path: PathBuf,
    /// Where links lead to.
    pub(crate) real: PathBuf,
    pub(crate) bytes: Vec<u8>,
    metadata: Metadata,
    directory: Locked,
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let failed = |cause| FileError { path: path.to_owned(), writing: false, cause };
    open_named(path).and_then(|file| read_all(file, limit)).map_err(failed)
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

impl Edit {
    /// Reads a file of at most `limit` bytes that is to be replaced. Edits by other runs are waited
    /// for at most this long. The directory is locked, because a lock on the file would end with
    /// its replacement; what killed runs left there is removed.
    pub(crate) fn begin(path: &Path, limit: usize, wait: Duration) -> Result<Self, FileError> {
        let failed = |writing| move |cause| FileError { path: path.to_owned(), writing, cause };
        if !fs::metadata(path).map_err(failed(false))?.is_file() {
            return Err(failed(true)(not_a_file()));
        }
        let real = fs::canonicalize(path).map_err(failed(false))?;
        let directory = real.parent().unwrap_or(&real);
        let directory = OwnDirectory::below(directory, &[], UNFINISHED)
            .and_then(|directory| directory.lock(wait))
            .map_err(|problem| failed(true)(io::Error::other(problem)))?;
        let file = open_named(&real).map_err(failed(false))?;
        let metadata = file.metadata().map_err(failed(false))?;
        if metadata.nlink() > 1 {
            let problem = format!(
                "has {} hard links, and the others would keep the old contents (print the result \
                 and copy it into the file, or remove the other links)",
                metadata.nlink()
            );
            return Err(failed(true)(io::Error::new(io::ErrorKind::InvalidInput, problem)));
        }
        let bytes = read_all(file, limit).map_err(failed(false))?;
        Ok(Self { path: path.to_owned(), real, bytes, metadata, directory })
    }

    /// Replaces the contents of the file, completely or not at all. Owner and mode are preserved, a
    /// link remains a link, and changes by programs that do not lock are not overwritten.
    pub(crate) fn replace(&self, bytes: &[u8]) -> Result<(), FileError> {
        let failed = |cause| FileError { path: self.path.clone(), writing: true, cause };
        self.replace_file(bytes).map_err(failed)
    }

    fn replace_file(&self, bytes: &[u8]) -> io::Result<()> {
        let (real, old) = (&self.real, &self.metadata);
        let mut new = self.directory.create()?;
        new.write_all(bytes)?;
        let is_ours = {
            let metadata = new.as_file().metadata()?;
            (metadata.uid(), metadata.gid()) == (old.uid(), old.gid())
        };
        if !is_ours {
            fchown(new.as_file(), Some(old.uid()), Some(old.gid()))
                .map_err(|error| kept("its owner", &error))?;
        }
        // After the owner, because changing the owner clears set-id bits.
        set_mode(new.as_file(), old.mode() & 0o7777)?;
        let now = File::open(real)?;
        copy_attributes(&now, new.as_file())
            .map_err(|error| kept("its extended attributes", &error))?;
        new.as_file().sync_all()?;
        // The time alone does not show changes within a few milliseconds.
        let is_same = identity(&fs::metadata(real)?) == identity(old)
            && read_all(now, self.bytes.len()).is_ok_and(|now| now == self.bytes);
        if !is_same {
            return Err(io::Error::other("modified by another process (try again)"));
        }
        self.directory.put(new, real)
    }
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
        Ok(_) => return Err(not_a_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::metadata(path).is_ok() {
                return Err(not_a_file());
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
    let synced = match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return problem(&format!("directory {} does not exist", shown(directory)));
        }
        opened => opened?,
    };
    let mode = fs::metadata(&real).ok().map(|old| old.mode() & 0o777);
    // The umask applies to a new file.
    let mut new = new_file(directory, ".egm-probe-", mode.unwrap_or(0o666))?;
    let file = new.as_file_mut();
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        set_mode(file, mode)?;
    }
    file.sync_all()?;
    new.persist(&real).map_err(|error| error.error)?;
    synced.sync_all()
}

/// The error if a property of the old file cannot be applied to the new one.
fn kept(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} cannot be preserved: {}", describe(error)))
}

/// Sets the mode of a new file, which inherits no other permissions from its directory.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    match fremovexattr(file, c"system.posix_acl_access") {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
        Err(error) => return Err(error.into()),
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Copies labels, access control lists and other extended attributes.
fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    const MOST: usize = 1 << 16;
    let mut names = vec![0; MOST];
    let length = match flistxattr(from, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
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
fn identity(metadata: &Metadata) -> (u64, u64, u64, u64, i64, i64) {
    let (time, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    let (device, inode) = (metadata.dev(), metadata.ino());
    (device, inode, metadata.nlink(), metadata.size(), time, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::{Edit, read};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::time::Duration;

    fn edit(path: &Path) -> Edit {
        Edit::begin(path, 100, Duration::ZERO).unwrap()
    }

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
        let edit = edit(&link);
        assert_eq!(edit.bytes, b"old");
        edit.replace(b"new").unwrap();
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
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let edit = edit(&path);
        fs::write(&path, "own").unwrap();
        // As a change within one tick of the file system's clock.
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let error = edit.replace(b"new").unwrap_err().to_string();
        assert!(
            error.ends_with("file: cannot be written: modified by another process (try again)")
        );
        assert_eq!(fs::read(&path).unwrap(), b"own");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_edit_that_does_not_end_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "old").unwrap();
        let first = edit(&path);
        let error = Edit::begin(&path, 100, Duration::from_millis(5)).unwrap_err().to_string();
        assert!(error.contains(": locked by another process (try again"), "{error}");
        drop(first);
        assert_eq!(edit(&path).bytes, b"old");
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
