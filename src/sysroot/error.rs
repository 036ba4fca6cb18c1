//! Why a path of the host could not be read.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::values::text::shown;
use crate::warning::Warning;

/// A path of the host that could not be read, and the cause.
///
/// The path is the host's (`/sys/class/egm`), whatever root or archive it was read from.
///
/// ```
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::from_tar(&include_bytes!("../../tests/fixtures/no-egm/host.tar.gz")[..])?;
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
    /// What the system, or the archive in its place, answered.
    pub cause: io::Error,
}

impl ReadError {
    pub(super) fn new(path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self { path: path.into(), cause }
    }

    /// Whether what the path belongs to is gone: besides absence, what `/proc` says of a process
    /// that ended while it was read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_absent() || self.cause.raw_os_error() == Some(Errno::ESRCH as i32)
    }

    /// Whether the path is not there, as opposed to there and not readable.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        is_absent(&self.cause)
    }
}

impl Warning {
    pub(crate) fn unreadable(error: &ReadError) -> Self {
        Self::Unreadable { path: error.path.clone(), cause: describe(&error.cause) }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.path), describe(&self.cause))
    }
}

impl std::error::Error for ReadError {}

/// Whether an error says that nothing is there. A path through a file is no path either.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The words of an I/O error, without the number that the standard library adds.
#[must_use]
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else {
        return text;
    };
    text.strip_suffix(&format!(" (os error {number})")).map_or(text.clone(), str::to_owned)
}

/// The error that the kernel would have given.
pub(super) fn os_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

/// Reads what there should be, such as what was listed: it is gone only where that is said twice.
pub(crate) fn unless_gone<T>(
    mut read: impl FnMut() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    read().or_else(|error| if error.is_absent() { read() } else { Err(error) })
}

/// A root or archive that cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The root or archive is not there, is not of its kind, or may not be read.
    #[error("{}: {}", shown(path), describe(cause))]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the system answered.
        cause: io::Error,
    },
    /// The file is not an archive, or one that is damaged or asks for too much.
    #[error("{}: {problem}; wanted a tar or tar.gz of sys/, proc/, ..", shown(path))]
    BadArchive {
        /// The path as it was given; `-` for a stream.
        path: PathBuf,
        /// What is wrong with it.
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
