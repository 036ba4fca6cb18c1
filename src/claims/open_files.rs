//! The number of open files of all regions together, from the driver's own reference count.
//!
//! An open file holds two references on the driver's module, one of its file operations and one of
//! its character device; an exported dma-buf holds one. Each module in `holders/` holds one as
//! well. A file that several processes share counts once. While a region is being opened, which
//! clears it first and takes tens of seconds, only this count shows it.

#[cfg(feature = "cli")]
use std::fs::File;
#[cfg(feature = "cli")]
use std::os::unix::fs::FileExt;

use crate::sysroot::Sysroot;
use crate::values::numbers::decimal;

const REFERENCES: &str = "/sys/module/nvgrace_egm/refcnt";
const MODULES: &str = "/sys/module/nvgrace_egm/holders";

/// The references of open files and dma-bufs on the driver's module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OpenCount {
    /// The driver has no count: another module, or an old capture.
    #[default]
    Absent,
    /// The count cannot be read or is not plausible: the module is being loaded or removed.
    Unclear,
    /// The number of references.
    References(u64),
}

impl OpenCount {
    pub(super) fn read(root: &Sysroot) -> Self {
        let references = match root.read_text(REFERENCES) {
            Ok(text) => decimal::<u64>(text.trim_end()),
            Err(error) if error.is_absent() => return Self::Absent,
            Err(_) => None,
        };
        let modules = match root.entries(MODULES) {
            Ok(modules) => Some(modules.len() as u64),
            Err(error) if error.is_absent() => Some(0),
            Err(_) => None,
        };
        let own = references.zip(modules).and_then(|(all, others)| all.checked_sub(others));
        own.map_or(Self::Unclear, Self::References)
    }

    /// Whether something is open.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::References(1..))
    }

    /// The number of open files, if there are this many dma-bufs.
    pub(super) fn files(self, dma_bufs: usize) -> Option<u64> {
        let Self::References(references) = self else { return None };
        let of_files = references.checked_sub(dma_bufs as u64)?;
        of_files.is_multiple_of(2).then_some(of_files / 2)
    }
}

/// The driver's count as it was, in a file that stays open: one system call compares it.
#[cfg(feature = "cli")]
pub(crate) struct Counter {
    file: File,
    text: Vec<u8>,
}

#[cfg(feature = "cli")]
impl Counter {
    pub(crate) fn open(root: &Sysroot) -> Option<Self> {
        let file = root.open_file(REFERENCES.as_ref())?.ok()?;
        let text = Self::text(&file)?;
        Some(Self { file, text })
    }

    /// Whether the count is still the same. It is not once the module was removed.
    pub(crate) fn is_current(&self) -> bool {
        Self::text(&self.file).is_some_and(|now| now == self.text)
    }

    fn text(file: &File) -> Option<Vec<u8>> {
        let mut text = vec![0; 32];
        let length = file.read_at(&mut text, 0).ok()?;
        text.truncate(length);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::OpenCount;

    #[test]
    fn an_open_file_has_two_references() {
        for (count, dma_bufs, files) in [
            (OpenCount::References(0), 0, Some(0)),
            (OpenCount::References(4), 0, Some(2)),
            (OpenCount::References(3), 0, None),
            (OpenCount::References(3), 1, Some(1)),
            (OpenCount::References(0), 1, None),
            (OpenCount::Unclear, 0, None),
            (OpenCount::Absent, 0, None),
        ] {
            assert_eq!(count.files(dma_bufs), files, "{count:?} {dma_bufs}");
        }
    }
}
