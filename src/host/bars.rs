//! The memory BARs of a PCI function, from its file `resource` in sysfs.

use crate::values::Bytes;
use crate::values::numbers::number;

/// A function has up to six BARs, which are the first lines of the file; the ROM and others follow
/// (`PCI_STD_NUM_BARS`, `include/uapi/linux/pci_regs.h`).
const BARS: usize = 6;

/// The flag of memory, as opposed to I/O ports (`IORESOURCE_MEM`, include/linux/ioport.h).
const MEMORY: u64 = 0x200;

/// Bits of the BAR itself, which are also in the flags (`PCI_BASE_ADDRESS_MEM_TYPE_64` and
/// `PCI_BASE_ADDRESS_MEM_PREFETCH`, `include/uapi/linux/pci_regs.h`).
const IS_64BIT: u64 = 0x4;
const IS_PREFETCHABLE: u64 = 0x8;

/// A memory BAR: a range of a PCI function's memory in the address space of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bar {
    /// Its number, from 0 to 5; a 64-bit BAR also occupies the next one.
    pub index: u8,
    /// Its size, never 0.
    pub size: Bytes,
    /// Whether it can be above 4 GiB.
    pub is_64bit: bool,
    /// Whether reads have no side effects. 64-bit prefetchable BARs are in the 64-bit PCI hole of a
    /// virtual machine.
    pub is_prefetchable: bool,
}

/// A line of the file.
struct Resource {
    /// 0 for one that is not set.
    size: u64,
    flags: u64,
}

/// The memory BARs in the text of a file `resource`, by their numbers. `None` if it does not have a
/// valid line for every BAR.
pub(super) fn parse(text: &str) -> Option<Vec<Bar>> {
    let lines: Vec<_> = text.lines().take(BARS).map(Resource::parse).collect::<Option<_>>()?;
    let bars = (0..).zip(&lines).filter_map(|(index, line)| line.memory_bar(index)).collect();
    (lines.len() == BARS).then_some(bars)
}

impl Resource {
    /// `0x0000660000000000 0x0000660000ffffff 0x000000000014220c`: first and last address, and
    /// flags (`resource_show`, drivers/pci/pci-sysfs.c).
    fn parse(line: &str) -> Option<Self> {
        let fields = line.split_ascii_whitespace();
        let hexadecimal = |field: &str| number(field).filter(|_| field.starts_with("0x"));
        let fields: Vec<_> = fields.map(hexadecimal).collect::<Option<_>>()?;
        let [start, end, flags] = *fields.as_slice() else { return None };
        let size = match (start, end) {
            (0, 0) => 0,
            // The kernel's notation for an empty range (`resource_size`, include/linux/ioport.h).
            _ if end.wrapping_add(1) == start => 0,
            _ => end.checked_sub(start)?.checked_add(1)?,
        };
        Some(Self { size, flags })
    }

    fn memory_bar(&self, index: u8) -> Option<Bar> {
        let has = |bit| self.flags & bit != 0;
        (has(MEMORY) && self.size > 0).then(|| Bar {
            index,
            size: Bytes(self.size),
            is_64bit: has(IS_64BIT),
            is_prefetchable: has(IS_PREFETCHABLE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bar, Bytes, parse};

    const UNSET: &str = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";

    /// A file with this line for BAR 2.
    fn with(line: &str) -> String {
        format!("{UNSET}{UNSET}{line}\n{UNSET}{UNSET}{UNSET}{UNSET}")
    }

    #[test]
    fn memory_bars_have_a_size_and_a_type() {
        let text = "\
0x0000661002000000 0x0000661002ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000040000000 0x0000000041ffffff 0x0000000000040200
0x0000000000001000 0x000000000000107f 0x0000000000040101
0x0000660000000000 0x000067ffffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x000000000007ffff 0x0000000000046200
";
        let bar = |index, size, is_wide| Bar {
            index,
            size: Bytes(size),
            is_64bit: is_wide,
            is_prefetchable: is_wide,
        };
        let bars = [bar(0, 16 << 20, true), bar(2, 32 << 20, false), bar(4, 2 << 40, true)];
        assert_eq!(parse(text).unwrap(), bars);
    }

    #[test]
    fn unset_bars_are_left_out() {
        let empty = "0x0000000000001000 0x0000000000000fff 0x0000000000000200";
        let endless = "0x0000000000000000 0xffffffffffffffff 0x0000000000000200";
        let zero = "0x0000000000000000 0x0000000000000000 0x000000000000020c";
        for line in [UNSET.trim_end(), empty, endless, zero] {
            assert_eq!(parse(&with(line)), Some(Vec::new()), "{line}");
        }
    }

    #[test]
    fn sizes_have_64_bits() {
        let bars = parse(&with("0x0000000000000001 0xffffffffffffffff 0x000000000000020c"));
        assert_eq!(bars.unwrap()[0].size, Bytes(u64::MAX));
    }

    #[test]
    fn a_file_without_six_valid_lines_is_refused() {
        let none = "0x0 0x0 0x0";
        assert_eq!(parse(&with(none)), Some(Vec::new()));
        for line in [
            "",
            "garbage",
            "0x0 0x0",
            "0x0 0x0 0x0 0x0",
            "0 0 0",
            "0x0 0x0 512",
            "0x2000 0x1000 0x200",
            "0x0 0x10000000000000000 0x200",
            "0x0 -0x1 0x200",
            "\u{660}x0 0x0 0x0",
        ] {
            assert_eq!(parse(&with(line)), None, "{line}");
        }
        assert_eq!(parse(&UNSET.repeat(5)), None);
        assert_eq!(parse(""), None);
        // Other lines are not read.
        assert_eq!(parse(&format!("{}garbage", UNSET.repeat(6))), Some(Vec::new()));
    }
}
