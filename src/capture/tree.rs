//! The files of a capture, and their archive, which has the same bytes for the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use serde::Serialize;
use tar::{Builder, EntryType, Header};

use crate::sysroot::manifest::NAME;
use crate::sysroot::{Acl, Stat};
use crate::values::DeviceNumber;

/// Files by their path from the root.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<PathBuf, File>);

#[derive(Debug)]
struct File {
    content: Content,
    mode: u32,
    uid: u32,
    gid: u32,
    /// The text form of an ACL.
    acl: Option<String>,
}

#[derive(Debug)]
pub(super) enum Content {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
    CharDevice(DeviceNumber),
    /// Or any other type.
    Fifo,
}

impl Tree {
    /// Adds a file with default mode and owner, or replaces the content of an existing one.
    pub(super) fn put(&mut self, path: &Path, content: Content) {
        if let Some(file) = self.0.get_mut(path) {
            file.content = content;
            return;
        }
        let mode = match content {
            Content::Directory => 0o755,
            Content::Link(_) => 0o777,
            Content::File(_) | Content::CharDevice(_) | Content::Fifo => 0o444,
        };
        self.0.insert(path.to_owned(), File { content, mode, uid: 0, gid: 0, acl: None });
    }

    /// Adds a file with its mode and owner.
    pub(super) fn put_as(&mut self, path: &Path, content: Content, stat: &Stat) {
        let Stat { mode, uid, gid, .. } = *stat;
        self.0.insert(path.to_owned(), File { content, mode, uid, gid, acl: None });
    }

    /// Adds the ACL of a file that is included.
    pub(super) fn set_acl(&mut self, path: &Path, acl: &Acl) {
        if let Some(file) = self.0.get_mut(path) {
            file.acl = Some(acl.to_string());
        }
    }

    /// The names in all directories, including those without an entry of their own.
    pub(super) fn children(&self) -> BTreeMap<&Path, BTreeSet<String>> {
        let mut children: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
        for path in self.0.keys() {
            for path in path.ancestors() {
                if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                    let name = name.to_string_lossy().into_owned();
                    children.entry(parent).or_default().insert(name);
                }
            }
        }
        children
    }

    /// Whether there is a file at a path or below it.
    pub(super) fn has_below(&self, path: &Path) -> bool {
        self.0.range(path.to_owned()..).next().is_some_and(|(next, _)| next.starts_with(path))
    }

    /// The immediate subdirectories of a directory.
    pub(super) fn below(&self, directory: &Path) -> BTreeSet<PathBuf> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(directory).ok());
        let first = |path: &Path| path.components().next().map(|first| directory.join(first));
        below.filter_map(first).collect()
    }

    /// The archive with its `capture.json`, uncompressed.
    pub(super) fn tar(&self, about: &impl Serialize) -> io::Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        // First, so that it is easy to find in the archive.
        let mut text = serde_json::to_vec_pretty(about)?;
        text.push(b'\n');
        let about = File { content: Content::File(text), mode: 0o444, uid: 0, gid: 0, acl: None };
        append(&mut builder, Path::new(NAME), &about)?;
        for (path, file) in &self.0 {
            append(&mut builder, path.strip_prefix("/").unwrap_or(path), file)?;
        }
        builder.into_inner()
    }
}

fn append(builder: &mut Builder<Vec<u8>>, path: &Path, file: &File) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    if let Some(acl) = &file.acl {
        builder.append_pax_extensions([("SCHILY.acl.access", acl.as_bytes())])?;
    }
    let mut header = Header::new_gnu();
    header.set_mode(file.mode);
    header.set_uid(file.uid.into());
    header.set_gid(file.gid.into());
    header.set_mtime(0);
    header.set_size(0);
    let kind = match &file.content {
        Content::File(bytes) => {
            header.set_size(bytes.len() as u64);
            header.set_entry_type(EntryType::Regular);
            return builder.append_data(&mut header, path, bytes.as_slice());
        }
        Content::Link(target) => {
            // Not with append_link, which changes `.//x` to `./x`: link targets appear in the
            // output.
            let target = target.as_os_str().as_bytes();
            let room = header.as_old().linkname.len();
            if target.len() > room {
                append_long_target(builder, target)?;
            }
            header.set_link_name_literal(target.get(..room).unwrap_or(target))?;
            EntryType::Symlink
        }
        Content::CharDevice(number) => {
            header.set_device_major(number.major)?;
            header.set_device_minor(number.minor)?;
            EntryType::Char
        }
        Content::Directory => EntryType::Directory,
        Content::Fifo => EntryType::Fifo,
    };
    header.set_entry_type(kind);
    builder.append_data(&mut header, path, io::empty())
}

/// Adds a target that is too long for the header of its link, as in GNU tar: directly before the
/// link.
fn append_long_target(builder: &mut Builder<Vec<u8>>, target: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongLink);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    // Including the terminating NUL.
    header.set_size(target.len() as u64 + 1);
    builder.append_data(&mut header, "@LongLink", target.chain(&[0_u8][..]))
}

/// Compresses without a time or name in the header.
pub(super) fn compressed(tar: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(tar)?;
    encoder.finish()
}
