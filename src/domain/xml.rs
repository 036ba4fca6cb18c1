//! XML as far as domains need it: parsing within bounds, and looking at elements as libvirt does.

use std::ops::Range;

use roxmltree::{Document, Node, ParsingOptions};

use super::BadDomain;
use crate::text::excerpt;

/// How much of the parser's words is shown.
const PROBLEM_SHOWN: usize = 200;

/// More nodes than this are no domain of libvirt's.
const NODES_LIMIT: u32 = 200_000;

/// More attributes than this are no element of libvirt's, and take the parser very long.
const ATTRIBUTES_LIMIT: usize = 500;

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, BadDomain> {
    if let Some(offset) = too_many_attributes(text) {
        let problem = format!("an element with more than {ATTRIBUTES_LIMIT} attributes");
        return Err(BadDomain::at(text, offset, &problem));
    }
    // No DTD: entities can be made to grow without bound.
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: NODES_LIMIT, ..Default::default() };
    Document::parse_with_options(text, options).map_err(|error| not_xml(&error, text))
}

/// The `<domain>` of a document, and whether it is a status file of libvirt's.
pub(crate) fn domain_of<'a, 'input>(
    document: &'a Document<'input>,
) -> Result<(Node<'a, 'input>, bool), BadDomain> {
    let root = document.root_element();
    let problem =
        |problem: &str| Err(BadDomain::at(document.input_text(), root.range().start, problem));
    if is_named(root, "domstatus") {
        return match child(root, "domain") {
            Some(domain) => Ok((domain, true)),
            None => problem("<domstatus> without <domain>"),
        };
    }
    if is_named(root, "domain") {
        return Ok((root, false));
    }
    let found = excerpt(root.tag_name().name(), PROBLEM_SHOWN);
    problem(&format!("<{found}> is not a domain of libvirt's"))
}

/// What the parser says, where it says it, or at the end where there is no more to say it of.
fn not_xml(error: &roxmltree::Error, text: &str) -> BadDomain {
    use roxmltree::Error::{NoRootNode, UnclosedRootNode, UnexpectedEndOfStream};
    let problem = error.to_string();
    let problem = problem.strip_suffix(&format!(" at {}", error.pos())).unwrap_or(&problem);
    let problem = excerpt(problem, PROBLEM_SHOWN);
    match error {
        NoRootNode | UnclosedRootNode | UnexpectedEndOfStream => {
            BadDomain::at(text, text.len(), &problem)
        }
        _ => BadDomain { line: error.pos().row, column: error.pos().col, problem },
    }
}

/// The line and column of a place in a text, both from 1; columns count characters.
#[must_use]
pub fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let last = before.rsplit('\n').next().unwrap_or_default();
    let count = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
    (count(before.matches('\n').count()), count(last.chars().count()))
}

/// Where an element begins that has too many attributes: each has an equals sign outside of
/// quotes, between the brackets of its tag.
fn too_many_attributes(text: &str) -> Option<usize> {
    let (mut start, mut quote, mut count) = (None, None, 0);
    for (offset, byte) in text.bytes().enumerate() {
        match (start, quote, byte) {
            (_, None, b'<') => (start, count) = (Some(offset), 0),
            (Some(_), None, b'>') => start = None,
            (Some(_), None, b'"' | b'\'') => quote = Some(byte),
            (Some(_), Some(open), byte) if byte == open => quote = None,
            (Some(tag), None, b'=') => {
                count += 1;
                if count > ATTRIBUTES_LIMIT {
                    return Some(tag);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a node is an element of this name, in no namespace: what libvirt itself finds.
pub(crate) fn is_named(node: Node<'_, '_>, name: &str) -> bool {
    // `has_tag_name` would take any namespace.
    node.is_element() && node.tag_name().name() == name && node.tag_name().namespace().is_none()
}

/// The first child element of this name.
pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| is_named(*child, name))
}

/// The element that a path of names leads to.
pub(crate) fn find<'a, 'input>(node: Node<'a, 'input>, path: &[&str]) -> Option<Node<'a, 'input>> {
    path.iter().try_fold(node, |node, name| child(node, name))
}

/// All child elements of this name.
pub(crate) fn children<'a, 'input: 'a>(
    node: Option<Node<'a, 'input>>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.into_iter().flat_map(|node| node.children()).filter(move |child| is_named(*child, name))
}

/// The text of an element, comments left out, as libvirt reads it; and where it stands. An
/// element without text stands for itself.
pub(crate) fn text_of(node: Node<'_, '_>) -> (String, Range<usize>) {
    let parts = || node.descendants().filter(Node::is_text);
    let text: String = parts().filter_map(|part| part.text()).collect();
    let outside = |part: Node<'_, '_>| part.range();
    match (parts().next(), parts().next_back()) {
        (Some(first), Some(last)) if !text.trim().is_empty() => {
            let range = outside(first).start..outside(last).end;
            (text, trimmed(node.document().input_text(), range))
        }
        _ => (text, start_tag(node)),
    }
}

/// The value of an attribute, and where it stands within its quotes.
pub(crate) fn attribute(node: Node<'_, '_>, name: &str) -> Option<(String, Range<usize>)> {
    let attribute = node
        .attributes()
        .find(|attribute| attribute.name() == name && attribute.namespace().is_none())?;
    Some((attribute.value().to_owned(), value_range(node, &attribute)))
}

/// Where the value of an attribute stands. The parser's own figure is wrong where there are many
/// blanks about the equals sign.
pub(crate) fn value_range(
    node: Node<'_, '_>,
    attribute: &roxmltree::Attribute<'_, '_>,
) -> Range<usize> {
    let range = attribute.range();
    let raw = node.document().input_text().get(range.clone()).unwrap_or_default();
    let quote = raw.find(['\'', '"']).unwrap_or_default();
    (range.start + quote + 1).min(range.end)..range.end.saturating_sub(1).max(range.start)
}

/// Where the start tag of an element stands.
pub(crate) fn start_tag(node: Node<'_, '_>) -> Range<usize> {
    let range = node.range();
    let end = node.first_child().map_or(range.end, |child| child.range().start);
    range.start..end
}

/// A range without the blanks at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let Some(raw) = text.get(range.clone()) else { return range };
    let start = range.start + (raw.len() - raw.trim_start().len());
    let end = range.end - (raw.len() - raw.trim_end().len());
    start..end.max(start)
}
