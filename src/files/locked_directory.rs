//! A directory for the program's own files, used by one process at a time. A file is written
//! completely or not at all, even if the program is killed.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::files::user_file;
use crate::sysroot::{describe, names};
use crate::values::text::shown;
use std::thread::sleep;

/// The reason why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryProblem {
    #[error("{}: {}", shown(path), describe(cause))]
    Io { path: PathBuf, cause: io::Error },
    #[error("{}: not a directory{}", shown(path), if *.is_link { " (symbolic link)" } else { "" })]
    NoDirectory { path: PathBuf, is_link: bool },
    #[error(
        "{}: symbolic link to {}, which is outside {}",
        shown(path),
        shown(target),
        shown(root)
    )]
    LeadsOut { path: PathBuf, target: PathBuf, root: PathBuf },
    #[error("{}: not a regular file (remove it)", shown(path))]
    NoFile { path: PathBuf },
    #[error("{}: locked by another process (try again; `fuser` lists it)", shown(path))]
    Busy { path: PathBuf },
}

impl DirectoryProblem {
    /// Whether the directory was refused, as opposed to a failed system call.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::LeadsOut { .. })
    }

    pub(crate) fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }
}

/// The directory, which may not exist yet.
#[derive(Debug)]
pub(crate) struct OwnDirectory {
    path: PathBuf,
    /// Prefix of the names of files that are being written.
    unfinished: &'static str,
}

/// The directory while it is locked.
#[derive(Debug)]
pub(crate) struct Locked {
    path: PathBuf,
    unfinished: &'static str,
    handle: File,
    /// Unlocks the directory when it is dropped.
    _lock: File,
}

impl OwnDirectory {
    /// The directory with these names below a root. The root and all existing components of the
    /// path must be directories, and none may lead out of the root.
    pub(crate) fn below(
        root: &Path,
        names: &[&str],
        unfinished: &'static str,
    ) -> Result<Self, DirectoryProblem> {
        let failed = |cause| DirectoryProblem::io(root, cause);
        let root = fs::canonicalize(root).map_err(failed)?;
        if !root.is_dir() {
            return Err(DirectoryProblem::NoDirectory { path: root, is_link: false });
        }
        let mut directory = root.clone();
        for name in names {
            let path = directory.join(name);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    directory = path;
                    continue;
                }
                Err(cause) => return Err(DirectoryProblem::io(&path, cause)),
            };
            let is_link = metadata.is_symlink();
            let real =
                fs::canonicalize(&path).map_err(|cause| DirectoryProblem::io(&path, cause))?;
            if !real.starts_with(&root) {
                return Err(DirectoryProblem::LeadsOut { path, target: real, root });
            }
            if !real.is_dir() {
                return Err(DirectoryProblem::NoDirectory { path, is_link });
            }
            directory = real;
        }
        Ok(Self { path: directory, unfinished })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates it and its parents, readable by all users whatever the umask is.
    pub(crate) fn create(&self) -> Result<(), DirectoryProblem> {
        let missing: Vec<_> = self.path.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            let made = match fs::create_dir(path) {
                // Another process created it in the meantime.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
                Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
            };
            made.map_err(|cause| DirectoryProblem::io(path, cause))?;
        }
        Ok(())
    }

    /// Locks it, waiting at most this long for other processes. Unfinished files of processes that
    /// were killed are removed.
    pub(crate) fn lock(&self, wait: Duration) -> Result<Locked, DirectoryProblem> {
        let failed = |cause| DirectoryProblem::io(&self.path, cause);
        let lock = File::open(&self.path).map_err(failed)?;
        self.lock_with(lock, &self.path, wait)
    }

    /// Like [`Self::lock`], with a lock file that only its owner can open: anyone who can read a
    /// directory can lock it.
    pub(crate) fn lock_by(&self, name: &str, wait: Duration) -> Result<Locked, DirectoryProblem> {
        let path = self.path.join(name);
        // Opening a FIFO would block, and opening a device may have side effects.
        if fs::symlink_metadata(&path).is_ok_and(|lock| !lock.is_file()) {
            return Err(DirectoryProblem::NoFile { path });
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let lock = options.open(&path);
        let lock = lock.map_err(|cause| DirectoryProblem::io(&path, cause))?;
        self.lock_with(lock, &path, wait)
    }

    fn lock_with(
        &self,
        lock: File,
        path: &Path,
        wait: Duration,
    ) -> Result<Locked, DirectoryProblem> {
        let failed = |cause| DirectoryProblem::io(path, cause);
        let started = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() >= wait => {
                    return Err(DirectoryProblem::Busy { path: path.to_owned() });
                }
                Err(rustix::io::Errno::WOULDBLOCK) => sleep(Duration::from_millis(2)),
                Err(error) => return Err(failed(error.into())),
            }
        }
        // It may have been removed and recreated in the meantime.
        let is_same = |now: fs::Metadata, held: fs::Metadata| {
            (now.dev(), now.ino()) == (held.dev(), held.ino())
        };
        if !is_same(fs::metadata(path).map_err(failed)?, lock.metadata().map_err(failed)?) {
            return Err(DirectoryProblem::Busy { path: path.to_owned() });
        }
        let handle = File::open(&self.path).map_err(failed)?;
        // Leftovers that cannot be listed or removed do no harm: they are never read.
        for name in names(&self.path).unwrap_or_default() {
            let path = self.path.join(&name);
            let is_file = || fs::symlink_metadata(&path).is_ok_and(|it| it.is_file());
            if name.starts_with(self.unfinished) && is_file() {
                let _ = fs::remove_file(path);
            }
        }
        let Self { path, unfinished } = self;
        Ok(Locked { path: path.clone(), unfinished, handle, _lock: lock })
    }
}

impl Locked {
    /// Creates a file with a temporary name, for its owner only.
    pub(crate) fn create(&self) -> io::Result<NamedTempFile> {
        new_file(&self.path, self.unfinished, 0o600)
    }

    /// Writes a file under a temporary name.
    pub(crate) fn write(&self, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
        let mut new = self.create()?;
        let file = new.as_file_mut();
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(new)
    }

    /// Moves it to its path, replacing a file there.
    pub(crate) fn put(&self, new: NamedTempFile, path: &Path) -> io::Result<()> {
        new.persist(path).map_err(|error| error.error)?;
        self.sync()
    }

    /// Moves it to its path unless a file exists there.
    pub(crate) fn put_new(&self, new: NamedTempFile, path: &Path) -> io::Result<()> {
        new.persist_noclobber(path).map_err(|error| error.error)?;
        self.sync()
    }

    /// Syncs the directory to disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Reads a regular file; never blocks on a pipe, and follows no link.
pub(crate) fn read_regular(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    user_file::read_all(file, limit)
}

/// Creates an unfinished file. Unlike errors of `tempfile_in`, its errors do not contain the
/// temporary name, which is of no use to a user.
pub(crate) fn new_file(directory: &Path, prefix: &str, mode: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(prefix).make_in(directory, |path| {
        File::options().read(true).write(true).create_new(true).mode(mode).open(path)
    })
}

#[cfg(test)]
mod tests {
    use super::OwnDirectory;
    use std::time::{Duration, Instant};

    #[test]
    fn a_locked_directory_is_waited_for_only_so_long() {
        let folder = tempfile::tempdir().unwrap();
        let directory = OwnDirectory::below(folder.path(), &[], ".new").unwrap();
        let wait = Duration::from_millis(50);
        let locked = directory.lock(wait).unwrap();
        let started = Instant::now();
        let problem = directory.lock(wait).err().unwrap();
        assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
        assert!(problem.to_string().contains("locked by another process"), "{problem}");
        drop(locked);
        assert!(directory.lock(wait).is_ok());
    }
}
