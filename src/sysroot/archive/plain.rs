//! A capture as a directory of plain files, for version control and for review.
//!
//! Version control keeps files and symbolic links, but no device nodes, owners, modes or empty
//! directories. These are listed in the file `nodes` at the top of the directory:
//!
//! ```text
//! # path      type   number  mode  uid  gid  ACL
//! /dev/egm4   char   510:4   0660  0    36
//! /dev/egm5   char   510:5   0660  0    0    user:64055:rw-,mask::rw-
//! /proc/7/fd  dir
//! ```
//!
//! The types are `char`, `block`, `fifo`, `dir`, `file` (a plain file's mode and owner) and
//! `absent`; an ACL lists the entries that the mode does not show. Fields at the end may be left out. White space in a path is written as in
//! `/proc/mounts` (`\040`). A line `base PATH`, relative to the directory, names another such
//! directory, or a capture file, that this one differs from: its files are read first, and those
//! of this directory replace them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::read::names_within;
use super::{Archive, Content, Inode, ROOT};
use crate::sysroot::error::OpenError;
use crate::sysroot::{FileKind, LIST_LIMIT, Stat, directory as files, manifest, open_named};
use crate::values::DeviceNumber;
use crate::values::text::{excerpt, shown};

/// The file with what version control does not keep.
const NODES: &str = "nodes";

/// The longest chain of directories that differ from one another.
const BASES_LIMIT: usize = 8;

/// Whether a directory is a capture, as opposed to the root of a host.
pub(in crate::sysroot) fn is_capture(directory: &Path) -> bool {
    [NODES, manifest::NAME].iter().any(|name| directory.join(name).is_file())
}

/// A line of `nodes` about one path.
struct Node {
    path: PathBuf,
    kind: Kind,
    mode: Option<u32>,
    uid: u32,
    gid: u32,
    acl: Option<String>,
}

enum Kind {
    Char(DeviceNumber),
    Other,
    Directory,
    File,
    Absent,
}

impl Archive {
    pub(in crate::sysroot) fn read_directory(directory: &Path) -> Result<Self, OpenError> {
        let mut archive = Self::empty();
        archive.add_directory(directory, BASES_LIMIT)?;
        archive.finish().map_err(|problem| bad(directory, problem))
    }

    fn add_directory(&mut self, directory: &Path, bases: usize) -> Result<(), OpenError> {
        let file = directory.join(NODES);
        let mut text = Vec::new();
        match files::read(&file, true, LIST_LIMIT, &mut text) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(unreadable(&file, cause));
            }
            _ => {}
        }
        let text = String::from_utf8(text).map_err(|_| bad(&file, "is not UTF-8".into()))?;
        let mut nodes = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            let at_line = |problem| bad(&file, format!("line {}: {problem}", index + 1));
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(base) = line.strip_prefix("base ") {
                let base = directory.join(base.trim());
                let bases = bases.checked_sub(1).ok_or_else(|| {
                    at_line(format!("more than {BASES_LIMIT} bases one upon the other"))
                })?;
                self.add_base(&base, bases)?;
            } else {
                nodes.push((index, parse(line).map_err(at_line)?));
            }
        }
        self.add_files(directory)?;
        for (index, node) in nodes {
            let at_line = |problem| bad(&file, format!("line {}: {problem}", index + 1));
            self.apply(node).map_err(at_line)?;
        }
        Ok(())
    }

    fn add_base(&mut self, base: &Path, bases: usize) -> Result<(), OpenError> {
        if is_capture(base) {
            return self.add_directory(base, bases);
        }
        let file = open_named(base).map_err(|cause| unreadable(base, cause))?;
        self.add_tar(file).map_err(|problem| bad(base, problem))
    }

    /// The plain files: those in the host's directories, and the capture's own notes.
    fn add_files(&mut self, directory: &Path) -> Result<(), OpenError> {
        let mut todo = vec![PathBuf::new()];
        while let Some(place) = todo.pop() {
            let at = directory.join(&place);
            for entry in fs::read_dir(&at).map_err(|cause| unreadable(&at, cause))? {
                let entry = entry.map_err(|cause| unreadable(&at, cause))?;
                let (path, place) = (entry.path(), place.join(entry.file_name()));
                let kind = entry.file_type().map_err(|cause| unreadable(&path, cause))?;
                if at == directory && !kind.is_dir() && place != Path::new(manifest::NAME) {
                    continue;
                }
                let node = self.plain(&path, kind)?;
                names_within(&place)
                    .and_then(|names| self.insert(&names, node))
                    .map_err(|problem| bad(&path, problem))?;
                if kind.is_dir() {
                    todo.push(place);
                }
            }
        }
        Ok(())
    }

    /// Reads one path of the directory. The modes and owners of files and directories are those
    /// of the checkout, not the host's.
    fn plain(&mut self, path: &Path, kind: fs::FileType) -> Result<Inode, OpenError> {
        let problem = |cause| unreadable(path, cause);
        let (content, mode) = if kind.is_dir() {
            (Content::Directory(BTreeMap::new()), 0o755)
        } else if kind.is_symlink() {
            (Content::Link(fs::read_link(path).map_err(problem)?), 0o777)
        } else if kind.is_file() {
            let file = files::open_file(path, false).map_err(problem)?;
            (Content::File(self.contents(file).map_err(|problem| bad(path, problem))?), 0o444)
        } else {
            let Stat { kind, mode, uid, gid, .. } = files::stat(path).map_err(problem)?;
            let content = match kind {
                FileKind::CharDevice(number) => Content::CharDevice(number),
                _ => Content::Other,
            };
            return Ok(Inode { content, mode, uid, gid, acl: None });
        };
        Ok(Inode { content, mode, uid: 0, gid: 0, acl: None })
    }

    fn apply(&mut self, node: Node) -> Result<(), String> {
        let Node { path, kind, mode, uid, gid, acl } = node;
        let names = names_within(&path)?;
        let (content, usual) = match kind {
            Kind::Absent => return self.remove(&names),
            Kind::File => {
                let found = names.iter().try_fold(ROOT, |at, name| self.child(at, name));
                let file = found.and_then(|found| self.nodes.get_mut(found));
                let file = file.ok_or_else(|| not_there(&path))?;
                (file.mode, file.uid, file.gid) = (mode.unwrap_or(file.mode), uid, gid);
                return file.set_acl(acl.as_deref());
            }
            Kind::Directory => (Content::Directory(BTreeMap::new()), 0o755),
            Kind::Char(number) => (Content::CharDevice(number), 0o600),
            Kind::Other => (Content::Other, 0o600),
        };
        let mut inode = Inode { content, mode: mode.unwrap_or(usual), uid, gid, acl: None };
        inode.set_acl(acl.as_deref())?;
        self.insert(&names, inode)
    }

    fn remove(&mut self, names: &[&OsStr]) -> Result<(), String> {
        let path: PathBuf = names.iter().collect();
        let Some((last, parents)) = names.split_last() else { return Err(not_there(&path)) };
        let parent = parents.iter().try_fold(ROOT, |at, name| self.child(at, name));
        match parent.and_then(|parent| self.nodes.get_mut(parent)).map(|node| &mut node.content) {
            Some(Content::Directory(children)) => {
                children.remove(*last).map(|_| ()).ok_or_else(|| not_there(&path))
            }
            _ => Err(not_there(&path)),
        }
    }
}

fn parse(line: &str) -> Result<Node, String> {
    let mut fields = line.split_whitespace().map(|field| Some(field).filter(|field| *field != "-"));
    let mut next = || fields.next().flatten();
    let path = next().filter(|path| path.starts_with('/'));
    let path = path.ok_or("neither `base PATH` nor a path that begins with /")?;
    let kind = next().ok_or("no type after the path")?;
    let number = next();
    let mode = next();
    let mode = mode.map(|mode| {
        u32::from_str_radix(mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("{} is not an octal mode", excerpt(mode, 20)))
    });
    let mut id = || match next() {
        None => Ok(0),
        Some(id) => id.parse().map_err(|_| format!("{} is not a numeric id", excerpt(id, 20))),
    };
    let (mode, uid, gid) = (mode.transpose()?, id()?, id()?);
    let acl = fields.next().flatten().map(str::to_owned);
    if fields.next().is_some() {
        return Err("more than path, type, number, mode, uid, gid and ACL".into());
    }
    let kind = match (kind, number) {
        ("char", Some(number)) => Kind::Char(
            number.parse().map_err(|_| format!("{} is not major:minor", excerpt(number, 40)))?,
        ),
        ("char", None) => return Err("a character device without its number".into()),
        ("block" | "fifo", _) => Kind::Other,
        ("dir", _) => Kind::Directory,
        ("file", _) => Kind::File,
        ("absent", _) => Kind::Absent,
        _ => {
            let kind = excerpt(kind, 20);
            return Err(format!("{kind} is not char, block, fifo, dir, file or absent"));
        }
    };
    Ok(Node { path: unescape(path), kind, mode, uid, gid, acl })
}

/// The path with `\` and three octal digits as the byte that they stand for.
fn unescape(path: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(bytes).into()
}

fn bad(path: &Path, problem: String) -> OpenError {
    OpenError::BadDirectory { path: path.to_owned(), problem }
}

fn unreadable(path: &Path, cause: io::Error) -> OpenError {
    OpenError::Unreadable { path: path.to_owned(), cause }
}

fn not_there(path: &Path) -> String {
    format!("{} is not in the directory, nor in its base", shown(path))
}
