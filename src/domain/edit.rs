//! Changes to an XML text that preserve everything else byte for byte.

use std::collections::BTreeMap;
use std::ops::Range;

use roxmltree::{Document, Node};

use super::element::{Element, Layout, escape};
use super::xml::{content, is_named, start_tag, value_range};

/// Changes to a text, applied together.
pub(crate) struct Edit<'a> {
    text: &'a str,
    layout: Layout,
    /// The replacements; those for the same place are in the order of the calls.
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Edit<'a> {
    /// No changes yet. New elements are indented like the text, unless a step is given.
    pub(crate) fn of(document: &'a Document<'_>, step: Option<String>) -> Self {
        let text = document.input_text();
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let step = step.or_else(|| own_step(document)).unwrap_or_else(|| "  ".into());
        Self { text, layout: Layout { step, newline }, changes: Vec::new() }
    }

    /// Replaces the text of an element.
    pub(crate) fn set_text(&mut self, node: Node<'_, '_>, text: &str) {
        match content(node) {
            Some(content) => self.replace(content, escape(text)),
            None => self.fill(node, &escape(text)),
        }
    }

    /// Sets an attribute of an element.
    pub(crate) fn set_attribute(&mut self, node: Node<'_, '_>, name: &str, value: &str) {
        match node.attribute_node(name) {
            Some(attribute) if attribute.value() == value => {}
            Some(attribute) => self.replace(value_range(node, &attribute), escape(value)),
            None => {
                let last = node.attributes().next_back().map(|last| last.range().end);
                let at = last.unwrap_or_else(|| self.end_of_name(node));
                self.replace(at..at, format!(" {name}='{}'", escape(value)));
            }
        }
    }

    /// Removes an attribute and the spaces before it.
    pub(crate) fn remove_attribute(&mut self, node: Node<'_, '_>, name: &str) {
        if let Some(attribute) = node.attribute_node(name) {
            let range = attribute.range();
            let before = self.text.get(..range.start).unwrap_or_default();
            self.replace(before.trim_end().len()..range.end, String::new());
        }
    }

    /// Removes an element, the spaces before it, and the line if nothing else is on it.
    pub(crate) fn remove(&mut self, node: Node<'_, '_>) {
        let range = node.range();
        let before = self.text.get(..range.start).unwrap_or_default();
        let line = before.trim_end_matches([' ', '\t']);
        let line = line.strip_suffix('\n').map_or(line, |line| line.trim_end_matches('\r'));
        self.replace(line.len()..range.end, String::new());
    }

    /// Removes the content of an element.
    pub(crate) fn empty(&mut self, node: Node<'_, '_>) {
        if let Some(content) = content(node) {
            self.replace(content.start.saturating_sub(1)..node.range().end, "/>".into());
        }
    }

    /// Inserts elements into a parent, in the given order of names (separated by spaces): each after
    /// the last existing element of the same or an earlier name. Call it only once for a parent.
    pub(crate) fn insert(&mut self, parent: Node<'_, '_>, order: &str, mut elements: Vec<Element>) {
        if elements.is_empty() {
            return;
        }
        let order: Vec<_> = order.split_whitespace().collect();
        // Unknown names come last.
        let rank =
            |name: &str| order.iter().position(|known| *known == name).unwrap_or(order.len());
        elements.sort_by_key(|element| rank(element.name()));
        let outer = indent_of(parent).unwrap_or_else(|| self.indent_by_depth(parent));
        let inner = parent.children().filter(Node::is_element).find_map(indent_of);
        let inner = inner.unwrap_or_else(|| format!("{outer}{}", self.layout.step));
        let layout = self.layout.clone();
        let newline = layout.newline;
        let written = |element: &Element| {
            let mut text = format!("{newline}{inner}");
            element.write(&mut text, &layout, &inner);
            text
        };
        if !parent.has_children() {
            let content: String = elements.iter().map(written).collect();
            self.fill(parent, &format!("{content}{newline}{outer}"));
            return;
        }
        let end = content(parent).map_or(parent.range().end, |content| content.end);
        let mut is_at_end = false;
        for element in elements {
            let own = rank(element.name());
            let mut before = parent.children().filter(|node| {
                let other = order.iter().find(|other| is_named(*node, other));
                other.is_some_and(|other| rank(other) <= own)
            });
            let at = match before.next_back() {
                Some(before) => self.end_of_line(before.range().end, before.next_sibling()),
                None => self.end_of_line(start_tag(parent).end, parent.first_child()),
            };
            is_at_end |= at == end;
            let text = written(&element);
            self.replace(at..at, text);
        }
        if is_at_end {
            self.replace(end..end, format!("{newline}{outer}"));
        }
    }

    /// Inserts numbered elements of one name into a parent, each after the existing one with the next
    /// lower number.
    pub(crate) fn insert_numbered(
        &mut self,
        parent: Node<'_, '_>,
        name: &str,
        existing: &BTreeMap<u32, Node<'_, '_>>,
        elements: Vec<(u32, Element)>,
    ) {
        let mut others = Vec::new();
        for (number, element) in elements {
            let follows = existing.range(number..).next().is_some();
            match existing.range(..number).next_back().filter(|_| follows) {
                Some((_, before)) => self.insert_after(*before, &element),
                None => others.push(element),
            }
        }
        self.insert(parent, name, others);
    }

    /// Inserts an element after another one.
    fn insert_after(&mut self, before: Node<'_, '_>, element: &Element) {
        let layout = self.layout.clone();
        let inner = indent_of(before).unwrap_or_else(|| self.indent_by_depth(before));
        let mut text = format!("{}{inner}", layout.newline);
        element.write(&mut text, &layout, &inner);
        let at = self.end_of_line(before.range().end, before.next_sibling());
        self.replace(at..at, text);
    }

    /// Applies the changes.
    pub(crate) fn apply(mut self) -> String {
        // Insertions before replacements; stable, so that insertions at one place stay in order.
        self.changes.sort_by_key(|(range, _)| (range.start, range.end));
        let mut text = String::with_capacity(self.text.len() + 4096);
        let mut done = 0;
        for (range, new) in &self.changes {
            // Within an element that is removed.
            if range.start < done {
                continue;
            }
            text.push_str(self.text.get(done..range.start).unwrap_or_default());
            text.push_str(new);
            done = range.end;
        }
        text.push_str(self.text.get(done..).unwrap_or_default());
        text
    }

    fn replace(&mut self, range: Range<usize>, text: String) {
        if self.text.get(range.clone()) != Some(&text) {
            self.changes.push((range, text));
        }
    }

    /// Adds content to an empty element by replacing only the end of its tag.
    fn fill(&mut self, node: Node<'_, '_>, content: &str) {
        let range = node.range();
        let whole = self.text.get(range.clone()).unwrap_or_default();
        let closing = if whole.ends_with("/>") {
            whole.len() - 2
        } else {
            whole.rfind("</").unwrap_or_default().saturating_sub(1)
        };
        let closing = range.start + closing..range.end;
        self.replace(closing, format!(">{content}</{}>", node.tag_name().name()));
    }

    /// The end of the name in a start tag.
    fn end_of_name(&self, node: Node<'_, '_>) -> usize {
        let after = node.range().start + 1;
        let rest = self.text.get(after..).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || c == '/' || c == '>';
        after + rest.find(ends).unwrap_or_default()
    }

    /// The indentation that an element should have.
    fn indent_by_depth(&self, node: Node<'_, '_>) -> String {
        let depth = node.ancestors().filter(|node| node.parent_element().is_some()).count();
        self.layout.step.repeat(depth.min(64))
    }

    /// Extends `end` over the comments that follow on the same line.
    fn end_of_line(&self, mut end: usize, next: Option<Node<'_, '_>>) -> usize {
        for next in next.into_iter().flat_map(|next| next.next_siblings()) {
            let text = self.text.get(next.range()).unwrap_or_default();
            if next.is_comment() {
                end = next.range().end;
            } else if !next.is_text() || text.contains('\n') || !text.trim().is_empty() {
                break;
            }
        }
        end
    }
}

/// The spaces before an element on its line, if there is nothing else. Looks back only to the previous
/// node.
fn indent_of(node: Node<'_, '_>) -> Option<String> {
    let start = node.range().start;
    let gap = match node.prev_sibling() {
        Some(before) if before.is_text() => before.range(),
        Some(before) => before.range().end..start,
        // Only for the first node of the document; otherwise a start tag precedes it.
        None => node.parent_element().is_none().then_some(0..start)?,
    };
    let gap = node.document().input_text().get(gap)?;
    let line = match gap.rsplit_once('\n') {
        Some((_, line)) => line,
        None if start == 0 => "",
        None => return None,
    };
    line.chars().all(char::is_whitespace).then(|| line.to_owned())
}

/// The indentation of each level in a text.
fn own_step(document: &Document<'_>) -> Option<String> {
    let root = document.root_element();
    let outer = indent_of(root).unwrap_or_default();
    let inner = root.children().filter(Node::is_element).find_map(indent_of)?;
    inner.strip_prefix(outer.as_str()).filter(|step| !step.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::element::Element;
    use super::super::xml::{child, find, parse};
    use super::Edit;

    const ORDER: &str = "name cpu devices";

    fn cpu() -> Element {
        Element::new("cpu").child(Element::new("numa"))
    }

    #[test]
    fn an_inserted_element_changes_nothing_else() {
        for (text, expected) in [
            // After its predecessor and the comments on that line.
            (
                "<d>\n\t<name>x</name> <!-- a --> <!-- b -->\n\n\t<devices/></d>",
                "<d>\n\t<name>x</name> <!-- a --> <!-- b -->\n\t<cpu>\n\t\t<numa/>\n\t</cpu>\n\n\t<devices/></d>",
            ),
            // First, if it has no predecessor.
            (
                "<d>\r\n   <devices/>\r\n</d>",
                "<d>\r\n   <cpu>\r\n      <numa/>\r\n   </cpu>\r\n   <devices/>\r\n</d>",
            ),
            // A comment on the line of the start tag stays with it.
            (
                "<d> <!-- all -->\n <e/></d>",
                "<d> <!-- all -->\n <cpu>\n  <numa/>\n </cpu>\n <e/></d>",
            ),
            // The end tag moves to its own line.
            ("<d><name/></d>", "<d><name/>\n  <cpu>\n    <numa/>\n  </cpu>\n</d>"),
            // Elements of other namespaces do not count.
            (
                "<d xmlns:x='u'><x:name/><name a='>'/><x:cpu/></d>",
                "<d xmlns:x='u'><x:name/><name a='>'/>\n  <cpu>\n    <numa/>\n  </cpu><x:cpu/></d>",
            ),
            ("<d/>", "<d>\n  <cpu>\n    <numa/>\n  </cpu>\n</d>"),
            ("<d\n a='/>' ></d >", "<d\n a='/>' >\n  <cpu>\n    <numa/>\n  </cpu>\n</d>"),
        ] {
            let document = parse(text).unwrap();
            let mut edit = Edit::of(&document, None);
            edit.insert(document.root_element(), ORDER, vec![cpu()]);
            assert_eq!(edit.apply(), expected);
        }
    }

    #[test]
    fn values_are_changed_in_place() {
        let text =
            "<d><a>1<![CDATA[2]]>3<!-- one --></a><b\n  u = \"x\"/><c t='0' s='1'/><e></e></d>";
        let document = parse(text).unwrap();
        let mut edit = Edit::of(&document, None);
        let root = document.root_element();
        let [a, b, c, e] = ["a", "b", "c", "e"].map(|name| child(root, name).unwrap());
        edit.set_text(a, "2");
        edit.set_attribute(a, "unit", "K<B");
        edit.set_text(b, "3");
        edit.set_attribute(b, "u", "'y'");
        edit.set_attribute(b, "v", "z");
        edit.set_text(c, "4 & 5");
        edit.set_attribute(c, "w", "1");
        edit.remove_attribute(c, "t");
        edit.remove_attribute(c, "r");
        edit.set_text(e, "6");
        assert_eq!(
            edit.apply(),
            "<d><a unit='K&lt;B'>2</a><b\n  u = \"&apos;y&apos;\" v='z'>3</b><c s='1' w='1'>4 &amp; 5</c><e>6</e></d>"
        );
        assert!(find(root, &["a", "b"]).is_none());
    }

    #[test]
    fn equal_values_change_nothing() {
        let text = "<d a='1'><b>2</b></d>";
        let document = parse(text).unwrap();
        let mut edit = Edit::of(&document, None);
        edit.set_attribute(document.root_element(), "a", "1");
        edit.set_text(child(document.root_element(), "b").unwrap(), "2");
        edit.insert(document.root_element(), ORDER, Vec::new());
        assert!(edit.changes.is_empty());
    }
}
