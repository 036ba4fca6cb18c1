//! The kernel's lists of numbers: `0-71,144` of CPUs or of NUMA nodes.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::values::numbers::decimal;

/// A set of CPU or node numbers, stored as ranges: a hostile `0-4294967295` costs no more than `0`.
///
/// Reads and displays the kernel's list format (`bitmap_parselist`, lib/bitmap-str.c, without the
/// strides and keywords that the kernel reads but never prints).
///
/// ```
/// use egm_probe::values::IdList;
///
/// let cpus: IdList = "0-3,4-71,144\n".parse()?;
/// assert_eq!(cpus.to_string(), "0-71,144");
/// assert!(cpus.contains(71) && !cpus.contains(72));
/// assert!("\n".parse::<IdList>()?.is_empty());
/// # Ok::<(), egm_probe::values::BadList>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdList {
    /// Sorted; neither overlapping nor adjacent.
    ranges: Vec<RangeInclusive<u32>>,
}

/// Invalid list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of numbers such as 0-3,8")]
pub struct BadList;

impl IdList {
    /// Whether a number is in the list.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(&id))
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.end() - range.start()) + 1).sum()
    }

    /// The largest number.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|range| *range.end())
    }

    /// The smallest number that another list does not have.
    #[must_use]
    pub fn first_beyond(&self, other: &Self) -> Option<u32> {
        self.ranges.iter().find_map(|range| {
            // Ranges neither overlap nor touch, so the number after a range is not in the list.
            match other.ranges.iter().find(|other| other.contains(range.start())) {
                None => Some(*range.start()),
                Some(other) if other.end() < range.end() => other.end().checked_add(1),
                Some(_) => None,
            }
        })
    }

    /// The numbers of both lists.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        self.ranges.iter().chain(&other.ranges).cloned().collect()
    }

    /// The list without some of its numbers.
    #[must_use]
    pub fn without(&self, ids: &[u32]) -> Self {
        let mut out = ids.to_vec();
        out.sort_unstable();
        let mut out = out.into_iter().peekable();
        let mut parts = Vec::new();
        for range in &self.ranges {
            let (mut start, end) = (u64::from(*range.start()), u64::from(*range.end()));
            while let Some(id) = out.next_if(|id| id <= range.end()) {
                if range.contains(&id) {
                    parts.push((start, u64::from(id)));
                    start = u64::from(id) + 1;
                }
            }
            parts.push((start, end + 1));
        }
        let range = |(start, end): (u64, u64)| {
            Some(u32::try_from(start).ok()?..=u32::try_from(end.checked_sub(1)?).ok()?)
        };
        parts.into_iter().filter_map(range).collect()
    }

    /// Its ranges, in order.
    pub(crate) fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.ranges
    }

    /// The numbers, in order: up to four billion.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().cloned().flatten()
    }
}

impl FromIterator<RangeInclusive<u32>> for IdList {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u32>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }
}

impl FromIterator<u32> for IdList {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        ids.into_iter().map(|id| id..=id).collect()
    }
}

impl FromStr for IdList {
    type Err = BadList;

    fn from_str(text: &str) -> Result<Self, BadList> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|part| {
                let (start, end) = part.split_once('-').unwrap_or((part, part));
                let number = |digits| decimal(digits).ok_or(BadList);
                let range = number(start)?..=number(end)?;
                if range.is_empty() { Err(BadList) } else { Ok(range) }
            })
            .collect()
    }
}

impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.start())?;
            if range.end() > range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BadList, IdList};

    #[test]
    fn lists_are_read_sorted_and_merged() {
        for (text, shown, length) in [
            ("", "", 0),
            ("\n", "", 0),
            ("0\n", "0", 1),
            ("0-71", "0-71", 72),
            ("4,0-1,2", "0-2,4", 4),
            ("0-5,2-3", "0-5", 6),
            ("0-4294967295", "0-4294967295", 1 << 32),
            ("4294967295,4294967294", "4294967294-4294967295", 2),
        ] {
            let list: IdList = text.parse().expect(text);
            assert_eq!(list.to_string(), shown);
            assert_eq!(list.len(), length);
        }
    }

    #[test]
    fn lists_are_sets() {
        let list = |text: &str| text.parse::<IdList>().unwrap();
        assert_eq!(list("0-7").without(&[3, 0, 3, 9]), list("1-2,4-7"));
        assert_eq!(list("4294967295").without(&[u32::MAX]), list(""));
        assert_eq!(list("0-3").with(&list("2-5,9")), list("0-5,9"));
        assert_eq!(list("0-3").first_beyond(&list("0-71")), None);
        assert_eq!(list("3-80,90").first_beyond(&list("0-71")), Some(72));
        assert_eq!(list("3,90").first_beyond(&list("0-71")), Some(90));
        assert_eq!((list("1,7-9").last(), list("").last()), (Some(9), None));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["x", "-1", "1-", "3-1", "0,,1", ",", "0x1", "+1", "1 2", "4294967296", "0-7:2/4"]
        {
            assert_eq!(text.parse::<IdList>(), Err(BadList), "{text}");
        }
    }
}
