//! The files of a host: the running host, a host below another directory, or a capture.
//!
//! No other module of the library accesses a host's file system. Other modules use host paths such
//! as `/sys/class/egm`, and do not know about the directory or archive behind them.
//!
//! Only regular files are ever opened for reading: opening `/dev/egm<N>` makes the driver clear the
//! whole region, and opening a FIFO would block.

mod acl;
mod archive;
mod directory;
mod error;
pub(crate) mod manifest;
mod mapped_files;
mod mount;
mod path;
mod recorder;
mod stat;

use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, OnceLock};

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

pub use acl::Acl;
pub(crate) use acl::Tag;
use archive::Archive;
#[cfg(feature = "cli")]
pub(crate) use directory::names;
pub(crate) use error::describe;
pub(crate) use error::unless_gone;
pub use error::{OpenError, ReadError};
use manifest::{Manifest, Op};
use mount::Sys;
pub(crate) use path::join_link;
pub(crate) use recorder::Log;
use recorder::Recorder;
pub use stat::{FileId, FileKind, Stat};

/// Maximum size of an attribute file. The kernel returns at most a page, which is 64 KiB on the
/// kernels that Grace hosts usually run.
pub const ATTRIBUTE_LIMIT: usize = 64 * 1024;

/// Maximum size of a list such as `pci.ids` (1.5 MiB in 2026) or `/etc/passwd`.
pub const LIST_LIMIT: usize = 16 * 1024 * 1024;

/// Maximum number of names in a directory. Only `/proc` could have as many: the kernel allows
/// 4,194,304 processes.
const DIRECTORY_LIMIT: usize = 1 << 20;

/// A host to read from. Cheap to clone.
///
/// ```
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::capture("tests/fixtures/gb200-gpu-list/host.tar.gz".as_ref())?;
/// assert_eq!(root.entries("/sys/class/egm")?, ["egm4", "egm5"]);
/// assert_eq!(root.read_text("/sys/class/egm/egm4/dev")?, "244:4\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sysroot(Backend);

/// A name in a directory, and its file.
pub(crate) type EntryStat = (String, Result<Stat, ReadError>);

#[derive(Clone, Debug)]
enum Backend {
    /// With its `/sys`, after the first access.
    Host(Arc<OnceLock<Option<Sys>>>),
    Directory(Arc<PathBuf>),
    Archive(Arc<Archive>),
    Recorded(Arc<Recorder>),
}

impl Backend {
    fn is_host(&self) -> bool {
        matches!(self, Self::Host(_))
    }
}

impl Sysroot {
    /// The running host.
    #[must_use]
    pub fn host() -> Self {
        Self(Backend::Host(Arc::default()))
    }

    /// The host whose `sys`, `proc`, .. are in a directory. Symbolic links are resolved as after
    /// `chroot`: they cannot lead out of it.
    ///
    /// # Errors
    /// The directory is missing or not a directory.
    pub fn directory(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |cause| OpenError::Unreadable { path: path.to_owned(), cause };
        let base = fs::canonicalize(path).map_err(unreadable)?;
        if !fs::metadata(&base).map_err(unreadable)?.is_dir() {
            return Err(unreadable(io::Error::new(
                io::ErrorKind::NotADirectory,
                "not a directory (use --from to read a capture)",
            )));
        }
        // A directory that cannot be searched would look like an empty host.
        access(&base, AccessFlags::X_OK).map_err(|errno| unreadable(errno.into()))?;
        // The root of the running host is the host, whatever its name.
        if base == Path::new("/") {
            return Ok(Self::host());
        }
        Ok(Self(Backend::Directory(Arc::new(base))))
    }

    /// The host that a capture holds: a tar archive, gzip-compressed or not, of `sys/`, `proc/`, ..,
    /// or a directory with these. The archive is read into memory; nothing is ever extracted. A
    /// directory with a file `nodes` (device nodes, owners, modes) or `capture.json` is read as an
    /// archive of it would be, any other one as by [`Sysroot::directory`].
    ///
    /// # Errors
    /// It cannot be read, is not such an archive or directory, is damaged, names a path outside
    /// of itself, or is larger than a capture may be.
    pub fn capture(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |cause| OpenError::Unreadable { path: path.to_owned(), cause };
        if archive::is_capture(path) {
            return Ok(Self(Backend::Archive(Arc::new(Archive::read_directory(path)?))));
        }
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Self::directory(path);
        }
        Self::from_named_tar(open_named(path).map_err(unreadable)?, path)
    }

    /// Like [`Sysroot::capture`], from any stream.
    ///
    /// # Errors
    /// Like [`Sysroot::capture`].
    pub fn from_tar(stream: impl Read) -> Result<Self, OpenError> {
        Self::from_named_tar(stream, Path::new("-"))
    }

    fn from_named_tar(stream: impl Read, path: &Path) -> Result<Self, OpenError> {
        let archive = Archive::read(stream)
            .map_err(|problem| OpenError::BadArchive { path: path.to_owned(), problem })?;
        Ok(Self(Backend::Archive(Arc::new(archive))))
    }

    /// Whether it may change while it is read, so that reading it again may give a different
    /// result.
    pub(crate) fn may_change(&self) -> bool {
        self.source().is_host()
    }

    /// Whether the running system may be queried about it: udev, the name service, the C library,
    /// other programs, and `/proc/self`.
    pub(crate) fn may_ask_system(&self) -> bool {
        self.source().is_host()
    }

    /// Whether the names and links in its `/proc` are valid as written. The `/proc` of a running
    /// kernel below another root refers to other file systems.
    pub(crate) fn may_trust_proc(&self) -> bool {
        let Backend::Directory(base) = self.source() else { return true };
        !statfs(&base.join("proc")).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC)
    }

    /// The manifest of a capture; `None` if this is not a capture of egm-probe.
    pub(crate) fn recorded(&self) -> Option<&Manifest> {
        match self.source() {
            Backend::Archive(archive) => archive.manifest(),
            _ => None,
        }
    }

    /// Whether a path that was not found did not exist: a capture has only the files that the version
    /// which made it looked for, so it says so of paths that older versions did not read.
    pub(crate) fn knows_absence(&self, path: &Path) -> bool {
        self.recorded().is_none_or(|manifest| manifest.problem(path, Op::Stat).is_some())
    }

    /// The backend that is not a recorder.
    fn source(&self) -> &Backend {
        match &self.0 {
            Backend::Recorded(recorder) => recorder.host.source(),
            source => source,
        }
    }

    /// The same host, with everything that is read recorded.
    pub(crate) fn recording(&self) -> Self {
        Self(Backend::Recorded(Arc::new(Recorder::of(self))))
    }

    /// The record so far, if this host is being recorded.
    pub(crate) fn log(&self) -> Option<MutexGuard<'_, Log>> {
        match &self.0 {
            Backend::Recorded(recorder) => Some(recorder.log()),
            _ => None,
        }
    }

    /// The names in a directory, sorted. Names that are not UTF-8 are omitted: no file that is read
    /// here has one.
    ///
    /// # Errors
    /// The directory cannot be read, or has more than a million entries.
    pub fn entries(&self, path: impl AsRef<Path>) -> Result<Vec<String>, ReadError> {
        let path = path.as_ref();
        let names = match &self.0 {
            Backend::Host(_) => directory::names(path),
            Backend::Directory(base) => {
                directory::locate(base, path).and_then(|at| directory::names(&at))
            }
            Backend::Archive(archive) => archive.entries(path),
            Backend::Recorded(recorder) => return recorder.entries(path),
        };
        let mut names = names.map_err(|cause| ReadError::new(path, cause))?;
        names.sort_unstable();
        Ok(names)
    }

    /// The target of a symbolic link, as written in it.
    ///
    /// # Errors
    /// The path is not a link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, ReadError> {
        let path = path.as_ref();
        let target = match &self.0 {
            Backend::Host(_) => fs::read_link(path),
            Backend::Directory(base) => directory::locate_link(base, path).and_then(fs::read_link),
            Backend::Archive(archive) => archive.read_link(path),
            Backend::Recorded(recorder) => return recorder.read_link(path),
        };
        target.map_err(|cause| {
            // The kernel's "Invalid argument" would not be helpful.
            let is_no_link = cause.raw_os_error() == Some(Errno::EINVAL as i32);
            let cause = if is_no_link { io::Error::other("not a symbolic link") } else { cause };
            ReadError::new(path, cause)
        })
    }

    /// Type, mode and owner of the file at a path. Never opens it.
    ///
    /// # Errors
    /// The path does not exist.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat, ReadError> {
        let path = path.as_ref();
        let stat = match &self.0 {
            Backend::Host(_) => directory::stat(path),
            Backend::Directory(base) => {
                directory::locate(base, path).and_then(|at| directory::stat(&at))
            }
            Backend::Archive(archive) => archive.stat(path),
            Backend::Recorded(recorder) => return recorder.stat(path, recorder.host.stat(path)),
        };
        stat.map_err(|cause| ReadError::new(path, cause))
    }

    /// The access ACL of the file at a path, if it has more than the mode shows. Never opens it.
    ///
    /// # Errors
    /// The ACL is invalid, or cannot be read.
    pub fn acl(&self, path: impl AsRef<Path>) -> Result<Option<Acl>, ReadError> {
        let path = path.as_ref();
        let acl = match &self.0 {
            Backend::Host(_) => {
                directory::locate(Path::new("/"), path).and_then(|at| directory::acl(&at))
            }
            Backend::Directory(base) => {
                directory::locate(base, path).and_then(|at| directory::acl(&at))
            }
            Backend::Archive(archive) => archive.acl(path),
            Backend::Recorded(recorder) => return recorder.acl(path),
        };
        acl.map_err(|cause| ReadError::new(path, cause))
    }

    /// Like [`Sysroot::stat`], without querying a file server: the links of `/proc/<pid>/fd` may
    /// lead to a network file system whose server is down.
    ///
    /// # Errors
    /// The path does not exist.
    pub fn stat_cached(&self, path: impl AsRef<Path>) -> Result<Stat, ReadError> {
        let path = path.as_ref();
        match &self.0 {
            Backend::Host(_) => {
                directory::stat_cached(path).map_err(|cause| ReadError::new(path, cause))
            }
            Backend::Directory(_) | Backend::Archive(_) => self.stat(path),
            Backend::Recorded(recorder) => recorder.stat(path, recorder.host.stat_cached(path)),
        }
    }

    /// The names in a directory like [`Sysroot::entries`], and their files like
    /// [`Sysroot::stat_cached`]. Faster than both for many directories, such as `/proc/<pid>/fd`.
    ///
    /// # Errors
    /// Like [`Sysroot::entries`].
    pub(crate) fn entries_and_stats(&self, path: &Path) -> Result<Vec<EntryStat>, ReadError> {
        if !self.0.is_host() {
            let stat = |name: String| {
                let stat = self.stat_cached(path.join(&name));
                (name, stat)
            };
            return Ok(self.entries(path)?.into_iter().map(stat).collect());
        }
        let found =
            directory::names_and_stats(path).map_err(|cause| ReadError::new(path, cause))?;
        let named = |(name, stat): (String, io::Result<Stat>)| {
            let stat = stat.map_err(|cause| ReadError::new(path.join(&name), cause));
            (name, stat)
        };
        Ok(found.into_iter().map(named).collect())
    }

    /// The contents of a regular file.
    ///
    /// # Errors
    /// It cannot be read, is not a regular file, or is larger than `limit` bytes.
    pub fn read(&self, path: impl AsRef<Path>, limit: usize) -> Result<Vec<u8>, ReadError> {
        // A page rather than the size from stat, which is always a page in sysfs and 0 in proc.
        let mut bytes = Vec::with_capacity(4096);
        self.read_into(path, limit, &mut bytes)?;
        Ok(bytes)
    }

    /// Like [`Sysroot::read`], but a symbolic link at the end is an error: for directories of other
    /// users, who could replace a file with a link.
    ///
    /// # Errors
    /// Like [`Sysroot::read`], or it is a link.
    pub fn read_no_link(&self, path: impl AsRef<Path>, limit: usize) -> Result<Vec<u8>, ReadError> {
        let path = path.as_ref();
        if let Backend::Recorded(recorder) = &self.0 {
            let result = recorder.host.read_no_link(path, limit);
            let bytes = result.as_deref().unwrap_or_default().to_owned();
            return recorder.read(path, result.map(|_| ()), &bytes).map(|()| bytes);
        }
        if self.read_link(path).is_ok() {
            return Err(ReadError::new(path, error::os_error(Errno::ELOOP)));
        }
        if !self.0.is_host() {
            return self.read(path, limit);
        }
        let mut bytes = Vec::new();
        directory::read(path, false, limit, &mut bytes)
            .map_err(|cause| ReadError::new(path, cause))?;
        Ok(bytes)
    }

    /// Like [`Sysroot::read`], into a reusable buffer.
    ///
    /// # Errors
    /// Like [`Sysroot::read`]; the contents of the buffer are then unspecified.
    pub fn read_into(
        &self,
        path: impl AsRef<Path>,
        limit: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let path = path.as_ref();
        buffer.clear();
        let result = match &self.0 {
            Backend::Host(sys) => {
                match sys.get_or_init(Sys::look).as_ref().and_then(|sys| sys.open(path)) {
                    Some(file) => file.and_then(|file| directory::read_file(file, limit, buffer)),
                    None => directory::read(path, true, limit, buffer),
                }
            }
            Backend::Directory(base) => directory::locate(base, path)
                .and_then(|at| directory::read(&at, false, limit, buffer)),
            Backend::Archive(archive) => archive.read_file(path).and_then(|bytes| {
                if bytes.len() > limit {
                    return Err(too_large(limit));
                }
                buffer.extend_from_slice(bytes);
                Ok(())
            }),
            Backend::Recorded(recorder) => {
                let result = recorder.host.read_into(path, limit, buffer);
                return recorder.read(path, result, buffer);
            }
        };
        result.map_err(|cause| ReadError::new(path, cause))
    }

    /// Opens a regular file; at most `limit` bytes of it can be read.
    pub(crate) fn open(
        &self,
        path: impl AsRef<Path>,
        limit: usize,
    ) -> Result<Box<dyn BufRead>, ReadError> {
        let path = path.as_ref();
        let file = match self.open_file(path) {
            Some(file) => file.map_err(|cause| ReadError::new(path, cause))?,
            None => return Ok(Box::new(Cursor::new(self.read(path, limit)?))),
        };
        Ok(Box::new(BufReader::new(file.take(limit as u64))))
    }

    /// Opens a regular file that may change; nothing in a capture does.
    pub(crate) fn open_file(&self, path: &Path) -> Option<io::Result<fs::File>> {
        match &self.0 {
            Backend::Host(_) => Some(directory::open_file(path, true)),
            Backend::Directory(base) => {
                Some(directory::locate(base, path).and_then(|at| directory::open_file(&at, false)))
            }
            Backend::Archive(_) | Backend::Recorded(_) => None,
        }
    }

    /// The text of an attribute file, at most [`ATTRIBUTE_LIMIT`] bytes.
    ///
    /// # Errors
    /// Like [`Sysroot::read`], or it is not UTF-8.
    pub fn read_text(&self, path: impl AsRef<Path>) -> Result<String, ReadError> {
        let path = path.as_ref();
        String::from_utf8(self.read(path, ATTRIBUTE_LIMIT)?).map_err(|_| {
            ReadError::new(path, io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
        })
    }
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes"))
}

pub(crate) fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Opens a path named by the user: a file, or a pipe such as `<(zcat ..)`. Devices are refused:
/// opening one may have side effects.
pub(crate) fn open_named(path: &Path) -> io::Result<fs::File> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(error::os_error(Errno::EISDIR));
    }
    if !kind.is_file() && !kind.is_fifo() {
        return Err(not_a_file());
    }
    fs::File::open(path)
}
