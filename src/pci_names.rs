//! Names of PCI devices.
//!
//! From the host's own `pci.ids`, since it is the newest; else from a table of Grace GPUs, since
//! the lists of many distributions know none of them; else from the list in the `pci-ids` crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::sysroot::{LIST_LIMIT, Sysroot};

/// Vendor and device id.
pub(crate) type DeviceId = (u16, u16);

/// Where distributions keep the list: Fedora and Debian, and Debian before hwdata.
pub(crate) const LISTS: [&str; 2] = ["/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids"];

/// The GPUs that have EGM, by the kernel's `nvgrace_gpu_vfio_pci_table`
/// (drivers/vfio/pci/nvgrace-gpu/main.c) and by hosts that were seen.
const GRACE_GPUS: [(DeviceId, &str); 7] = [
    ((0x10de, 0x2342), "GH100 [GH200 120GB]"),
    ((0x10de, 0x2345), "GH100 [GH200 480GB]"),
    ((0x10de, 0x2348), "GH100 [GH200]"),
    ((0x10de, 0x2941), "GB100 [GB200]"),
    ((0x10de, 0x31c2), "[GB300]"),
    ((0x10de, 0x31c3), "[GB300]"),
    ((0x10de, 0x3041), "[Vera Rubin]"),
];

/// The list of the `pci-ids` crate, of 2022.
const CRATE_LIST: &str = include_str!(concat!(env!("OUT_DIR"), "/pci.ids"));

/// The names of the devices that are wanted, as far as any list knows them. Reads at most one
/// file, and none where nothing is wanted.
pub(crate) fn read(root: &Sysroot, mut wanted: BTreeSet<DeviceId>) -> BTreeMap<DeviceId, String> {
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let list = LISTS.iter().find_map(|path| root.read(path, LIST_LIMIT).ok()).unwrap_or_default();
    let mut names = search(&String::from_utf8_lossy(&list), &wanted);
    for (id, name) in GRACE_GPUS {
        if wanted.contains(&id) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    wanted.retain(|id| !names.contains_key(id));
    if !wanted.is_empty() {
        names.append(&mut search(CRATE_LIST, &wanted));
    }
    names
}

/// Looks devices up in a `pci.ids`: vendors at the start of a line, their devices after one tab,
/// subsystems after two; classes, which start with `C`, at the end.
fn search(list: &str, wanted: &BTreeSet<DeviceId>) -> BTreeMap<DeviceId, String> {
    let mut names = BTreeMap::new();
    let mut vendor = None;
    for line in list.lines() {
        if names.len() == wanted.len() || line.starts_with("C ") {
            break;
        }
        match line.strip_prefix('\t') {
            None => {
                if let Some((id, _)) = entry(line) {
                    vendor = wanted.iter().any(|(wanted, _)| *wanted == id).then_some(id);
                }
            }
            Some(device) => {
                if let Some(vendor) = vendor
                    && let Some((device, name)) = entry(device)
                    && wanted.contains(&(vendor, device))
                {
                    names.entry((vendor, device)).or_insert_with(|| name.to_owned());
                }
            }
        }
    }
    names
}

/// The lines of a list that name these devices, and their vendors.
pub(crate) fn lines_of(list: &str, wanted: &BTreeSet<DeviceId>) -> String {
    let mut text = String::new();
    let mut current = None;
    for ((vendor, device), name) in search(list, wanted) {
        if current.replace(vendor) != Some(vendor) {
            let mut vendors = list.lines().filter_map(entry);
            let name = vendors.find(|(id, _)| *id == vendor).map_or("?", |(_, name)| name);
            let _ = writeln!(text, "{vendor:04x}  {name}");
        }
        let _ = writeln!(text, "\t{device:04x}  {name}");
    }
    text
}

/// `2941  GB100 [GB200]`
fn entry(line: &str) -> Option<(u16, &str)> {
    let (id, name) = line.split_once("  ")?;
    let is_id = id.len() == 4 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = is_id.then(|| u16::from_str_radix(id, 16).ok()).flatten()?;
    let name = name.trim();
    (!name.is_empty()).then_some((id, name))
}

#[cfg(test)]
mod tests {
    use super::{CRATE_LIST, lines_of, read, search};
    use crate::sysroot::Sysroot;

    const LIST: &str = "# a comment\n\
        0e11  Other\n\t2941  Wrong vendor\n\
        10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n\
        \t\t10de 2941  Wrong level\n\t2941  GB100 [GB200]\n\
        10df  Next\n\t2941  Too late\n\
        C 10  Class\n\t2941  No device\n";

    #[test]
    fn a_device_is_found_below_its_vendor_only() {
        let names = search(LIST, &[(0x10de, 0x2941), (0x10de, 0xffff)].into());
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            [((0x10de, 0x2941), "GB100 [GB200]".to_owned())]
        );
    }

    #[test]
    fn the_lines_that_were_used_give_the_same_names() {
        let wanted = [(0x10de, 0x2941), (0x10de, 0xffff), (0x0e11, 0x2941)].into();
        let lines = lines_of(LIST, &wanted);
        assert_eq!(
            lines,
            "0e11  Other\n\t2941  Wrong vendor\n10de  NVIDIA Corporation\n\t2941  GB100 [GB200]\n"
        );
        assert_eq!(search(&lines, &wanted), search(LIST, &wanted));
    }

    #[test]
    fn a_list_that_is_none_names_nothing() {
        for list in ["", "\0\0", "10de", "\t2941  Orphan", "zzzz  Vendor\n\t2941  Device"] {
            assert!(search(list, &[(0x10de, 0x2941)].into()).is_empty(), "{list:?}");
        }
    }

    #[test]
    fn without_a_list_grace_gpus_and_common_devices_have_names() {
        let root = Sysroot::from_tar(&include_bytes!("../tests/fixtures/no-egm/host.tar.gz")[..]);
        let wanted = [(0x10de, 0x2342), (0x8086, 0x1237), (0xfffe, 1)];
        let names = read(&root.unwrap(), wanted.into());
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            [
                ((0x10de, 0x2342), "GH100 [GH200 120GB]".to_owned()),
                ((0x8086, 0x1237), "440FX - 82441FX PMC [Natoma]".to_owned()),
            ]
        );
    }

    #[test]
    fn the_crates_list_came_through_the_build() {
        assert!(CRATE_LIST.lines().count() > 15_000);
        assert!(CRATE_LIST.contains("\n10de  NVIDIA Corporation\n\t"));
    }
}
