//! Names of PCI devices.
//!
//! From the host's own `pci.ids`, since it is the newest; else from a table of Grace GPUs, since
//! the lists of many distributions know none of them; else from the list in the `pci-ids` crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::ControlFlow;

use memchr::memmem;

use crate::sysroot::{LIST_LIMIT, Next, Sysroot};

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
    let read_list = |path| {
        let mut search = Search::of(&wanted);
        root.read_parts(path, LIST_LIMIT, &mut |part, size| search.take(part, size)).ok()?;
        Some(search.end())
    };
    let mut names = LISTS.iter().find_map(read_list).unwrap_or_default();
    for (id, name) in GRACE_GPUS {
        if wanted.contains(&id) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    wanted.retain(|id| !names.contains_key(id));
    if !wanted.is_empty() {
        names.append(&mut search(CRATE_LIST.as_bytes(), &wanted));
    }
    names
}

/// Looks devices up in a whole `pci.ids`.
fn search(list: &[u8], wanted: &BTreeSet<DeviceId>) -> BTreeMap<DeviceId, String> {
    let mut search = Search::of(wanted);
    // In parts, which are copied, and not whole.
    for part in list.chunks(32 * 1024) {
        if search.look_at(part).is_break() {
            break;
        }
    }
    search.end()
}

/// Looks devices up in a `pci.ids` that comes in parts: vendors at the start of a line, their devices
/// after one tab, subsystems after two; classes, which start with `C`, at the end. A list has more
/// than 30,000 lines, so only those below the vendors are looked at.
struct Search<'a> {
    wanted: &'a BTreeSet<DeviceId>,
    /// The vendors that were not seen to the end.
    vendors: Vec<Vendor>,
    names: BTreeMap<DeviceId, String>,
    /// The begin of a line whose end is to come.
    rest: Vec<u8>,
    way: Way,
}

/// How a list is read. The vendors are sorted, so most of it can be left out; but nobody promised
/// that, so one that is not found in this way is looked for from the beginning.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The first part.
    Begin,
    /// The vendor is between these places; the part that is to come is from between them, too.
    Between { low: u64, at: u64, high: u64 },
    /// From a place before the vendor.
    On,
    /// All that is there.
    Whole,
}

/// What is read in any case where a vendor is between two places: two parts.
const NEAR: u64 = 64 * 1024;

struct Vendor {
    id: u16,
    /// What its line begins with, and the end of the line before.
    start: [u8; 7],
    is_inside: bool,
}

impl<'a> Search<'a> {
    fn of(wanted: &'a BTreeSet<DeviceId>) -> Self {
        let ids: BTreeSet<u16> = wanted.iter().map(|(vendor, _)| *vendor).collect();
        let vendor = |id: u16| {
            let mut start = *b"\n0000  ";
            for (digit, place) in start.iter_mut().skip(1).take(4).zip([12, 8, 4, 0]) {
                let value = u32::from(id >> place & 0xf);
                *digit = char::from_digit(value, 16).map_or(b'0', |digit| digit as u8);
            }
            Vendor { id, start, is_inside: false }
        };
        // As if a line had ended before the first one.
        let rest = vec![b'\n'];
        Self {
            wanted,
            vendors: ids.into_iter().map(vendor).collect(),
            names: BTreeMap::new(),
            rest,
            way: Way::Begin,
        }
    }

    /// Takes a part of a file of this size, which it is for the first time, or the one it asked for.
    fn take(&mut self, part: &[u8], size: u64) -> Next {
        let (low, high) = match self.way {
            Way::Between { low, at, high } => match first_vendor(part) {
                // Within a vendor's devices: their number is nowhere near.
                None => (low, at),
                Some(vendor) if self.vendors.iter().any(|it| it.id <= vendor) => (low, at),
                Some(_) => (at, high),
            },
            Way::On if part.is_empty() && self.vendors.iter().any(|it| !it.is_inside) => {
                self.way = Way::Whole;
                self.rest = vec![b'\n'];
                return Next::At(0);
            }
            Way::Begin | Way::On | Way::Whole => {
                if self.look_at(part).is_break() {
                    return Next::Nothing;
                }
                match self.way {
                    // More than one would each be somewhere else.
                    Way::Begin if self.vendors.len() == 1 && !self.is_inside() => {
                        (part.len() as u64, size)
                    }
                    Way::Begin | Way::Between { .. } => (0, 0),
                    Way::On | Way::Whole => return Next::Part,
                }
            }
        };
        if high <= low.saturating_add(NEAR) {
            let was_begin = matches!(self.way, Way::Begin);
            self.way = Way::On;
            if was_begin {
                return Next::Part;
            }
            // What is left of a line there is none: no end of a line is before it.
            self.rest.clear();
            return Next::At(low);
        }
        let at = low.midpoint(high);
        self.way = Way::Between { low, at, high };
        Next::At(at)
    }

    fn is_inside(&self) -> bool {
        self.vendors.iter().any(|vendor| vendor.is_inside)
    }

    /// Looks at the next part; breaks when no more is wanted.
    fn look_at(&mut self, part: &[u8]) -> ControlFlow<()> {
        let Some((first, last)) = memchr::memchr(b'\n', part).zip(memchr::memrchr(b'\n', part))
        else {
            self.rest.extend_from_slice(part);
            return ControlFlow::Continue(());
        };
        // Only the line that two parts share is copied.
        let mut shared = std::mem::take(&mut self.rest);
        shared.extend_from_slice(part.get(..first).unwrap_or_default());
        let lines = part.get(first..last).unwrap_or_default();
        part.get(last..).unwrap_or_default().clone_into(&mut self.rest);
        let Self { wanted, vendors, names, .. } = self;
        vendors.retain_mut(|vendor| {
            [&shared, lines].into_iter().all(|lines| vendor.look_at(lines, wanted, names))
        });
        if vendors.is_empty() || names.len() == wanted.len() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// With the last line, which may have no end.
    fn end(mut self) -> BTreeMap<DeviceId, String> {
        if self.rest.len() > 1 {
            let _ = self.look_at(b"\n");
        }
        self.names
    }
}

impl Vendor {
    /// Looks at whole lines, each behind the end of the one before. Gives whether more are wanted.
    fn look_at(
        &mut self,
        text: &[u8],
        wanted: &BTreeSet<DeviceId>,
        names: &mut BTreeMap<DeviceId, String>,
    ) -> bool {
        let mut lines = text;
        if !self.is_inside {
            let Some(at) = memmem::find(text, &self.start) else { return true };
            self.is_inside = true;
            // From the end of its line on.
            let after = text.get(at + 1..).unwrap_or_default();
            let end = memchr::memchr(b'\n', after).unwrap_or(after.len());
            lines = after.get(end..).unwrap_or_default();
        }
        let mut ends = memchr::memchr_iter(b'\n', lines).peekable();
        while let Some(before) = ends.next() {
            let end = ends.peek().copied().unwrap_or(lines.len());
            let line = lines.get(before + 1..end).unwrap_or_default();
            match line {
                [b'\t', b'\t', ..] | [b'#', ..] | [] => {}
                [b'\t', device @ ..] => {
                    if let Some((device, name)) = entry(device)
                        && wanted.contains(&(self.id, device))
                    {
                        names.entry((self.id, device)).or_insert_with(|| shown(name));
                    }
                }
                _ => return false,
            }
        }
        true
    }
}

/// The first vendor whose line starts in a part.
fn first_vendor(part: &[u8]) -> Option<u16> {
    let lines = memchr::memchr_iter(b'\n', part).filter_map(|end| part.get(end + 1..));
    lines.filter_map(|line| entry(line.get(..8)?)).map(|(id, _)| id).next()
}

/// The lines of a list that name these devices, and their vendors.
pub(crate) fn lines_of(list: &[u8], wanted: &BTreeSet<DeviceId>) -> String {
    let mut lines = String::new();
    let mut current = None;
    for ((vendor, device), name) in search(list, wanted) {
        if current.replace(vendor) != Some(vendor) {
            let mut vendors = list.split(|byte| *byte == b'\n').filter_map(entry);
            let name = vendors.find(|(id, _)| *id == vendor).map(|(_, name)| shown(name));
            let name = name.unwrap_or_default();
            let _ = writeln!(lines, "{vendor:04x}  {name}");
        }
        let _ = writeln!(lines, "\t{device:04x}  {name}");
    }
    lines
}

/// `2941  GB100 [GB200]`; the name as it is written, since few of those that are passed are wanted.
fn entry(line: &[u8]) -> Option<(u16, &[u8])> {
    let (id, name) = line.split_at_checked(4)?;
    let name = name.strip_prefix(b"  ")?.trim_ascii();
    let id = id.iter().try_fold(0, |id, digit| {
        Some(
            id << 4
                | char::from(*digit).to_digit(16).and_then(|digit| u16::try_from(digit).ok())?,
        )
    })?;
    (!name.is_empty()).then_some((id, name))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{CRATE_LIST, DeviceId, Search, lines_of, read, search};
    use crate::sysroot::{Next, Sysroot};
    use std::collections::{BTreeMap, BTreeSet};

    const LIST: &str = "# a comment\n\
        0e11  Other\n\t2941  Wrong vendor\n\
        10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n\
        \t\t10de 2941  Wrong level\n\t2941  GB100 [GB200]\n\
        10df  Next\n\t2941  Too late\n\
        C 10  Class\n\t2941  No device\n";

    #[test]
    fn a_device_is_found_below_its_vendor_only() {
        let names = search(LIST.as_bytes(), &[(0x10de, 0x2941), (0x10de, 0xffff)].into());
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            [((0x10de, 0x2941), "GB100 [GB200]".to_owned())]
        );
    }

    #[test]
    fn the_lines_that_were_used_give_the_same_names() {
        let wanted = [(0x10de, 0x2941), (0x10de, 0xffff), (0x0e11, 0x2941)].into();
        let lines = lines_of(LIST.as_bytes(), &wanted);
        assert_eq!(
            lines,
            "0e11  Other\n\t2941  Wrong vendor\n10de  NVIDIA Corporation\n\t2941  GB100 [GB200]\n"
        );
        assert_eq!(search(lines.as_bytes(), &wanted), search(LIST.as_bytes(), &wanted));
    }

    #[test]
    fn in_whatever_parts_a_list_comes_it_names_the_same() {
        let wanted = [(0x10de, 0x2941), (0x10de, 0x2330), (0x0e11, 0x2941), (0x10df, 1)].into();
        let whole = search(LIST.as_bytes(), &wanted);
        assert_eq!(whole.len(), 3);
        for size in 1..LIST.len() {
            let mut search = Search::of(&wanted);
            for part in LIST.as_bytes().chunks(size) {
                let _ = search.look_at(part);
            }
            assert_eq!(search.end(), whole, "{size}");
        }
    }

    /// What is found in a file of these bytes, and how many of them are read.
    fn found_in(list: &[u8], wanted: &BTreeSet<DeviceId>) -> (BTreeMap<DeviceId, String>, usize) {
        let mut search = Search::of(wanted);
        let (mut at, mut read) = (0, 0);
        loop {
            let part = list.get(at..).unwrap_or_default();
            let part = &part[..part.len().min(32 * 1024)];
            read += part.len();
            at = match search.take(part, list.len() as u64) {
                Next::Part if !part.is_empty() => at + part.len(),
                Next::At(place) => usize::try_from(place).unwrap(),
                Next::Part | Next::Nothing => return (search.end(), read),
            };
        }
    }

    #[test]
    fn in_a_long_list_a_vendor_is_found_wherever_it_is() {
        // Some vendors have more devices than a part holds.
        let block = |vendor: u16| {
            let count = if vendor.is_multiple_of(1500) { 3000 } else { 20 };
            let devices = (0..count).map(|device| format!("\t{device:04x}  Device {device}\n"));
            format!("{vendor:04x}  Vendor {vendor}\n") + &devices.collect::<String>()
        };
        let mut blocks: Vec<_> = (0..4000).map(block).collect();
        let sorted = blocks.concat();
        let names = |name: &str, vendor| [((vendor, 7), name.to_owned())].into();
        let mut reads = Vec::new();
        for vendor in (0..4000).step_by(50).chain([1, 1999, 2001, 3999]) {
            let (found, read) =
                found_in(sorted.as_bytes(), &[(vendor, 7), (vendor, 0xffff)].into());
            assert_eq!(found, names("Device 7", vendor), "{vendor}");
            reads.push(read);
        }
        reads.sort_unstable();
        assert!(reads[reads.len() / 2] < sorted.len() / 4, "{reads:?} of {}", sorted.len());
        assert_eq!(found_in(sorted.as_bytes(), &[(5000, 7)].into()).0, BTreeMap::new());
        let two = [(10, 7), (3990, 7)].into();
        assert_eq!(found_in(sorted.as_bytes(), &two).0, search(sorted.as_bytes(), &two));
        blocks.reverse();
        let reversed = blocks.concat();
        for vendor in (0..4000).step_by(250) {
            let found = found_in(reversed.as_bytes(), &[(vendor, 7)].into()).0;
            assert_eq!(found, names("Device 7", vendor), "{vendor}");
        }
    }

    #[test]
    fn a_list_that_is_none_names_nothing() {
        for list in ["", "\0\0", "10de", "\t2941  Orphan", "zzzz  Vendor\n\t2941  Device"] {
            assert!(search(list.as_bytes(), &[(0x10de, 0x2941)].into()).is_empty(), "{list:?}");
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
