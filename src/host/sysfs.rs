//! Attributes of devices in sysfs, read with the `sysfs-class` crate.
//!
//! The crate looks for devices only at `/sys`. Therefore [`Sysroot`] lists directories, and the
//! crate only reads attributes, through a type whose files come from there.

use std::io;
use std::path::{Path, PathBuf};

use sysfs_class::SysClass;

use crate::sysroot::{ReadError, Sysroot};
use crate::warning::Warning;

/// The directory of one device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceDir {
    root: Sysroot,
    path: PathBuf,
}

#[expect(
    unsafe_code,
    reason = "`from_path_unchecked` is an unsafe function of the trait, though nothing in it is \
              unsafe here: reading a wrong path only fails"
)]
impl SysClass for DeviceDir {
    /// Never used: the trait's functions that use it start at the real `/sys`.
    fn class() -> &'static str {
        "egm"
    }

    unsafe fn from_path_unchecked(path: PathBuf) -> Self {
        Self { root: Sysroot::host(), path }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Reads through the root, which supports captures, opens only regular files, and has a size
    /// limit.
    fn read_file<P: AsRef<Path>>(&self, name: P) -> io::Result<String> {
        self.root.read_text(self.path.join(name)).map_err(|error| error.cause)
    }
}

impl DeviceDir {
    pub(crate) fn new(root: &Sysroot, path: impl Into<PathBuf>) -> Self {
        Self { root: root.clone(), path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The trimmed text of an attribute; `None` if it does not exist.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ReadError> {
        match self.trim_file(name) {
            Ok(text) => Ok(Some(text)),
            Err(cause) => absent(ReadError { path: self.path.join(name), cause }),
        }
    }

    /// The value of an attribute; `None` with a warning if it is unreadable or malformed. A missing
    /// attribute gives no warning.
    pub(crate) fn value<T>(
        &self,
        name: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        warnings: &mut Vec<Warning>,
    ) -> Option<T> {
        let text = self.text(name).unwrap_or_else(|error| {
            warnings.push(Warning::unreadable(&error));
            None
        })?;
        let value = parse(&text);
        if value.is_none() {
            let path = self.path.join(name);
            warnings.push(Warning::Malformed { path, found: text, expected });
        }
        value
    }

    /// The last component of a link's target, such as the driver; `None` if the link does not
    /// exist.
    pub(crate) fn link_name(&self, name: &str) -> Result<Option<String>, ReadError> {
        let path = self.path.join(name);
        let target = match self.root.read_link(&path) {
            Ok(target) => target,
            Err(error) => return absent(error),
        };
        match target.file_name() {
            Some(name) => Ok(Some(name.to_string_lossy().into_owned())),
            None => {
                Err(ReadError { path, cause: io::Error::other("link to a path without a name") })
            }
        }
    }
}

fn absent<T>(error: ReadError) -> Result<Option<T>, ReadError> {
    if error.is_absent() { Ok(None) } else { Err(error) }
}
