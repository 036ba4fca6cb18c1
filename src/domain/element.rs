//! Elements as libvirt's `dumpxml` writes them: attributes in single quotes, a line an element.

use std::fmt::Write;

use crate::values::text::is_plain;

/// An element to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: Option<String>,
    children: Vec<Element>,
}

/// How elements are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What each level is indented by.
    pub(crate) step: String,
    /// What ends a line.
    pub(crate) newline: &'static str,
}

impl Layout {
    /// So many blanks a level.
    pub(crate) fn indented_by(blanks: usize) -> Self {
        Self { step: " ".repeat(blanks), newline: "\n" }
    }
}

impl Element {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, attributes: Vec::new(), text: None, children: Vec::new() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    #[allow(clippy::needless_pass_by_value)] // Texts and numbers, as they come.
    pub(crate) fn attribute(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    #[allow(clippy::needless_pass_by_value)]
    pub(crate) fn text(mut self, text: impl ToString) -> Self {
        self.text = Some(text.to_string());
        self
    }

    pub(crate) fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    pub(crate) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// Writes the element, of which the first line is not indented and the last one not ended.
    pub(crate) fn write(&self, out: &mut String, layout: &Layout, indent: &str) {
        out.push('<');
        out.push_str(self.name);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("='");
            out.push_str(&escape(value));
            out.push('\'');
        }
        if let Some(text) = &self.text {
            out.push('>');
            out.push_str(&escape(text));
        } else if self.children.is_empty() {
            out.push_str("/>");
            return;
        } else {
            out.push('>');
            let inner = format!("{indent}{}", layout.step);
            for child in &self.children {
                out.push_str(layout.newline);
                out.push_str(&inner);
                child.write(out, layout, &inner);
            }
            out.push_str(layout.newline);
            out.push_str(indent);
        }
        out.push_str("</");
        out.push_str(self.name);
        out.push('>');
    }
}

/// A text as it stands in XML, in an element or between quotes of either kind. What a terminal
/// would act on is written as a number, which means the same.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            c if is_plain(c) => escaped.push(c),
            c => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "&#x{:x};", u32::from(c));
            }
        }
    }
    escaped
}

/// Whether XML can say a text at all: no control characters but tab and ends of lines, and two
/// others (XML 1.0, `Char`).
pub(crate) fn can_be_said(text: &str) -> bool {
    !text.chars().any(|c| {
        matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
    })
}

#[cfg(test)]
mod tests {
    use super::{Element, Layout, can_be_said, escape};

    #[test]
    fn elements_are_written_as_libvirt_writes_them() {
        let source = Element::new("source").child(Element::new("path").text("/dev/a&b'c"));
        let element = Element::new("memory").attribute("model", "e<gm").child(source);
        let mut written = String::new();
        element.write(&mut written, &Layout::indented_by(2), "    ");
        assert_eq!(
            written,
            "<memory model='e&lt;gm'>\n      <source>\n        <path>/dev/a&amp;b&apos;c</path>\n      \
             </source>\n    </memory>"
        );
        let mut empty = String::new();
        Element::new("hugepages").write(&mut empty, &Layout::indented_by(2), "");
        assert_eq!(empty, "<hugepages/>");
    }

    #[test]
    fn what_a_terminal_would_act_on_is_a_number() {
        assert_eq!(escape("\u{202e}\u{9b}\n"), "&#x202e;&#x9b;&#xa;");
        assert!(can_be_said("a\tb\n\u{202e}") && !can_be_said("\x1b") && !can_be_said("\u{ffff}"));
    }
}
