//! Elements as `virsh dumpxml` writes them: attributes in single quotes, one element per line.

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

/// The layout of elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The indentation of each level.
    pub(crate) step: String,
    /// The line ending.
    pub(crate) newline: &'static str,
}

impl Layout {
    /// Indented by this number of spaces per level.
    pub(crate) fn indented_by(spaces: usize) -> Self {
        Self { step: " ".repeat(spaces), newline: "\n" }
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

    pub(crate) fn attributes<T: ToString>(
        self,
        attributes: impl IntoIterator<Item = (&'static str, T)>,
    ) -> Self {
        attributes.into_iter().fold(self, |it, (name, value)| it.attribute(name, value))
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

    /// Writes the element, without indentation of the first line and without a final newline.
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

/// Escapes a text for use in an element or an attribute. Terminal controls are written as numeric
/// references.
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

/// Whether a text can be written in XML, which excludes most control characters and two others
/// (XML 1.0, `Char`).
pub(crate) fn is_expressible(text: &str) -> bool {
    !text.chars().any(|c| {
        matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
    })
}

#[cfg(test)]
mod tests {
    use super::{Element, Layout, escape, is_expressible};

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
    fn terminal_controls_become_numeric_references() {
        assert_eq!(escape("\u{202e}\u{9b}\n"), "&#x202e;&#x9b;&#xa;");
        assert!(
            is_expressible("a\tb\n\u{202e}")
                && !is_expressible("\x1b")
                && !is_expressible("\u{ffff}")
        );
    }
}
