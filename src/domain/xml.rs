//! XML as far as domains need it: parsing with limits, and access to elements as libvirt has it.

use std::ops::Range;

use roxmltree::{Document, Node, ParsingOptions};

use super::BadDomain;
use crate::values::text::excerpt;

/// The maximum length of the parser's message.
const PROBLEM_SHOWN: usize = 200;

/// The maximum number of nodes.
const NODES_LIMIT: u32 = 200_000;

/// The maximum number of namespace declarations: each applies to all descendants.
const NAMESPACES_LIMIT: usize = 500;

/// The maximum depth of nesting, which is that of libvirt's parser, libxml2 (`xmlParserMaxDepth`,
/// `parserInternals.h`).
const DEPTH_LIMIT: usize = 256;

/// The maximum number of attributes of an element: more take the parser very long.
const ATTRIBUTES_LIMIT: usize = 100;

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, BadDomain> {
    if let Some(offset) = too_many_attributes(text) {
        let problem = format!("an element with more than {ATTRIBUTES_LIMIT} attributes");
        return Err(BadDomain::at(text, offset, &problem));
    }
    if let Some((offset, _)) = text.match_indices("xmlns").nth(NAMESPACES_LIMIT) {
        let problem = format!("more than {NAMESPACES_LIMIT} namespaces");
        return Err(BadDomain::at(text, offset, &problem));
    }
    // No DTD: entities can expand without limit.
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: NODES_LIMIT, ..Default::default() };
    let document =
        Document::parse_with_options(text, options).map_err(|error| not_xml(&error, text))?;
    // The ancestors include the element itself and the document.
    let is_too_deep =
        |node: &Node<'_, '_>| node.is_element() && node.ancestors().nth(DEPTH_LIMIT + 1).is_some();
    if let Some(node) = document.descendants().find(is_too_deep) {
        let problem = format!("elements nested more than {DEPTH_LIMIT} deep");
        return Err(BadDomain::at(text, node.range().start, &problem));
    }
    Ok(document)
}

/// The `<domain>` of a document, and whether it is a status file.
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
    problem(&format!("<{found}> is not a libvirt domain"))
}

/// The parser's error with its place, or with the end of the text if that is the cause.
fn not_xml(error: &roxmltree::Error, text: &str) -> BadDomain {
    use roxmltree::Error::{NoRootNode, UnclosedRootNode, UnexpectedEndOfStream};
    if matches!(error, roxmltree::Error::NodesLimitReached) {
        let problem = format!("more than {NODES_LIMIT} elements and texts");
        return BadDomain::at(text, 0, &problem);
    }
    // The parser reports a truncated tag as unknown syntax.
    let open = text.rfind('<').filter(|at| text.get(*at..).is_some_and(|tag| !tag.contains('>')));
    let is_at_end = matches!(error, NoRootNode | UnclosedRootNode | UnexpectedEndOfStream);
    let place = (error.pos().row, error.pos().col);
    if open.is_some_and(|at| is_at_end || line_and_column(text, at) <= place) {
        return BadDomain::at(text, text.len(), "unexpected end within a tag");
    }
    if text.trim_ascii().is_empty() {
        return BadDomain::at(text, 0, "document is empty");
    }
    let problem = error.to_string();
    let problem = problem.strip_suffix(&format!(" at {}", error.pos())).unwrap_or(&problem);
    let problem = excerpt(problem, PROBLEM_SHOWN);
    if is_at_end {
        return BadDomain::at(text, text.len(), &problem);
    }
    let (line, column) = place;
    BadDomain { line, column, problem }
}

/// The line and column of a place in a text, both from 1; columns count characters.
#[must_use]
pub fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    lines_and_columns(text, [offset]).into_iter().next().unwrap_or((1, 1))
}

/// The lines and columns of several places, which must be in order, in one pass over the text.
#[must_use]
pub fn lines_and_columns(text: &str, offsets: impl IntoIterator<Item = usize>) -> Vec<(u32, u32)> {
    let (mut line, mut column, mut done) = (1_u32, 1_u32, 0);
    let next = |offset: usize| {
        let between = text.get(done..offset.max(done)).unwrap_or_default();
        for c in between.chars() {
            (line, column) = if c == '\n' {
                (line.saturating_add(1), 1)
            } else {
                (line, column.saturating_add(1))
            };
        }
        done += between.len();
        (line, column)
    };
    offsets.into_iter().map(next).collect()
}

/// The start of an element with too many attributes, counted by the equals signs in its tag outside
/// of quotes.
fn too_many_attributes(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('<')) {
        let tag = at + found;
        let rest = text.get(tag..).unwrap_or_default();
        // Skip comments, CDATA and processing instructions.
        let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")]
            .into_iter()
            .find(|(open, _)| rest.starts_with(open));
        if let Some((open, close)) = skipped {
            let inside = rest.get(open.len()..).unwrap_or_default();
            at =
                tag + open.len() + inside.find(close).map_or(inside.len(), |end| end + close.len());
            continue;
        }
        let (mut quote, mut count) = (None, 0);
        at = text.len();
        for (offset, byte) in rest.bytes().enumerate() {
            match (quote, byte) {
                (None, b'>') => {
                    at = tag + offset + 1;
                    break;
                }
                (None, b'"' | b'\'') => quote = Some(byte),
                (Some(open), byte) if byte == open => quote = None,
                (None, b'=') => {
                    count += 1;
                    if count > ATTRIBUTES_LIMIT {
                        return Some(tag);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

/// Whether a node is an element of this name in no namespace, as libvirt requires.
pub(crate) fn is_named(node: Node<'_, '_>, name: &str) -> bool {
    // `has_tag_name` would accept any namespace.
    node.is_element() && node.tag_name().name() == name && node.tag_name().namespace().is_none()
}

/// The first child element of this name.
pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| is_named(*child, name))
}

/// The element at a path of names.
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

/// The text of an element without comments, as libvirt reads it, and its place: that of the element
/// if it has no text.
pub(crate) fn text_of(node: Node<'_, '_>) -> (String, Range<usize>) {
    let parts = node.descendants().filter(Node::is_text);
    let text: String = parts.filter_map(|part| part.text()).collect();
    let span = match content(node) {
        Some(content) if !text.trim().is_empty() => trimmed(node.document().input_text(), content),
        _ => start_tag(node),
    };
    (text, span)
}

/// The content between the tags of an element; `None` if it has only one tag.
pub(crate) fn content(node: Node<'_, '_>) -> Option<Range<usize>> {
    // If CDATA splits a text, the parser's range covers only the first part.
    let range = node.range();
    let whole = node.document().input_text().get(range.clone())?;
    node.first_child().and_then(|first| {
        let end = range.start + whole.rfind("</")?;
        Some(first.range().start..end.max(first.range().start))
    })
}

/// The value of an attribute, and its place within the quotes.
pub(crate) fn attribute(node: Node<'_, '_>, name: &str) -> Option<(String, Range<usize>)> {
    let attribute = node.attribute_node(name)?;
    Some((attribute.value().to_owned(), value_range(node, &attribute)))
}

/// The place of an attribute's value. The parser's own range is wrong if there are many spaces around
/// the equals sign.
pub(crate) fn value_range(
    node: Node<'_, '_>,
    attribute: &roxmltree::Attribute<'_, '_>,
) -> Range<usize> {
    let range = attribute.range();
    let raw = node.document().input_text().get(range.clone()).unwrap_or_default();
    let quote = raw.find(['\'', '"']).unwrap_or_default();
    (range.start + quote + 1).min(range.end)..range.end.saturating_sub(1).max(range.start)
}

/// The place of an element's start tag.
pub(crate) fn start_tag(node: Node<'_, '_>) -> Range<usize> {
    let range = node.range();
    let end = node.first_child().map_or(range.end, |child| child.range().start);
    range.start..end
}

/// A range without leading and trailing spaces.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let Some(raw) = text.get(range.clone()) else { return range };
    let start = range.start + (raw.len() - raw.trim_start().len());
    let end = range.end - (raw.len() - raw.trim_end().len());
    start..end.max(start)
}
