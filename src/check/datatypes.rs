//! The datatypes of XML Schema, as far as libvirt's schema uses them.
//!
//! `relax-ng` compiles the patterns of a whole schema for every document, and once more for every
//! value that it holds against one: that is most of the time that it takes. So patterns are
//! compiled here, when the first value comes, and kept; everything else is left to it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;
use relax_ng::{
    Content, DatatypeContext, DatatypeLibrary, DatatypeRegistry, Element, ExpandedName,
    ResolveError, Schema, SchemaResolver, SchemaSource, SchemaSyntax, XSD_DATATYPE_LIBRARY,
};

use crate::domain::element::escape;

/// The type of most values: any text, as far as patterns allow.
const TEXT: &str = "string";

/// The names of facets that say what a value may look like; several of one type are alternatives.
const PATTERN: &str = "pattern";

/// The first pattern that was found to be none.
pub(super) type BadPattern = Arc<Mutex<Option<String>>>;

/// The library in the place of that of `relax-ng`, and what it will find wrong with the schema.
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
    /// Schemas of one value each, by their text; `None` for those that are none.
    values: Mutex<BTreeMap<String, Option<Schema>>>,
}

impl DatatypeLibrary for Xsd {
    /// Everything but the patterns, each type with the same facets once.
    fn validate_params(&self, kind: &str, params: &[(&str, &str)]) -> Result<(), String> {
        if matches!(kind, "QName" | "NOTATION") {
            return Err("needs the prefixes of the schema, which are not at hand".into());
        }
        let others: Vec<_> = params.iter().copied().filter(|(name, _)| *name != PATTERN).collect();
        if kind == TEXT && others.is_empty() {
            return Ok(());
        }
        self.with_value(&data(kind, &others), |schema| match schema {
            Some(_) => Ok(()),
            None => Err("not a datatype of XML Schema, or not with these parameters".into()),
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
        // Of text alone the blanks count.
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

    /// Does something with the schema of a value.
    fn with_value<T>(&self, pattern: &str, then: impl FnOnce(Option<&Schema>) -> T) -> T {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || {
            let text = format!(
                "<element name='value' xmlns='http://relaxng.org/ns/structure/1.0' \
                 datatypeLibrary='{XSD_DATATYPE_LIBRARY}'>{pattern}</element>"
            );
            let source = SchemaSource::new(text, "", SchemaSyntax::Xml);
            let schema = Schema::compile(&source, &Nowhere).ok()?;
            // Whether there is such a type is told when it is used.
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

/// An element that has a value and nothing else.
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

/// These schemas are in one piece.
struct Nowhere;

impl SchemaResolver for Nowhere {
    fn resolve(&self, path: &str, _: &str) -> Result<SchemaSource, ResolveError> {
        Err(ResolveError::new(format!("{path} is not part of it")))
    }
}
