//! libvirt's own grammar, with EGM on top of it: RELAX NG, checked in process.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use relax_ng::{
    Content, DatatypeRegistry, Element, ExpandedName, ResolveError, Schema, SchemaResolver,
    SchemaSource, SchemaSyntax, ValidationError, ValidationErrorKind,
};
use roxmltree::{Node, NodeId};

use super::datatypes::{self, BadPattern};
use super::prune::{element_names, pruned};
use super::rules::{GRAMMAR, OBSOLETE};
use super::{Finding, Severity};
use crate::domain::BadDomain;
use crate::domain::xml::{self, start_tag, text_of, value_range};
use crate::text::{SHOWN, excerpt};

/// Where libvirt's packages put it.
pub const SCHEMAS: &str = "/usr/share/libvirt/schemas";

/// Ours: all that NVIDIA's libvirt takes.
const EGM: [(&str, &str); 2] = [
    ("egm-domain-nvidia.rng", include_str!("../../schema/egm-domain-nvidia.rng")),
    ("egm-domain.rng", include_str!("../../schema/egm-domain.rng")),
];

/// No file of libvirt's grammar is larger.
const FILE_LIMIT: usize = 8 << 20;

/// More findings of one domain tell nobody anything.
const FINDINGS_LIMIT: usize = 50;

/// A grammar, ready to be used.
pub struct Grammar {
    schema: Schema,
    datatypes: DatatypeRegistry,
    bad_pattern: BadPattern,
    directory: PathBuf,
}

/// A grammar that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: libvirt's grammar cannot be used: {problem}",
    excerpt(&directory.to_string_lossy(), 300)
)]
#[non_exhaustive]
pub struct BadGrammar {
    /// Where it was looked for.
    pub directory: PathBuf,
    /// What is wrong.
    pub problem: String,
}

fn bad(directory: &Path, problem: String) -> BadGrammar {
    BadGrammar { directory: directory.to_owned(), problem }
}

impl Grammar {
    /// Reads libvirt's grammar from its directory.
    ///
    /// # Errors
    /// It is not there, or is no grammar. One of datatypes that are not known here is told by
    /// [`Grammar::try_out`].
    pub fn read(directory: &Path) -> Result<Self, BadGrammar> {
        Self::read_part(directory, Part::Meaning)
    }

    /// Reads what these documents need of it, which is fast, and finds the same in them.
    ///
    /// # Errors
    /// As [`Grammar::read`].
    pub fn read_for<'a>(
        directory: &Path,
        documents: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BadGrammar> {
        let names: Option<Vec<_>> = documents.into_iter().map(element_names).collect();
        let names: Option<BTreeSet<_>> = names.map(|names| names.into_iter().flatten().collect());
        Self::read_part(directory, names.as_ref().map_or(Part::Meaning, Part::For))
    }

    fn read_part(directory: &Path, part: Part<'_>) -> Result<Self, BadGrammar> {
        let [(name, text), _] = EGM;
        let source = SchemaSource::new(text, name, SchemaSyntax::Xml);
        let compile = |part| Schema::compile(&source, &Files { directory, part });
        // What is wrong with it is told by its places in the files.
        let schema = compile(part).or_else(|_| compile(Part::All));
        let schema = schema.map_err(|error| bad(directory, error.to_string()))?;
        let (datatypes, bad_pattern) = datatypes::registry();
        Ok(Self { schema, datatypes, bad_pattern, directory: directory.to_owned() })
    }

    /// Whether it can be used at all: where a domain could not be held against it, this tells
    /// which of the two it is.
    ///
    /// # Errors
    /// It cannot, whatever the domain.
    pub fn try_out(&self) -> Result<(), BadGrammar> {
        self.check("<domain/>").map_err(|error| bad(&self.directory, error.to_string()))?;
        Ok(())
    }

    /// Holds the text of a domain against it.
    ///
    /// # Errors
    /// It is no domain.
    pub fn check(&self, text: &str) -> Result<Vec<Finding>, BadDomain> {
        Ok(self.check_parts(text)?.into_iter().map(|told| told.finding).collect())
    }

    /// The same beside what was found by rules: what a rule says of a part, it says better.
    ///
    /// # Errors
    /// It is no domain.
    pub fn add_to(&self, findings: &mut Vec<Finding>, text: &str) -> Result<(), BadDomain> {
        let mut more = self.check_parts(text)?;
        more.retain(|Told { finding, is_too_much, part }| {
            let is_told = |old: &Finding| {
                let is_within = part.start <= old.span.start && old.span.end <= part.end;
                // What should not be there at all no rule points at.
                let is_same = old.span == finding.span;
                let is_said =
                    old.severity == Severity::Error && (is_same || (is_within && !is_too_much));
                is_said || (is_same && old.rule == OBSOLETE)
            };
            !findings.iter().any(is_told)
        });
        findings.extend(more.into_iter().map(|told| told.finding));
        findings.sort_by_key(|finding| (finding.span.start, finding.rule.code));
        Ok(())
    }

    fn check_parts(&self, text: &str) -> Result<Vec<Told>, BadDomain> {
        let document = xml::parse(text)?;
        let (domain, is_status) = xml::domain_of(&document)?;
        if is_status {
            // There libvirt writes what its grammar does not have, such as <origstates>.
            return Ok(Vec::new());
        }
        let errors = self.schema.validate(&self.datatypes, &InGrammar(domain));
        let errors = errors.map_err(|error| BadDomain::at(text, 0, &error.to_string()))?;
        let bad_pattern = self.bad_pattern.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pattern) = &*bad_pattern {
            let problem = format!("libvirt's grammar has a bad pattern, `{pattern}`");
            return Err(BadDomain::at(text, 0, &excerpt(&problem, SHOWN)));
        }
        let others: BTreeSet<_> = errors
            .iter()
            .filter(|error| *error.kind() != ValidationErrorKind::MissingContent)
            .filter_map(|error| Some(error.location()?.get()))
            .collect();
        // What is wrong in an element is missing there, too: once is enough.
        let is_first = |error: &&ValidationError<NodeId>| {
            *error.kind() != ValidationErrorKind::MissingContent
                || error.location().is_none_or(|node| !others.contains(&node.get()))
        };
        let errors = errors.iter().filter(is_first);
        let found = errors.take(FINDINGS_LIMIT).map(|error| {
            let node = error.location().and_then(|id| document.get_node(*id)).unwrap_or(domain);
            let is_too_much = matches!(
                error.kind(),
                ValidationErrorKind::UnexpectedElement(_)
                    | ValidationErrorKind::UnexpectedAttribute(_)
            );
            Told { finding: report(node, error.kind()), is_too_much, part: part_of(node) }
        });
        Ok(found.collect())
    }
}

/// What the grammar tells.
struct Told {
    finding: Finding,
    /// Of something that should not be there at all.
    is_too_much: bool,
    /// The part of the domain that it is about.
    part: Range<usize>,
}

/// The part of a domain that an element belongs to: a device, a cell, or a child of `<domain>`.
fn part_of(node: Node<'_, '_>) -> Range<usize> {
    let is_whole = |parent: Node<'_, '_>| {
        ["devices", "numa", "domain"].iter().any(|name| xml::is_named(parent, name))
    };
    let part = node.ancestors().find(|node| node.parent_element().is_none_or(is_whole));
    part.unwrap_or(node).range()
}

fn report(node: Node<'_, '_>, kind: &ValidationErrorKind) -> Finding {
    let element = format!("<{}>", excerpt(node.tag_name().name(), SHOWN));
    let (span, message) = match kind {
        ValidationErrorKind::UnexpectedElement(_) => {
            (start_tag(node), format!("{element} is not expected here"))
        }
        ValidationErrorKind::UnexpectedText => {
            let (text, span) = match stray_text(node) {
                Some(stray) => (stray.text().unwrap_or_default().to_owned(), stray.range()),
                None => text_of(node),
            };
            let text = excerpt(text.trim(), SHOWN);
            let message = if text.is_empty() {
                format!("{element} lacks a text")
            } else {
                format!("`{text}` is not expected in {element}")
            };
            (span, message)
        }
        ValidationErrorKind::UnexpectedAttribute(name) => {
            let message = format!("{element} has no attribute `{}`", excerpt(&name.local, SHOWN));
            (attribute(node, name).unwrap_or_else(|| start_tag(node)), message)
        }
        ValidationErrorKind::InvalidAttributeValue(name, value) => {
            let (name_shown, value) = (excerpt(&name.local, SHOWN), excerpt(value, SHOWN));
            let message = format!("`{value}` is no value of `{name_shown}` in {element}");
            (value_of(node, name).unwrap_or_else(|| start_tag(node)), message)
        }
        ValidationErrorKind::MissingContent => {
            (start_tag(node), format!("{element} lacks an element or an attribute"))
        }
    };
    Finding::new(GRAMMAR, span, message)
}

/// A text that stands among elements.
fn stray_text<'a, 'input>(node: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
    let has_elements = node.children().any(|child| child.is_element());
    let is_stray = |child: &Node<'_, '_>| {
        child.is_text() && child.text().is_some_and(|text| !text.trim().is_empty())
    };
    node.children().find(is_stray).filter(|_| has_elements)
}

fn attribute(node: Node<'_, '_>, name: &ExpandedName) -> Option<Range<usize>> {
    node.attributes().find(|attribute| is_named(attribute, name)).map(|attribute| attribute.range())
}

fn value_of(node: Node<'_, '_>, name: &ExpandedName) -> Option<Range<usize>> {
    let mut attributes = node.attributes();
    attributes.find(|attribute| is_named(attribute, name)).map(|it| value_range(node, &it))
}

fn is_named(attribute: &roxmltree::Attribute<'_, '_>, name: &ExpandedName) -> bool {
    attribute.name() == name.local && attribute.namespace() == name.namespace.as_deref()
}

/// The files of a grammar: ours, and those of one directory.
struct Files<'a> {
    directory: &'a Path,
    /// What is needed of it.
    part: Part<'a>,
}

/// What is needed of a grammar.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// What these elements need.
    For(&'a BTreeSet<&'a str>),
    /// What means something.
    Meaning,
    /// Every letter, so that places are those of the files.
    All,
}

impl SchemaResolver for Files<'_> {
    fn resolve(&self, href: &str, _: &str) -> Result<SchemaSource, ResolveError> {
        // By the last part alone: ours names libvirt's by its usual path, libvirt's name each
        // other.
        let name = href.rsplit('/').next().unwrap_or_default();
        if let Some((name, text)) = EGM.iter().find(|(own, _)| *own == name) {
            return Ok(SchemaSource::new(*text, *name, SchemaSyntax::Xml));
        }
        if Path::new(name).extension().is_none_or(|extension| extension != "rng") {
            return Err(ResolveError::new(format!("{href} is no file of a grammar")));
        }
        let text = crate::user_file::read(&self.directory.join(name), FILE_LIMIT)
            .map_err(|error| ResolveError::new(error.to_string()))?;
        let text = String::from_utf8(text.bytes)
            .map_err(|_| ResolveError::new(format!("{name} is not UTF-8")))?;
        let part = match self.part {
            Part::For(names) => pruned(&text, Some(names)),
            Part::Meaning => pruned(&text, None),
            Part::All => None,
        };
        let text = part.unwrap_or(text);
        Ok(SchemaSource::new(text, name, SchemaSyntax::Xml))
    }
}

/// An element as the grammar sees it.
#[derive(Clone, Copy)]
struct InGrammar<'a, 'input>(Node<'a, 'input>);

impl Element for InGrammar<'_, '_> {
    type Location = NodeId;

    fn name(&self) -> ExpandedName {
        let name = self.0.tag_name();
        ExpandedName::new(name.namespace(), name.name())
    }

    fn attributes(&self) -> impl Iterator<Item = (ExpandedName, String)> {
        self.0.attributes().map(|attribute| {
            let name = ExpandedName::new(attribute.namespace(), attribute.name());
            (name, attribute.value().to_owned())
        })
    }

    fn children(&self) -> impl Iterator<Item = Content<Self>> {
        let mut content: Vec<Content<Self>> = Vec::new();
        for child in self.0.children() {
            if child.is_element() {
                content.push(Content::Element(Self(child)));
            } else if let Some(text) = child.text().filter(|_| child.is_text()) {
                // What a comment has parted is one text.
                match content.last_mut() {
                    Some(Content::Text(before)) => before.push_str(text),
                    _ => content.push(Content::Text(text.to_owned())),
                }
            }
        }
        content.into_iter()
    }

    fn location(&self) -> Option<NodeId> {
        Some(self.0.id())
    }
}

#[cfg(test)]
mod tests {
    use super::{Grammar, SCHEMAS};

    #[test]
    fn a_text_that_a_comment_parts_is_one() {
        // Where libvirt is not installed there is nothing to test.
        let Ok(grammar) = Grammar::read(SCHEMAS.as_ref()) else { return };
        let domain = |memory: &str| {
            format!(
                "<domain type='kvm'><name>x</name><memory>{memory}</memory>\
                 <os><type>hvm</type></os></domain>"
            )
        };
        assert_eq!(grammar.check(&domain("8<!-- -->8")).unwrap(), []);
        let findings = grammar.check(&domain("8<!-- -->x")).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].message, "`8x` is not expected in <memory>");
    }
}
