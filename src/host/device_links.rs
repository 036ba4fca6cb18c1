//! The other names that udev gave to a device node, such as `/dev/grace-egm/by-node/0`.
//!
//! On the running host libudev is queried. Below another root its database is read, as `lsblk`
//! does: in `/run/udev/data/c510:4`, a line `S:` has the name of a link below `/dev`.

use std::path::{Path, PathBuf};

use crate::host::dev_path;
use crate::sysroot::Sysroot;
use crate::values::DeviceNumber;

/// The database of udev.
pub(crate) const DATABASE: &str = "/run/udev/data";

/// The links of one device, sorted; `None` if unknown.
pub(crate) fn read(
    root: &Sysroot,
    sysfs: &Path,
    number: Option<DeviceNumber>,
) -> Option<Vec<PathBuf>> {
    let mut links =
        if root.may_ask_system() { ask_udev(sysfs)? } else { read_database(root, number?)? };
    links.sort();
    Some(links)
}

fn read_database(root: &Sysroot, number: DeviceNumber) -> Option<Vec<PathBuf>> {
    match root.read_text(format!("{DATABASE}/c{number}")) {
        Ok(text) => Some(parse_database(&text)),
        // A device with only its node has no file; a missing database means that the links are
        // unknown.
        Err(error) if error.is_absent() => root.stat(DATABASE).is_ok().then(Vec::new),
        Err(_) => None,
    }
}

fn parse_database(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.strip_prefix("S:"))
        .filter_map(|link| dev_path(link.trim_start_matches('/')))
        .collect()
}

#[cfg(feature = "udev")]
fn ask_udev(sysfs: &Path) -> Option<Vec<PathBuf>> {
    let device = udev::Device::from_syspath(sysfs).ok()?;
    match device.property_value("DEVLINKS") {
        Some(links) => {
            let links = links.to_string_lossy();
            Some(links.split_ascii_whitespace().map(PathBuf::from).collect())
        }
        // An empty list is reliable only after udev has processed the device.
        None => device.is_initialized().then(Vec::new),
    }
}

/// Without libudev, the running host's links are unknown.
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
        let text = "S:grace-egm/by-node/0\nS:../etc/x\nS:\nI:12\nE:ID_X=S:no\nS:/grace-egm/by-gpu/0009:01:00.0\n";
        assert_eq!(
            parse_database(text),
            [
                Path::new("/dev/grace-egm/by-node/0"),
                Path::new("/dev/grace-egm/by-gpu/0009:01:00.0")
            ]
        );
    }
}
