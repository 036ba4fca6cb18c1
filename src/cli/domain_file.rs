//! Domain XML from a file or standard input.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::Error;
use super::is_dash;
use crate::domain::element::escape;
use crate::domain::{BadDomain, Document, Encoding, SourceText};
use crate::files::user_file::{self, Edit, FileError};
use crate::values::text::printable;

/// libvirt accepts no larger definition (`REMOTE_STRING_MAX`, `src/remote/remote_protocol.x`).
const LIMIT: usize = 4 << 20;

/// Maximum time to wait for other runs that edit a file. Each needs a few milliseconds.
const WAIT: Duration = Duration::from_secs(10);

/// The name of a file in messages.
pub(super) fn name_of(path: &Path) -> String {
    if is_dash(path) { "standard input".into() } else { printable(&path.to_string_lossy()) }
}

/// A file that was read.
pub(super) struct DomainFile {
    pub(super) name: String,
    pub(super) source: SourceText,
    /// The edit of a file that is changed in place.
    pub(super) edit: Option<Edit>,
}

impl DomainFile {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = if is_dash(path) {
            user_file::read_all(io::stdin().lock(), LIMIT).map_err(Error::Stdin)?
        } else {
            user_file::read(path, LIMIT).map_err(|problem| unread(path, problem))?
        };
        Self::of(path, &bytes)
    }

    /// Reads a domain to be changed, which must be UTF-8: libvirt does not read UTF-16. A file that
    /// is changed in place is locked.
    pub(super) fn read_utf8(path: &Path, in_place: bool) -> Result<Self, Error> {
        let file = if in_place {
            let edit = Edit::begin(path, LIMIT, WAIT);
            let edit = edit.map_err(|problem| unread(path, problem))?;
            let file = Self::of(path, &edit.bytes)?;
            Self { edit: Some(edit), ..file }
        } else {
            Self::read(path)?
        };
        if file.source.encoding() == Encoding::Utf8 {
            return Ok(file);
        }
        let problem = "unsupported encoding UTF-16 (convert it: iconv -f UTF-16 -t UTF-8)";
        Err(bad_file(&file.name, BadDomain { line: 1, column: 1, problem: problem.into() }))
    }

    fn of(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let name = name_of(path);
        let source = SourceText::decode(bytes).map_err(|error| bad_file(&name, error))?;
        Ok(Self { name, source, edit: None })
    }

    /// A new domain, which has only a name.
    pub(super) fn new_domain(name: &str) -> Result<Self, Error> {
        let text = format!("<domain type='kvm'>\n  <name>{}</name>\n</domain>\n", escape(name));
        let name = "new domain".to_owned();
        let source = SourceText::decode(text.as_bytes()).map_err(|error| bad_file(&name, error))?;
        Ok(Self { name, source, edit: None })
    }

    pub(super) fn document(&self) -> Result<Document<'_>, Error> {
        Document::of(&self.source).map_err(|error| bad_file(&self.name, error))
    }
}

/// A missing file that may be the name of a domain.
fn unread(path: &Path, problem: FileError) -> Error {
    let is_file_name = path.components().count() > 1 || path.extension() == Some("xml".as_ref());
    if is_file_name || !problem.is_absent() {
        return problem.into();
    }
    Error::NoDomainFile { problem, domain: path.to_string_lossy().into_owned() }
}

fn bad_file(name: &str, error: BadDomain) -> Error {
    Error::BadFile { name: name.to_owned(), problem: error }
}
