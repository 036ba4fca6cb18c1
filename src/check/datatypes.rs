//! The datatypes of XML Schema, as far as libvirt's schema uses them.
//!
//! `relax-ng` compiles the patterns of a whole schema for every document, and again for every value
//! that it checks, which takes most of its time. Patterns are therefore compiled here, once, when
//! the first value needs them; everything else is left to the crate.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;
use relax_ng::{
    Content, DatatypeContext, DatatypeLibrary, DatatypeRegistry, Element, ExpandedName,
    ResolveError, Schema, SchemaResolver, SchemaSource, SchemaSyntax, XSD_DATATYPE_LIBRARY,
};

use crate::domain::element::escape;

/// The type of most values: any text that matches the patterns.
const TEXT: &str = "string";

/// The name of the facets that restrict the form of a value; several of one type are alternatives.
const PATTERN: &str = "pattern";

/// The first invalid pattern.
pub(super) type BadPattern = Arc<Mutex<Option<String>>>;

/// A replacement for the library of `relax-ng`, and the first invalid pattern that it will find.
pub(super) fn registry() -> (DatatypeRegistry, BadPattern) {
    let mut registry = DatatypeRegistry::new();
    let library = Xsd::default();
    let bad_pattern = library.bad_pattern.clone();
    registry.register(XSD_DATATYPE_LIBRARY, library);
    (registry, bad_pattern)
}

#[derive(Default)]
struct Xsd {
    bad_pattern: BadPattern,
    patterns: Mutex<BTreeMap<String, Option<Regex>>>,
    /// Schemas of one value each, by their text; `None` for invalid ones.
    values: Mutex<BTreeMap<String, Option<Schema>>>,
}

impl DatatypeLibrary for Xsd {
    /// Checks everything but the patterns, once for each type with the same facets.
    fn validate_params(&self, kind: &str, params: &[(&str, &str)]) -> Result<(), String> {
        if matches!(kind, "QName" | "NOTATION") {
            return Err("unsupported datatype: its values depend on the schema's prefixes".into());
        }
        let others: Vec<_> = params.iter().copied().filter(|(name, _)| *name != PATTERN).collect();
        if kind == TEXT && others.is_empty() {
            return Ok(());
        }
        self.with_value(&data(kind, &others), |schema| match schema {
            Some(_) => Ok(()),
            None => Err("unknown XML Schema datatype or invalid parameters".into()),
        })
    }

    fn matches(
        &self,
        kind: &str,
        params: &[(&str, &str)],
        value: &str,
        _: &DatatypeContext,
    ) -> bool {
        let (patterns, others): (Vec<_>, Vec<_>) =
            params.iter().partition(|(name, _)| *name == PATTERN);
        // Spaces are significant only in strings.
        let text = if kind == TEXT { value } else { value.trim_ascii() };
        (patterns.is_empty() || patterns.iter().any(|(_, pattern)| self.is_match(pattern, text)))
            && ((kind == TEXT && others.is_empty()) || self.is_value(&data(kind, &others), value))
    }

    fn values_equal(
        &self,
        kind: &str,
        expected: &str,
        _: &DatatypeContext,
        actual: &str,
        _: &DatatypeContext,
    ) -> bool {
        let value = format!("<value type='{}'>{}</value>", escape(kind), escape(expected));
        self.is_value(&value, actual)
    }
}

impl Xsd {
    fn is_match(&self, pattern: &str, text: &str) -> bool {
        let mut patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || {
            let regex = Regex::new(&format!("^(?:{pattern})$")).ok();
            if regex.is_none() {
                let mut bad_pattern =
                    self.bad_pattern.lock().unwrap_or_else(PoisonError::into_inner);
                bad_pattern.get_or_insert_with(|| pattern.to_owned());
            }
            regex
        };
        let regex = patterns.entry(pattern.to_owned()).or_insert_with(compile);
        regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    fn is_value(&self, pattern: &str, value: &str) -> bool {
        self.with_value(pattern, |schema| {
            let none = DatatypeRegistry::new();
            let errors = schema.map(|schema| schema.validate(&none, &LoneValue(value)));
            errors.is_some_and(|errors| errors.is_ok_and(|errors| errors.is_empty()))
        })
    }

    /// Calls a function with the schema of a value.
    fn with_value<T>(&self, pattern: &str, then: impl FnOnce(Option<&Schema>) -> T) -> T {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || {
            let text = format!(
                "<element name='value' xmlns='http://relaxng.org/ns/structure/1.0' \
                 datatypeLibrary='{XSD_DATATYPE_LIBRARY}'>{pattern}</element>"
            );
            let source = SchemaSource::new(text, "", SchemaSyntax::Xml);
            let schema = Schema::compile(&source, &Nowhere).ok()?;
            // An unknown type is reported only when it is used.
            schema.validate(&DatatypeRegistry::new(), &LoneValue("")).ok()?;
            Some(schema)
        };
        then(values.entry(pattern.to_owned()).or_insert_with(compile).as_ref())
    }
}

fn data(kind: &str, params: &[(&str, &str)]) -> String {
    let mut text = format!("<data type='{}'>", escape(kind));
    for (name, value) in params {
        let _ = write!(text, "<param name='{}'>{}</param>", escape(name), escape(value));
    }
    text.push_str("</data>");
    text
}

/// An element with only a value.
struct LoneValue<'a>(&'a str);

impl Element for LoneValue<'_> {
    type Location = ();

    fn name(&self) -> ExpandedName {
        ExpandedName::new(None::<String>, "value")
    }

    fn attributes(&self) -> impl Iterator<Item = (ExpandedName, String)> {
        std::iter::empty()
    }

    fn children(&self) -> impl Iterator<Item = Content<Self>> {
        std::iter::once(Content::Text(self.0.to_owned()))
    }
}

/// Resolves nothing: these schemas have no references.
struct Nowhere;

impl SchemaResolver for Nowhere {
    fn resolve(&self, path: &str, _: &str) -> Result<SchemaSource, ResolveError> {
        Err(ResolveError::new(format!("{path}: unexpected reference")))
    }
}
