//! Errors of reading a host.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::values::text::shown;
use crate::warning::Warning;

/// A host path that could not be read, and the cause.
///
/// The path is the host's (`/sys/class/egm`), whether it was read from another root or an archive.
///
/// ```
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::capture("tests/fixtures/no-egm".as_ref())?;
/// let error = root.read_link("/sys/class/egm/egm4").unwrap_err();
/// assert_eq!(error.to_string(), "/sys/class/egm/egm4: No such file or directory");
/// assert!(error.is_absent());
/// # Ok::<(), egm_probe::sysroot::OpenError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ReadError {
    /// The host path.
    pub path: PathBuf,
    /// The error of the system, or of the archive.
    pub cause: io::Error,
}

impl ReadError {
    pub(super) fn new(path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self { path: path.into(), cause }
    }

    /// Whether the file's owner is gone: the path is missing, or its process exited while `/proc`
    /// was read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_absent() || self.cause.raw_os_error() == Some(Errno::ESRCH as i32)
    }

    /// Whether the path does not exist, as opposed to being unreadable. This includes a path through
    /// a regular file.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }
}

impl Warning {
    pub(crate) fn unreadable(error: &ReadError) -> Self {
        Self::Unreadable { path: error.path.clone(), cause: describe(&error.cause) }
    }

    /// The warning about a path that may be missing.
    pub(crate) fn unless_absent(error: &ReadError) -> Option<Self> {
        (!error.is_absent()).then(|| Self::unreadable(error))
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.path), describe(&self.cause))
    }
}

impl std::error::Error for ReadError {}

/// The message of an I/O error, without the number that the standard library adds.
#[must_use]
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else {
        return text;
    };
    text.strip_suffix(&format!(" (os error {number})")).map_or(text.clone(), str::to_owned)
}

/// The error that the kernel would return.
pub(super) fn os_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

/// Reads a path that should exist, for example one that was listed; tries again before reporting it
/// as missing.
pub(crate) fn unless_gone<T>(
    mut read: impl FnMut() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    read().or_else(|error| if error.is_absent() { read() } else { Err(error) })
}

/// A root or archive that cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The root or archive does not exist, has the wrong type, or is not readable.
    #[error("{}: {}", shown(path), describe(cause))]
    Unreadable {
        /// The path as given.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// The file is not an archive, or is damaged or too large.
    #[error("{}: {problem} (expected a tar or tar.gz archive of sys/, proc/, ..)", shown(path))]
    BadArchive {
        /// The path as given; `-` for a stream.
        path: PathBuf,
        /// A description of the problem.
        problem: String,
    },
    /// A directory that cannot be read as a capture.
    #[error("{}: {problem}", shown(path))]
    BadDirectory {
        /// The file or directory in it.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}
