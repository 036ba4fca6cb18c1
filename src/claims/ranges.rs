//! Parts of a region, sorted by offset and merged.

use serde::Serialize;

use crate::values::Bytes;

/// One mapped part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// Length in bytes; never 0.
    pub length: u64,
}

/// A set of parts, neither overlapping nor adjacent.
///
/// ```
/// use egm_probe::claims::Ranges;
///
/// let mapped: Ranges = [(0x3000, 0x1000), (0, 0x1000), (0x800, 0x1000)].into_iter().collect();
/// assert_eq!(mapped.total().0, 0x2800);
/// assert_eq!(mapped.iter().count(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// The parts, by offset.
    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }

    /// The parts below a size, which those of a region cannot exceed.
    #[must_use]
    pub(crate) fn within(self, size: Bytes) -> Self {
        let clipped = |range: Range| {
            let length = range.length.min(size.0.saturating_sub(range.offset));
            (length > 0).then_some(Range { length, ..range })
        };
        Self(self.0.into_iter().filter_map(clipped).collect())
    }

    /// Whether a part of one is also in the other.
    #[must_use]
    pub(crate) fn overlap(&self, other: &Self) -> bool {
        let both: Self = [self, other].into_iter().collect();
        both.total().0 < self.total().0.saturating_add(other.total().0)
    }

    /// The total size of the parts.
    #[must_use]
    pub fn total(&self) -> Bytes {
        // Parts do not overlap within 64 bits, so the sum does not overflow.
        Bytes(self.0.iter().map(|range| range.length).sum())
    }
}

/// From offsets and lengths, in any order. Parts beyond 64 bits are truncated.
impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(parts: I) -> Self {
        let mut parts: Vec<_> = parts.into_iter().filter(|(_, length)| *length > 0).collect();
        parts.sort_unstable();
        let mut merged: Vec<Range> = Vec::new();
        for (offset, length) in parts {
            let length = length.min(u64::MAX - offset);
            match merged.last_mut() {
                Some(last) if offset <= last.offset + last.length => {
                    let end = (last.offset + last.length).max(offset + length);
                    last.length = end - last.offset;
                }
                _ if length > 0 => merged.push(Range { offset, length }),
                _ => {}
            }
        }
        Self(merged)
    }
}

impl<'a> FromIterator<&'a Ranges> for Ranges {
    fn from_iter<I: IntoIterator<Item = &'a Ranges>>(all: I) -> Self {
        all.into_iter().flat_map(Ranges::iter).map(|range| (range.offset, range.length)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;
    use crate::values::Bytes;

    fn merged(parts: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let ranges: Ranges = parts.iter().copied().collect();
        ranges.iter().map(|range| (range.offset, range.length)).collect()
    }

    #[test]
    fn touching_and_overlapping_parts_are_merged() {
        assert_eq!(merged(&[]), []);
        assert_eq!(merged(&[(5, 0)]), []);
        assert_eq!(merged(&[(8, 8), (0, 8)]), [(0, 16)]);
        assert_eq!(merged(&[(0, 100), (10, 10)]), [(0, 100)]);
        assert_eq!(merged(&[(0, 8), (9, 1)]), [(0, 8), (9, 1)]);
        assert_eq!(merged(&[(0, 8), (0, 8)]), [(0, 8)]);
    }

    #[test]
    fn parts_end_with_the_region() {
        let ranges: Ranges = [(0, 10), (20, 10), (40, 10)].into_iter().collect();
        let within: Vec<_> =
            ranges.within(Bytes(25)).iter().map(|range| (range.offset, range.length)).collect();
        assert_eq!(within, [(0, 10), (20, 5)]);
    }

    #[test]
    fn adjacent_parts_do_not_overlap() {
        let ranges = |offset, length| [(offset, length)].into_iter().collect::<Ranges>();
        assert!(!ranges(0, 10).overlap(&ranges(10, 10)));
        assert!(ranges(0, 11).overlap(&ranges(10, 10)));
        assert!(!Ranges::default().overlap(&ranges(0, 10)));
    }

    #[test]
    fn nothing_overflows_at_the_end_of_64_bits() {
        assert_eq!(merged(&[(u64::MAX, 1), (u64::MAX - 4096, 8192)]), [(u64::MAX - 4096, 4096)]);
        let all: Ranges = [(0, u64::MAX), (1, u64::MAX)].into_iter().collect();
        assert_eq!(all.total().0, u64::MAX);
    }
}
