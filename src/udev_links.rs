//! The other names that udev gave to a device node, such as `/dev/grace-egm/by-node/0`.
//!
//! On the running host libudev is asked. Below another root its database is read, as `lsblk` does
//! there: `/run/udev/data/c510:4`, in which a line `S:` names a link below `/dev`.

use std::path::{Path, PathBuf};

use crate::host::DeviceNumber;
use crate::sysroot::Sysroot;

/// What knows of a root's links.
pub(crate) struct Links<'a> {
    root: &'a Sysroot,
    /// Without a database nothing is known of any link.
    is_known: bool,
}

impl<'a> Links<'a> {
    pub(crate) fn of(root: &'a Sysroot) -> Self {
        Self {
            root,
            is_known: root.stat("/run/udev/data").is_ok(),
        }
    }

    /// The links of one device, sorted; `None` where they are not known.
    pub(crate) fn read(&self, sysfs: &Path, number: Option<DeviceNumber>) -> Option<Vec<PathBuf>> {
        if !self.is_known {
            return None;
        }
        let mut links = if self.root.is_host() {
            ask_udev(sysfs)?
        } else {
            self.read_database(number?)?
        };
        links.sort();
        Some(links)
    }

    fn read_database(&self, number: DeviceNumber) -> Option<Vec<PathBuf>> {
        match self.root.read_text(format!("/run/udev/data/c{number}")) {
            Ok(text) => Some(parse_database(&text)),
            // A device that has nothing but its node has no file.
            Err(error) => error.is_absent().then(Vec::new),
        }
    }
}

fn parse_database(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.strip_prefix("S:"))
        .map(|link| Path::new("/dev").join(link.trim_start_matches('/')))
        .collect()
}

#[cfg(feature = "udev")]
fn ask_udev(sysfs: &Path) -> Option<Vec<PathBuf>> {
    let device = udev::Device::from_syspath(sysfs).ok()?;
    let links = device.property_value("DEVLINKS").unwrap_or_default();
    Some(
        links
            .to_string_lossy()
            .split_ascii_whitespace()
            .map(PathBuf::from)
            .collect(),
    )
}

/// Without libudev nothing is known of the running host's links.
#[cfg(not(feature = "udev"))]
fn ask_udev(_sysfs: &Path) -> Option<Vec<PathBuf>> {
    None
}

#[cfg(test)]
mod tests {
    use super::parse_database;
    use std::path::Path;

    #[test]
    fn links_of_the_database_lie_below_dev() {
        let text = "S:grace-egm/by-node/0\nI:12\nE:ID_X=S:no\nS:/grace-egm/by-gpu/0009:01:00.0\n";
        assert_eq!(
            parse_database(text),
            [
                Path::new("/dev/grace-egm/by-node/0"),
                Path::new("/dev/grace-egm/by-gpu/0009:01:00.0")
            ]
        );
    }
}
