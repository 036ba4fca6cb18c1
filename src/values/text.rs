//! Text of unknown origin, made safe to show.

use std::fmt::{Display, Write};
use std::path::Path;

/// A text in which every control character and every character that redirects text is written
/// as `\x1b` or `\u{202e}`, so that it can do nothing to a terminal.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    escape(text, |c| !is_plain(c))
}

/// A text as [`printable`], in which the characters that `also` picks are written so, too.
#[must_use]
pub(crate) fn escape(text: &str, also: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) && !also(c) {
            shown.push(c);
        } else if c.is_ascii() {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{:02x}", u32::from(c));
        } else {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
    shown
}

/// A path, safe to show, as long as the kernel takes (`PATH_MAX`).
#[must_use]
pub(crate) fn shown(path: &Path) -> String {
    excerpt(&path.to_string_lossy(), 4096)
}

/// How much is shown of a value of unknown origin.
pub(crate) const SHOWN: usize = 80;

/// As [`printable`], cut to so many characters.
#[must_use]
pub(crate) fn excerpt(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}...", printable(text.get(..end).unwrap_or(text))),
        None => printable(text),
    }
}

/// Excerpts of texts, in a list.
pub(crate) fn excerpts(texts: &[String]) -> String {
    texts.iter().map(|text| excerpt(text, SHOWN)).collect::<Vec<_>>().join(", ")
}

/// A number of things: `1 region`, `2 regions`.
pub(crate) fn plural<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// Whether a character can be shown as it is.
pub(crate) fn is_plain(c: char) -> bool {
    // Marks and overrides of direction, invisible characters, separators of lines.
    let redirects = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !redirects
}

#[cfg(test)]
mod tests {
    use super::{excerpt, plural, printable};

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left() {
        assert_eq!(printable("GB100 [GB200]"), "GB100 [GB200]");
        assert_eq!(printable("Grüße"), "Grüße");
        assert_eq!(printable("\x07\x1b]0;x\x7f\u{9b}"), "\\x07\\x1b]0;x\\x7f\\u{9b}");
        assert_eq!(printable("\u{202e}txt"), "\\u{202e}txt");
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([0, 1, 2].map(|count| plural(count, "GPU")), ["0 GPUs", "1 GPU", "2 GPUs"]);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(excerpt(&"ü".repeat(100), 80), format!("{}...", "ü".repeat(80)));
    }
}
