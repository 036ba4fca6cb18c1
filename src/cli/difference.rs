//! Differences between file versions, for people.

use std::io::{self, Write};

use similar::TextDiff;

use crate::values::text::printable;

/// Writes the difference between two texts as `diff -u` does, with terminal controls escaped.
pub(super) fn write(out: &mut dyn Write, name: &str, old: &str, new: &str) -> io::Result<()> {
    let difference = TextDiff::from_lines(old, new);
    let mut difference = difference.unified_diff();
    difference.header(name, name);
    let is_kept = |c: char| matches!(c, '\n' | '\r' | '\t');
    let mut text = String::new();
    for part in difference.to_string().split_inclusive(is_kept) {
        let kept = part.chars().next_back().filter(|c| is_kept(*c));
        text.push_str(&printable(kept.map_or(part, |kept| part.trim_end_matches(kept))));
        text.extend(kept);
    }
    out.write_all(text.as_bytes())
}
