//! Parses the lines of `/proc/<pid>/maps` in place.

/// One mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping<'a> {
    /// Its addresses, as written: `7f597f2f1000-7f59832f1000`.
    pub(super) addresses: &'a [u8],
    /// Whether writes go to a private copy instead of the file.
    pub(super) is_private: bool,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Device and inode as written: those of the file system, which may be the same for several
    /// files.
    pub(super) file: &'a [u8],
    /// Device, inode and path: the same only for the same file.
    pub(super) identity: &'a [u8],
    /// The name of the file when it was opened, with ` (deleted)` if that is gone.
    pub(super) path: &'a [u8],
}

/// A line that is not in the kernel's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadLine;

impl<'a> Mapping<'a> {
    /// Parses a line; `None` for anonymous memory.
    ///
    /// `7f597f2f1000-7f59832f1000 rw-s 00000000 00:09 210   /dev/egm4` (`show_map_vma`,
    /// `fs/proc/task_mmu.c`)
    pub(super) fn parse(line: &'a [u8]) -> Result<Option<Self>, BadLine> {
        let (addresses, rest) = field(line).ok_or(BadLine)?;
        let (permissions, rest) = field(rest).ok_or(BadLine)?;
        let (offset, file_on) = field(rest).ok_or(BadLine)?;
        let (device, rest) = field(file_on).ok_or(BadLine)?;
        let (inode, path) = field(rest).unwrap_or((rest, b""));
        let (Some(offset), [_, _, _, sharing @ (b's' | b'p')]) = (hexadecimal(offset), permissions)
        else {
            return Err(BadLine);
        };
        if inode.is_empty() || !inode.iter().all(u8::is_ascii_digit) {
            return Err(BadLine);
        }
        if inode == b"0" {
            return Ok(None);
        }
        let file = file_on.get(..device.len() + 1 + inode.len()).ok_or(BadLine)?;
        let mapping = Self {
            addresses,
            is_private: *sharing == b'p',
            offset,
            file,
            identity: file_on,
            path: path.trim_ascii_start(),
        };
        // Addresses that are none would be a mapping of no length.
        mapping.length().map(|_| Some(mapping)).ok_or(BadLine)
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> Option<u64> {
        let (start, end) = self.bounds()?;
        hexadecimal(end)?.checked_sub(hexadecimal(start)?)
    }

    /// Its name in `/proc/<pid>/map_files`, where addresses have no leading zeros.
    pub(super) fn name(&self) -> Option<String> {
        let (start, end) = self.bounds()?;
        Some(format!("{:x}-{:x}", hexadecimal(start)?, hexadecimal(end)?))
    }

    fn bounds(&self) -> Option<(&'a [u8], &'a [u8])> {
        let dash = self.addresses.iter().position(|byte| *byte == b'-')?;
        Some((self.addresses.get(..dash)?, self.addresses.get(dash + 1..)?))
    }
}

/// A field, and the text after the space that ends it.
fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', text)?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |value: u64, digit| {
        Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::{BadLine, Mapping};

    #[test]
    fn a_mapping_of_a_device_is_parsed() {
        let line =
            b"7f597f2f1000-7f59832f1000 rw-s 00100000 00:09 210                        /dev/egm4";
        let mapping = Mapping::parse(line).unwrap().unwrap();
        assert!(!mapping.is_private);
        assert_eq!(mapping.file, b"00:09 210");
        assert_eq!(mapping.path, b"/dev/egm4");
        assert_eq!(mapping.offset, 0x10_0000);
        assert_eq!(mapping.length(), Some(64 << 20));
        assert_eq!(mapping.name().as_deref(), Some("7f597f2f1000-7f59832f1000"));
    }

    #[test]
    fn names_have_no_leading_zeros() {
        let line =
            b"00400000-00401000 r--p 00000000 fe:00 325843                     /bin/x y (deleted)";
        let mapping = Mapping::parse(line).unwrap().unwrap();
        assert!(mapping.is_private);
        assert_eq!(mapping.name().as_deref(), Some("400000-401000"));
        assert_eq!(mapping.path, b"/bin/x y (deleted)");
    }

    #[test]
    fn anonymous_memory_is_no_mapping_of_a_file() {
        for line in [
            &b"7ffed55e2000-7ffed5603000 rw-p 00000000 00:00 0                          [stack]"[..],
            b"7f59-7f60 rw-p 00000000 00:00 0 ",
            b"7f59-7f60 rw-p 00000000 00:00 0",
        ] {
            assert_eq!(Mapping::parse(line), Ok(None), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn lines_that_no_kernel_writes_are_invalid() {
        for line in [
            &b""[..],
            b"junk",
            b"a b x d e f",
            b"7f59-7f60 rw-p x 00:09 210 /dev/egm4",
            b"7f59-7f60 rw-p 11111111111111111 00:09 210 /dev/egm4",
            b"7f59-7f60 rw-x 0 00:09 210 /dev/egm4",
            b"7f59-7f60 rw-s 0 00:09 x /dev/egm4",
            b"7f59-7f60 rw-s 0 00:09 ",
            b"7f60-7f59 rw-s 0 00:09 210 /dev/egm4",
            b"7f60 rw-s 0 00:09 210 /dev/egm4",
            b"\xff\xff \xff \xff \xff",
        ] {
            assert_eq!(Mapping::parse(line), Err(BadLine), "{}", String::from_utf8_lossy(line));
        }
    }
}
