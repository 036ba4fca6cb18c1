//! Names of PCI devices.
//!
//! Sources are the host's own `pci.ids`, the newest list; then a table of Grace GPUs, which the
//! lists of many distributions lack; then the list in the `pci-ids` crate, of which the program
//! contains only NVIDIA's devices. The first name found is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::{self, BufRead};

use crate::sysroot::{LIST_LIMIT, Sysroot};

/// Vendor and device ID.
pub(crate) type DeviceId = (u16, u16);

/// Paths of the list: Fedora and Debian, and Debian before hwdata.
pub(crate) const LISTS: [&str; 2] = ["/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids"];

/// The GPUs with EGM, from the kernel's `nvgrace_gpu_vfio_pci_table`
/// (drivers/vfio/pci/nvgrace-gpu/main.c) and from real hosts.
const GRACE_GPUS: &str = "\
10de  NVIDIA Corporation
\t2342  GH100 [GH200 120GB]
\t2345  GH100 [GH200 480GB]
\t2348  GH100 [GH200]
\t2941  GB100 [GB200]
\t31c2  [GB300]
\t31c3  [GB300]
\t3041  [Vera Rubin]
";

/// Whether a device is a GPU with EGM.
pub(super) fn is_grace(device: DeviceId) -> bool {
    let wanted = BTreeSet::from([device]);
    search(GRACE_GPUS.as_bytes(), &wanted).is_ok_and(|found| !found.is_empty())
}

/// NVIDIA's part of the list in the `pci-ids` crate, from 2022.
const CRATE_LIST: &str = include_str!(concat!(env!("OUT_DIR"), "/pci.ids"));

/// The names of the wanted devices. Reads at most one file, and none if nothing is wanted.
pub(crate) fn read(root: &Sysroot, mut wanted: BTreeSet<DeviceId>) -> BTreeMap<DeviceId, String> {
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let search_in = |path| search(root.open(path, LIST_LIMIT).ok()?, &wanted).ok();
    let mut devices = LISTS.iter().find_map(search_in).unwrap_or_default();
    for list in [GRACE_GPUS, CRATE_LIST] {
        wanted.retain(|id| !devices.contains_key(id));
        devices.extend(search(list.as_bytes(), &wanted).unwrap_or_default());
    }
    devices.into_iter().map(|(id, device)| (id, device.name)).collect()
}

/// The lines of a list with the names of these devices and their vendors.
pub(crate) fn lines_of(list: &[u8], wanted: &BTreeSet<DeviceId>) -> String {
    let mut lines = String::new();
    let mut current = None;
    for ((vendor, id), device) in search(list, wanted).unwrap_or_default() {
        if current.replace(vendor) != Some(vendor) {
            let _ = writeln!(lines, "{vendor:04x}  {}", device.vendor);
        }
        let _ = writeln!(lines, "\t{id:04x}  {}", device.name);
    }
    lines
}

struct Device {
    vendor: String,
    name: String,
}

/// Looks up devices in a list: a vendor is at the start of a line, its devices follow after one
/// tab, subsystems after two; classes, which start with `C`, come last. Stops after the last wanted
/// vendor: NVIDIA's devices are within the first third.
fn search(
    mut list: impl BufRead,
    wanted: &BTreeSet<DeviceId>,
) -> io::Result<BTreeMap<DeviceId, Device>> {
    let mut devices = BTreeMap::new();
    let mut vendors: BTreeSet<u16> = wanted.iter().map(|(vendor, _)| *vendor).collect();
    let mut current: Option<(u16, String)> = None;
    let mut line = Vec::new();
    while list.read_until(b'\n', &mut line)? > 0 {
        match (line.trim_ascii_end(), &current) {
            ([] | [b'#', ..], _) | ([b'\t', ..], None) => {}
            ([b'\t', device @ ..], Some((vendor, vendor_name))) => {
                if let Some((id, name)) = entry(device)
                    && wanted.contains(&(*vendor, id))
                {
                    let device = || Device { vendor: vendor_name.clone(), name: name.into_owned() };
                    devices.entry((*vendor, id)).or_insert_with(device);
                }
            }
            _ if vendors.is_empty() => break,
            (vendor, _) => {
                let wanted = entry(vendor).filter(|(id, _)| vendors.remove(id));
                current = wanted.map(|(id, name)| (id, name.into_owned()));
            }
        }
        line.clear();
    }
    Ok(devices)
}

/// `2941  GB100 [GB200]`
fn entry(line: &[u8]) -> Option<(u16, Cow<'_, str>)> {
    let (id, name) = line.split_at_checked(4)?;
    let name = name.strip_prefix(b"  ")?.trim_ascii();
    let id = u16::from_str_radix(str::from_utf8(id).ok()?, 16).ok()?;
    (!name.is_empty()).then(|| (id, String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::{DeviceId, LISTS, lines_of, read};
    use crate::sysroot::Sysroot;
    use std::fs;

    const LIST: &str = "# a comment\n\
        0e11  Other\n\t2941  Wrong vendor\n\
        10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n\
        \t\t10de 2941  Wrong level\n\n# a comment\n\t2941  GB100 [GB200]\n\
        10df  Next\n\t2941  Too late\n\
        10de  NVIDIA again\n\t2941  Second name\n\
        C 10  Class\n\t2941  No device\n";

    fn lines(list: &str, wanted: &[DeviceId]) -> String {
        lines_of(list.as_bytes(), &wanted.iter().copied().collect())
    }

    /// The names of these devices on a host with these lists.
    fn names(lists: &[(&str, &[u8])], wanted: &[DeviceId]) -> Vec<(DeviceId, String)> {
        let folder = tempfile::tempdir().unwrap();
        for (path, list) in lists {
            let path = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, list).unwrap();
        }
        let root = Sysroot::directory(folder.path()).unwrap();
        read(&root, wanted.iter().copied().collect()).into_iter().collect()
    }

    #[test]
    fn a_device_is_found_below_its_vendor_only() {
        let wanted = [(0x10de, 0x2941), (0x10de, 0xffff), (0x0c10, 0x2941), (0x10df, 0x2330)];
        let found = [((0x10de, 0x2941), "GB100 [GB200]".to_owned())];
        assert_eq!(names(&[(LISTS[0], LIST.as_bytes())], &wanted), found);
    }

    #[test]
    fn the_lines_in_a_capture_give_the_same_names() {
        let wanted = [(0x10de, 0x2330), (0x10de, 0x2941), (0x10de, 0xffff), (0x0e11, 0x2941)];
        let kept = lines(LIST, &wanted);
        assert_eq!(
            kept,
            "0e11  Other\n\t2941  Wrong vendor\n\
            10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n\t2941  GB100 [GB200]\n"
        );
        let whole = names(&[(LISTS[0], LIST.as_bytes())], &wanted);
        assert_eq!(whole.len(), 3);
        assert_eq!(names(&[(LISTS[0], kept.as_bytes())], &wanted), whole);
    }

    #[test]
    fn malformed_lists_name_nothing() {
        let lists = [
            "",
            "\0\0",
            "10de",
            "10de  \n\t2941  Vendor without a name",
            "\t2941  Orphan",
            "zzzz  Vendor\n\t2941  Device",
            "10de  Vendor\n\t2941",
            "10de  Vendor\n\t294\u{e9}  Device",
            "10de  Vendor\n\t2941  \n\t\n",
        ];
        for list in lists {
            assert_eq!(lines(list, &[(0x10de, 0x2941)]), "", "{list:?}");
        }
    }

    #[test]
    fn names_come_from_the_hosts_list_then_the_table_then_the_crate() {
        let name =
            |lists: &[(&str, &[u8])], device| names(lists, &[device]).pop().map(|(_, name)| name);
        let (hopper, blackwell, l4) = ((0x10de, 0x2342), (0x10de, 0x2941), (0x10de, 0x27b8));
        let hosts = b"10de  Host\r\n\t2941  Host's \xff\r\n\t27b8  Host's L4";
        let lists: [(&str, &[u8]); 2] =
            [(LISTS[0], hosts), (LISTS[1], b"10de  Second list\n\t2342  Unused\n")];
        assert_eq!(name(&lists, blackwell).as_deref(), Some("Host's \u{fffd}"));
        assert_eq!(name(&lists, l4).as_deref(), Some("Host's L4"));
        assert_eq!(name(&lists, hopper).as_deref(), Some("GH100 [GH200 120GB]"));
        assert_eq!(name(&lists[1..], hopper).as_deref(), Some("Unused"));
        assert_eq!(name(&[], blackwell).as_deref(), Some("GB100 [GB200]"));
        assert_eq!(name(&[], l4).as_deref(), Some("AD104GL [L4]"));
        // The program contains only NVIDIA's names.
        assert_eq!(name(&[], (0x8086, 0x1237)), None);
    }
}
