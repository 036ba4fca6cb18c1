//! The files of a libvirt schema.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use relax_ng::{ResolveError, SchemaResolver, SchemaSource, SchemaSyntax};

use super::features::FEATURES;
use super::prune::pruned;
use crate::files::user_file;

/// No file of libvirt's schema is larger.
const FILE_LIMIT: usize = 8 << 20;

/// The files of a schema: the extension, and those of one directory.
pub(super) struct Files<'a> {
    pub(super) directory: &'a Path,
    /// The part of them that is needed.
    pub(super) part: Part<'a>,
    /// For each feature, whether a file read so far defines it.
    pub(super) defined: Mutex<Vec<bool>>,
}

/// The part of a schema that is needed.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// The definitions of these elements.
    For(&'a BTreeSet<&'a str>),
    /// Everything except comments and spaces.
    Meaning,
    /// Every character, so that places are those of the files.
    All,
}

impl Part<'_> {
    /// This part of a file.
    pub(super) fn of(self, text: String) -> String {
        let part = match self {
            Part::For(names) => pruned(&text, Some(names)),
            Part::Meaning => pruned(&text, None),
            Part::All => None,
        };
        part.unwrap_or(text)
    }
}

impl SchemaResolver for Files<'_> {
    fn resolve(&self, href: &str, _: &str) -> Result<SchemaSource, ResolveError> {
        // By file name only: the extension refers to libvirt's file by its usual path, and
        // libvirt's files refer to each other.
        let name = href.rsplit('/').next().unwrap_or_default();
        if Path::new(name).extension().is_none_or(|extension| extension != "rng") {
            return Err(ResolveError::new(format!("{href} is not a schema file")));
        }
        let text = user_file::read(&self.directory.join(name), FILE_LIMIT)
            .map_err(|error| ResolveError::new(error.to_string()))?;
        let mut defined = self.defined.lock().unwrap_or_else(PoisonError::into_inner);
        defined.resize(FEATURES.len(), false);
        for (is_defined, feature) in defined.iter_mut().zip(FEATURES) {
            *is_defined = *is_defined || feature.is_defined_in(&text);
        }
        let text = String::from_utf8(text)
            .map_err(|_| ResolveError::new(format!("{name} is not UTF-8")))?;
        Ok(SchemaSource::new(self.part.of(text), name, SchemaSyntax::Xml))
    }
}
