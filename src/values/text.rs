//! Text of unknown origin, made safe to print.

use std::fmt::{Display, Write};
use std::path::Path;

/// A text in which control characters and characters that change the text direction are written as
/// `\x1b` or `\u{202e}`, so that it has no effect on a terminal.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    escape(text, |c| !is_plain(c))
}

/// Like [`printable`], but also escapes the characters that `also` selects.
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

/// A path, safe to print and up to the kernel's limit (`PATH_MAX`).
#[must_use]
pub(crate) fn shown(path: &Path) -> String {
    excerpt(&path.to_string_lossy(), 4096)
}

/// Maximum number of characters shown of a value of unknown origin.
pub(crate) const SHOWN: usize = 80;

/// Like [`printable`], truncated to `length` characters.
#[must_use]
pub(crate) fn excerpt(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}...", printable(text.get(..end).unwrap_or(text))),
        None => printable(text),
    }
}

/// Excerpts of texts, separated by commas.
pub(crate) fn excerpts(texts: &[String]) -> String {
    texts.iter().map(|text| excerpt(text, SHOWN)).collect::<Vec<_>>().join(", ")
}

/// A count and its noun: `1 region`, `2 regions`, `0 processes`.
pub(crate) fn plural<T: Copy + Display + PartialEq + From<u8>>(count: T, noun: &str) -> String {
    let ending = match noun {
        _ if count == T::from(1) => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

/// Whether a character can be printed unescaped.
pub(crate) fn is_plain(c: char) -> bool {
    // Direction marks and overrides, invisible characters, line separators.
    let redirects = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !redirects
}

#[cfg(test)]
mod tests {
    use super::{excerpt, plural, printable};

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(printable("GB100 [GB200]"), "GB100 [GB200]");
        assert_eq!(printable("Grüße"), "Grüße");
        assert_eq!(printable("\x07\x1b]0;x\x7f\u{9b}"), "\\x07\\x1b]0;x\\x7f\\u{9b}");
        assert_eq!(printable("\u{202e}txt"), "\\u{202e}txt");
    }

    #[test]
    fn a_long_text_is_truncated_between_characters() {
        assert_eq!(excerpt(&"ü".repeat(100), 80), format!("{}...", "ü".repeat(80)));
    }

    #[test]
    fn counts_agree_with_their_nouns() {
        let counts = [0_usize, 1, 2].map(|count| plural(count, "region"));
        assert_eq!(counts, ["0 regions", "1 region", "2 regions"]);
        assert_eq!([1_u64, 2].map(|count| plural(count, "process")), ["1 process", "2 processes"]);
    }
}
