//! libvirt's own schema, extended for the Grace guest: RELAX NG, checked in process.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use relax_ng::{
    Content, DatatypeRegistry, Element, ExpandedName, SchemaSource, SchemaSyntax, ValidationError,
    ValidationErrorKind,
};
use roxmltree::{Node, NodeId};

use super::datatypes::{self, BadPattern};
use super::features::{self, FEATURES, Feature};
use super::prune::element_names;
use super::rules::{OBSOLETE, SCHEMA, UNSUPPORTED, UNSUPPORTED_EGM};
use super::schema_files::{Files, Part};
use super::{BadSchema, CheckOptions, Finding, Severity};
use crate::domain::xml::{self, start_tag, text_of, value_range};
use crate::domain::{Dialect, Document};
use crate::values::text::{SHOWN, excerpt};

/// The directory in which libvirt's packages install it.
pub const SCHEMAS: &str = "/usr/share/libvirt/schemas";

/// The extension.
const EGM: (&str, &str) = ("egm-domain.rng", include_str!("../../schema/egm-domain.rng"));

/// The maximum number of findings in one domain.
const FINDINGS_LIMIT: usize = 50;

/// The name of libvirt's library before its version.
const LIBRARY: &str = "libvirt.so.0.";

/// A libvirt schema, ready for use.
pub struct Schema {
    compiled: relax_ng::Schema,
    datatypes: DatatypeRegistry,
    bad_pattern: BadPattern,
    directory: PathBuf,
    /// For each feature, whether libvirt's files define it.
    defined: Vec<bool>,
    version: OnceLock<Option<String>>,
}

impl Schema {
    /// Reads libvirt's schema from its directory.
    ///
    /// # Errors
    /// It is missing or invalid.
    pub fn read(directory: &Path) -> Result<Self, BadSchema> {
        Self::read_part(directory, Part::Meaning)
    }

    /// Reads only the part that these documents need, which is faster; the findings are the same.
    ///
    /// # Errors
    /// As [`Schema::read`].
    pub fn read_for<'a>(
        directory: &Path,
        documents: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BadSchema> {
        let names: Option<Vec<_>> = documents.into_iter().map(element_names).collect();
        let names: Option<BTreeSet<_>> = names.map(|names| names.into_iter().flatten().collect());
        Self::read_part(directory, names.as_ref().map_or(Part::Meaning, Part::For))
    }

    fn read_part(directory: &Path, part: Part<'_>) -> Result<Self, BadSchema> {
        let (name, text) = EGM;
        let compile = |part: Part<'_>| {
            let source = SchemaSource::new(part.of(text.to_owned()), name, SchemaSyntax::Xml);
            let files = Files { directory, part, defined: Mutex::default() };
            let compiled = relax_ng::Schema::compile(&source, &files)?;
            let defined = files.defined.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok::<_, relax_ng::CompileError>((compiled, defined))
        };
        // The error of the unpruned schema has the correct place in the files.
        let (compiled, defined) = compile(part)
            .or_else(|_| compile(Part::All))
            .map_err(|error| BadSchema::new(directory, error.to_string()))?;
        let (datatypes, bad_pattern) = datatypes::registry();
        let directory = directory.to_owned();
        let version = OnceLock::new();
        Ok(Self { compiled, datatypes, bad_pattern, directory, defined, version })
    }

    /// The version of its libvirt, such as `9.0.0`, by the name of libvirt's library below the same
    /// prefix.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.get_or_init(|| version(&self.directory)).as_deref()
    }

    /// The dialect of its libvirt, if that supports EGM.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        let defined = || FEATURES.iter().zip(&self.defined).filter(|(_, is)| **is);
        let mut dialects = defined().filter_map(|(feature, _)| feature.dialect());
        defined().any(|(feature, _)| feature.is_egm()).then(|| dialects.next().unwrap_or_default())
    }

    /// Checks a domain against it.
    ///
    /// # Errors
    /// The schema itself is invalid, which is detected only in use.
    pub fn check(&self, document: &Document<'_>) -> Result<Vec<Finding>, BadSchema> {
        Ok(self.check_parts(document)?.into_iter().map(|it| it.finding).collect())
    }

    /// Adds its findings to those of the rules, except those that a rule reports in a better way.
    pub(super) fn add_to(
        &self,
        findings: &mut Vec<Finding>,
        document: &Document<'_>,
        options: &CheckOptions<'_>,
    ) -> Result<(), BadSchema> {
        let mut more = self.check_parts(document)?;
        more.retain(|InPart { finding, is_surplus, part }| {
            let is_same = |old: &Finding| {
                let is_within = part.start <= old.span.start && old.span.end <= part.end;
                // No rule points at an element that should not be there at all.
                let is_same = old.span == finding.span;
                let is_covered =
                    old.severity == Severity::Error && (is_same || (is_within && !is_surplus));
                is_covered || (is_same && old.rule == OBSOLETE)
            };
            !findings.iter().any(is_same)
        });
        findings.extend(more.into_iter().map(|it| it.finding));
        if !document.domain().is_status {
            self.add_unsupported(findings, document, options);
        }
        Ok(())
    }

    /// The features of the domain that this libvirt does not support.
    fn add_unsupported(
        &self,
        findings: &mut Vec<Finding>,
        document: &Document<'_>,
        options: &CheckOptions<'_>,
    ) {
        let is_unsupported = |feature: &Feature| {
            let is_it = |(known, _): &(&Feature, &bool)| known.name == feature.name;
            FEATURES.iter().zip(&self.defined).find(is_it).is_none_or(|(_, is)| !is)
        };
        let name = self.libvirt();
        for (feature, span) in features::used(document.element()) {
            // Another spelling has a finding of its own, and so has EGM in libvirt as released.
            let is_other = feature.dialect().is_some_and(|dialect| dialect != options.dialect)
                || (feature.is_egm() && !options.dialect.supports_egm());
            if is_other || !is_unsupported(feature) {
                continue;
            }
            let mut finding = if feature.is_egm() && options.is_installed {
                let message = format!("{name} on this host does not support {}", feature.name);
                let mut finding = Finding::new(UNSUPPORTED_EGM, span, message);
                finding.help(
                    "install NVIDIA's libvirt, or select the target libvirt's schema with --schema",
                );
                finding
            } else {
                let message = format!("{name} does not support {}", feature.name);
                Finding::new(UNSUPPORTED, span, message)
            };
            finding.help.get_or_insert_with(|| format!("found by {}", self.source()));
            findings.push(finding);
        }
    }

    /// The name of its libvirt: `libvirt 9.0.0`.
    fn libvirt(&self) -> String {
        self.version().map_or("libvirt".into(), |version| format!("libvirt {version}"))
    }

    /// The schema in help messages: `libvirt 9.0.0's schema in /usr/share/libvirt/schemas`.
    fn source(&self) -> String {
        let directory = excerpt(&self.directory.to_string_lossy(), 200);
        format!("{}'s schema in {directory}; --no-schema skips it", self.libvirt())
    }

    fn check_parts(&self, document: &Document<'_>) -> Result<Vec<InPart>, BadSchema> {
        if document.domain().is_status {
            // libvirt adds elements to status files that its schema lacks, such as <origstates>.
            return Ok(Vec::new());
        }
        let domain = document.element();
        let errors = self.compiled.validate(&self.datatypes, &InSchema(domain));
        let errors = errors.map_err(|error| BadSchema::new(&self.directory, error.to_string()))?;
        let bad_pattern = self.bad_pattern.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pattern) = &*bad_pattern {
            let problem = format!("invalid pattern `{}`", excerpt(pattern, SHOWN));
            return Err(BadSchema::new(&self.directory, problem));
        }
        let others: BTreeSet<_> = errors
            .iter()
            .filter(|error| *error.kind() != ValidationErrorKind::MissingContent)
            .filter_map(|error| Some(error.location()?.get()))
            .collect();
        // An element with another error also lacks content: one finding is enough.
        let is_first = |error: &&ValidationError<NodeId>| {
            *error.kind() != ValidationErrorKind::MissingContent
                || error.location().is_none_or(|node| !others.contains(&node.get()))
        };
        let errors = errors.iter().filter(is_first);
        let found = errors.take(FINDINGS_LIMIT).map(|error| {
            let node = error.location().and_then(|id| document.xml().get_node(*id));
            let node = node.unwrap_or(domain);
            let is_surplus = matches!(
                error.kind(),
                ValidationErrorKind::UnexpectedElement(_)
                    | ValidationErrorKind::UnexpectedAttribute(_)
            );
            let mut finding = report(node, error.kind());
            finding.help(format!("according to {}", self.source()));
            InPart { finding, is_surplus, part: part_of(node) }
        });
        Ok(found.collect())
    }
}

/// The version of the libvirt below `PREFIX`, by the directory `PREFIX/share/libvirt/schemas`:
/// libtool names a library by its major and minor version, and its micro version
/// (`libvirt.so.0.12008.0`, `configure` of libvirt: `LIBVIRT_VERSION_INFO`).
fn version(schemas: &Path) -> Option<String> {
    let is_below = schemas.ends_with("share/libvirt/schemas");
    let lib = schemas.ancestors().nth(3).filter(|_| is_below)?.join("lib");
    let entries = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let multiarch = entries(&lib).into_iter().filter(|name| name.ends_with("-linux-gnu"));
    let mut directories: Vec<_> = multiarch.map(|name| lib.join(name)).collect();
    directories.push(lib.with_file_name("lib64"));
    directories.push(lib);
    let found = |name: String| {
        let (number, micro) = name.strip_prefix(LIBRARY)?.split_once('.')?;
        let (number, micro): (u32, u32) = (number.parse().ok()?, micro.parse().ok()?);
        Some(format!("{}.{}.{micro}", number / 1000, number % 1000))
    };
    directories.iter().find_map(|directory| entries(directory).into_iter().find_map(found))
}

/// A finding of the schema.
struct InPart {
    finding: Finding,
    /// Whether it is about something that must not be there at all.
    is_surplus: bool,
    /// The part of the domain that it belongs to.
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
            (start_tag(node), format!("unexpected element {element}"))
        }
        ValidationErrorKind::UnexpectedText => {
            let (text, span) = match stray_text(node) {
                Some(stray) => (stray.text().unwrap_or_default().to_owned(), stray.range()),
                None => text_of(node),
            };
            let text = excerpt(text.trim(), SHOWN);
            let message = if text.is_empty() {
                format!("{element} has no text")
            } else {
                format!("unexpected text `{text}` in {element}")
            };
            (span, message)
        }
        ValidationErrorKind::UnexpectedAttribute(name) => {
            let message =
                format!("unexpected attribute `{}` of {element}", excerpt(&name.local, SHOWN));
            (attribute(node, name).map_or_else(|| start_tag(node), |it| it.range()), message)
        }
        ValidationErrorKind::InvalidAttributeValue(name, value) => {
            let (name_shown, value) = (excerpt(&name.local, SHOWN), excerpt(value, SHOWN));
            let message = format!("invalid value `{value}` of `{name_shown}` in {element}");
            (
                attribute(node, name).map_or_else(|| start_tag(node), |it| value_range(node, &it)),
                message,
            )
        }
        ValidationErrorKind::MissingContent => {
            (start_tag(node), format!("{element} lacks a required element or attribute"))
        }
    };
    Finding::new(SCHEMA, span, message)
}

/// A text between elements.
fn stray_text<'a, 'input>(node: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
    let has_elements = node.children().any(|child| child.is_element());
    let is_stray = |child: &Node<'_, '_>| {
        child.is_text() && child.text().is_some_and(|text| !text.trim().is_empty())
    };
    node.children().find(is_stray).filter(|_| has_elements)
}

fn attribute<'a, 'input>(
    node: Node<'a, 'input>,
    name: &ExpandedName,
) -> Option<roxmltree::Attribute<'a, 'input>> {
    let namespace = name.namespace.as_deref();
    node.attributes().find(|it| it.name() == name.local && it.namespace() == namespace)
}

/// An element, for the schema.
#[derive(Clone, Copy)]
struct InSchema<'a, 'input>(Node<'a, 'input>);

impl Element for InSchema<'_, '_> {
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
                // A comment does not end a text.
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
    use std::fs;

    use std::collections::BTreeSet;

    use super::{EGM, Schema, version};
    use crate::domain::Document;

    /// A schema in which a domain has only `<memory>`, so that no libvirt needs to be installed.
    fn of_memory() -> Schema {
        let references = EGM.1.split("<ref name=\"").skip(1);
        let names: BTreeSet<_> = references.map(|it| it.split('"').next().unwrap()).collect();
        let define =
            |name| format!("<define name='{name}' combine='choice'><notAllowed/></define>");
        let defined: Vec<_> = names.into_iter().map(define).collect();
        let defined = defined.concat();
        let text = format!(
            "<grammar xmlns='http://relaxng.org/ns/structure/1.0' \
             datatypeLibrary='http://www.w3.org/2001/XMLSchema-datatypes'><start>\
             <element name='domain'><element name='memory'><data type='unsignedInt'/></element>\
             </element></start>{defined}</grammar>"
        );
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("domain.rng"), text).unwrap();
        Schema::read(directory.path()).unwrap()
    }

    #[test]
    fn a_comment_within_a_text_does_not_end_it() {
        let schema = of_memory();
        let check = |memory: &str| {
            let domain = format!("<domain><memory>{memory}</memory></domain>");
            schema.check(&Document::parse(&domain).unwrap()).unwrap()
        };
        assert_eq!(check("8<!-- -->8"), []);
        let findings = check("8<!-- -->x");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].message, "unexpected text `8x` in <memory>");
    }

    #[test]
    fn the_name_of_the_library_has_the_version() {
        for (library, expected) in [
            ("lib/x86_64-linux-gnu/libvirt.so.0.9000.0", Some("9.0.0")),
            ("lib64/libvirt.so.0.12008.1", Some("12.8.1")),
            ("lib/libvirt.so.0.11003.0", Some("11.3.0")),
            ("lib/libvirt-qemu.so.0.11003.0", None),
            ("lib/libvirt.so.0", None),
        ] {
            let prefix = tempfile::tempdir().unwrap();
            let file = prefix.path().join(library);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
            let schemas = prefix.path().join("share/libvirt/schemas");
            assert_eq!(version(&schemas).as_deref(), expected, "{library}");
            assert_eq!(version(&prefix.path().join("a/b/c")), None);
        }
    }
}
