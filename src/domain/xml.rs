//! XML as far as domains need it: parsing within bounds, and looking at elements as libvirt does.

use std::ops::Range;

use roxmltree::{Document, Node, ParsingOptions};

use super::BadDomain;
use crate::values::text::excerpt;

/// How much of the parser's words is shown.
const PROBLEM_SHOWN: usize = 200;

/// More nodes than this are no domain of libvirt's.
const NODES_LIMIT: u32 = 200_000;

/// More declarations of namespaces than this are no domain's: each counts for all that is within.
const NAMESPACES_LIMIT: usize = 500;

/// Deeper nesting than this libxml2 refuses, with which libvirt reads (`xmlParserMaxDepth`,
/// `parserInternals.h`).
const DEPTH_LIMIT: usize = 256;

/// More attributes than this are no element of libvirt's, and take the parser very long.
const ATTRIBUTES_LIMIT: usize = 100;

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, BadDomain> {
    if let Some(offset) = too_many_attributes(text) {
        let problem = format!("an element with more than {ATTRIBUTES_LIMIT} attributes");
        return Err(BadDomain::at(text, offset, &problem));
    }
    if let Some((offset, _)) = text.match_indices("xmlns").nth(NAMESPACES_LIMIT) {
        let problem = format!("more than {NAMESPACES_LIMIT} namespaces, which no domain has");
        return Err(BadDomain::at(text, offset, &problem));
    }
    // No DTD: entities can be made to grow without bound.
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: NODES_LIMIT, ..Default::default() };
    let document =
        Document::parse_with_options(text, options).map_err(|error| not_xml(&error, text))?;
    // An element's ancestors are the element itself and the document, too.
    let is_too_deep =
        |node: &Node<'_, '_>| node.is_element() && node.ancestors().nth(DEPTH_LIMIT + 1).is_some();
    if let Some(node) = document.descendants().find(is_too_deep) {
        let problem = format!("elements more than {DEPTH_LIMIT} deep, which libvirt does not read");
        return Err(BadDomain::at(text, node.range().start, &problem));
    }
    Ok(document)
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
    if matches!(error, roxmltree::Error::NodesLimitReached) {
        let problem = format!("more than {NODES_LIMIT} elements and texts, which no domain has");
        return BadDomain::at(text, 0, &problem);
    }
    // What is cut off there, the parser takes for something that it does not know.
    let open = text.rfind('<').filter(|at| text.get(*at..).is_some_and(|tag| !tag.contains('>')));
    let is_at_end = matches!(error, NoRootNode | UnclosedRootNode | UnexpectedEndOfStream);
    let place = (error.pos().row, error.pos().col);
    if open.is_some_and(|at| is_at_end || line_and_column(text, at) <= place) {
        return BadDomain::at(text, text.len(), "it ends within a tag");
    }
    if text.trim_ascii().is_empty() {
        return BadDomain::at(text, 0, "it is empty");
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

/// Those of several places, which are in order: the text is gone through once.
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

/// Where an element begins that has too many attributes: each has an equals sign outside of
/// quotes, between the brackets of its tag.
fn too_many_attributes(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('<')) {
        let tag = at + found;
        let rest = text.get(tag..).unwrap_or_default();
        // What is no element may have anything in it.
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
    let parts = node.descendants().filter(Node::is_text);
    let text: String = parts.filter_map(|part| part.text()).collect();
    let span = match content(node) {
        Some(content) if !text.trim().is_empty() => trimmed(node.document().input_text(), content),
        _ => start_tag(node),
    };
    (text, span)
}

/// What stands between the tags of an element; `None` where it has but one.
pub(crate) fn content(node: Node<'_, '_>) -> Option<Range<usize>> {
    // The parser's range of a text that CDATA parts is that of its first part.
    let range = node.range();
    let whole = node.document().input_text().get(range.clone())?;
    node.first_child().and_then(|first| {
        let end = range.start + whole.rfind("</")?;
        Some(first.range().start..end.max(first.range().start))
    })
}

/// The value of an attribute, and where it stands within its quotes.
pub(crate) fn attribute(node: Node<'_, '_>, name: &str) -> Option<(String, Range<usize>)> {
    let attribute = node.attribute_node(name)?;
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
