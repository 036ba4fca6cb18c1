//! Reduces files to the parts that are used.

mod domain;
mod process;

use std::collections::BTreeSet;
use std::path::Path;

use crate::claims::{LEASES, leases};
use crate::doctor::recording;
use crate::host::device_links::DATABASE;
use crate::host::parse_meminfo;
use crate::host::pci_names::{self, DeviceId};
use crate::report::Report;

/// The contents to include of a file that was read; `None` if they are assembled elsewhere, or if
/// the file is unknown here.
pub(super) fn redact(
    path: &Path,
    bytes: &[u8],
    devices: &BTreeSet<DeviceId>,
    report: &Report,
) -> Option<Vec<u8>> {
    let name = path.file_name()?.to_str()?;
    let text = || String::from_utf8_lossy(bytes);
    if path.starts_with("/sys") {
        // The other lines change all the time. An invalid file is included unchanged.
        let text = str::from_utf8(bytes).ok().filter(|text| parse_meminfo(text).is_some());
        return Some(match text {
            Some(text) if name == "meminfo" => lines(text, |line| line.contains("MemTotal:")),
            _ => bytes.to_owned(),
        });
    }
    if let Some(kept) = recording::redact(path, &text(), report) {
        return Some(kept.into_bytes());
    }
    if path.starts_with("/proc") {
        return Some(process::redact(name, bytes));
    }
    if path.starts_with(LEASES) {
        return Some(leases::without_void(bytes));
    }
    if path.starts_with(DATABASE) {
        return Some(lines(&text(), |line| line.starts_with("S:")));
    }
    if pci_names::LISTS.iter().any(|list| path == Path::new(list)) {
        return Some(pci_names::lines_of(bytes, devices).into_bytes());
    }
    if path.extension().is_some_and(|extension| extension == "xml") {
        return domain::redact(&text()).ok().map(String::into_bytes);
    }
    None
}

fn lines(text: &str, is_kept: impl Fn(&str) -> bool) -> Vec<u8> {
    text.split_inclusive('\n').filter(|line| is_kept(line)).collect::<String>().into_bytes()
}
