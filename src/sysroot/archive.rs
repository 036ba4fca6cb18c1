//! A capture: a tar archive of a host's files, held in memory.
//!
//! Archives come from strangers. Nothing is extracted, so nothing can be written or made; what is
//! left to guard against is size, and entries that would lie about where they are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use nix::errno::Errno;
use tar::{Entry, EntryType, Header};

use super::error::os_error;
use super::path::resolve;
use super::{FileKind, Stat, not_a_file};
use crate::text::excerpt;

/// The most that an archive may hold once decompressed, all told.
const TOTAL_LIMIT: u64 = 256 * 1024 * 1024;
/// The most files, directories and links in one.
const NODES_LIMIT: usize = 1 << 20;
/// The longest path, as for the kernel (`PATH_MAX`).
const PATH_LIMIT: usize = 4096;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The tree of an archive. Nodes refer to each other by index, so that a deep tree is freed
/// without recursion.
#[derive(Debug)]
pub(super) struct Archive {
    nodes: Vec<Node>,
    /// How many bytes of files may still come. Not the same as what is read of the stream: a
    /// sparse file holds zeros that no stream carries.
    left: u64,
}

#[derive(Debug)]
struct Node {
    content: Content,
    mode: u32,
    uid: u32,
    gid: u32,
}

#[derive(Debug)]
enum Content {
    Directory(BTreeMap<Box<OsStr>, usize>),
    File(Box<[u8]>),
    Link(PathBuf),
    CharDevice(u64, u64),
    Other,
}

const ROOT: usize = 0;

impl Archive {
    pub(super) fn read(stream: impl Read) -> Result<Self, String> {
        let mut stream = BufReader::new(stream);
        let start = stream.fill_buf().map_err(|error| problem(&error))?;
        if start.starts_with(&GZIP_MAGIC) {
            Self::read_tar(MultiGzDecoder::new(stream))
        } else {
            Self::read_tar(stream)
        }
    }

    fn read_tar(stream: impl Read) -> Result<Self, String> {
        let mut archive = Self { nodes: vec![Node::directory()], left: TOTAL_LIMIT };
        let mut tar = tar::Archive::new(Bounded { stream, left: TOTAL_LIMIT });
        let mut empty = true;
        for entry in tar.entries().map_err(|error| problem(&error))? {
            archive.add(entry.map_err(|error| problem(&error))?)?;
            empty = false;
        }
        if empty { Err("holds no files".into()) } else { Ok(archive) }
    }

    fn add(&mut self, mut entry: Entry<impl Read>) -> Result<(), String> {
        let path = entry.path().map_err(|error| problem(&error))?.into_owned();
        let names = names_within(&path)?;
        let header = entry.header();
        let node = Node {
            mode: header.mode().map_err(|error| problem(&error))? & 0o7777,
            uid: id(header.uid())?,
            gid: id(header.gid())?,
            content: match header.entry_type() {
                EntryType::Directory => Content::Directory(BTreeMap::new()),
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    Content::File(self.contents(&mut entry)?)
                }
                EntryType::Symlink => Content::Link(link_name(&entry)?),
                // Its target is a path of the archive: a link from the root says the same.
                EntryType::Link => Content::Link(Path::new("/").join(link_name(&entry)?)),
                EntryType::Char => device(header)?,
                EntryType::Block | EntryType::Fifo => Content::Other,
                // Headers about headers: nothing of the host.
                _ => return Ok(()),
            },
        };
        self.insert(&names, node, &path)
    }

    fn contents(&mut self, file: impl Read) -> Result<Box<[u8]>, String> {
        let mut bytes = Vec::new();
        file.take(self.left + 1).read_to_end(&mut bytes).map_err(|error| problem(&error))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
        Ok(bytes.into())
    }

    fn insert(&mut self, names: &[&OsStr], node: Node, path: &Path) -> Result<(), String> {
        let Some((last, parents)) = names.split_last() else {
            return Ok(());
        };
        let mut at = ROOT;
        for name in parents {
            at = match self.child(at, name) {
                Some(child) => child,
                None => self.push(at, name, Node::directory(), path)?,
            };
        }
        match self.child(at, last).and_then(|child| self.nodes.get_mut(child)) {
            // A directory that its files came before: what is in it stays.
            Some(old)
                if matches!(
                    (&old.content, &node.content),
                    (Content::Directory(_), Content::Directory(_))
                ) =>
            {
                (old.mode, old.uid, old.gid) = (node.mode, node.uid, node.gid);
            }
            // As with tar, the later of two wins.
            Some(old) => *old = node,
            None => {
                self.push(at, last, node, path)?;
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        parent: usize,
        name: &OsStr,
        node: Node,
        path: &Path,
    ) -> Result<usize, String> {
        let index = self.nodes.len();
        if index == NODES_LIMIT {
            return Err(format!("holds more than {NODES_LIMIT} files"));
        }
        match self.nodes.get_mut(parent).map(|node| &mut node.content) {
            Some(Content::Directory(children)) => children.insert(name.into(), index),
            _ => {
                return Err(format!(
                    "the entry {} lies below a file",
                    excerpt(&path.to_string_lossy())
                ));
            }
        };
        self.nodes.push(node);
        Ok(index)
    }

    fn child(&self, directory: usize, name: &OsStr) -> Option<usize> {
        match &self.nodes.get(directory)?.content {
            Content::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// The node of a path that has no links in it.
    fn node(&self, path: &Path) -> io::Result<&Node> {
        let mut at = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            at = match self.nodes.get(at).map(|node| &node.content) {
                Some(Content::Directory(children)) => children.get(name).copied(),
                _ => return Err(os_error(Errno::ENOTDIR)),
            }
            .ok_or_else(|| os_error(Errno::ENOENT))?;
        }
        self.nodes.get(at).ok_or_else(|| os_error(Errno::ENOENT))
    }

    fn follow(&self, path: &Path, follow_last: bool) -> io::Result<&Node> {
        let path = resolve(path, follow_last, |at| match &self.node(at)?.content {
            Content::Link(target) => Ok(Some(target.clone())),
            _ => Ok(None),
        })?;
        self.node(&path)
    }

    pub(super) fn entries(&self, path: &Path) -> io::Result<Vec<String>> {
        match &self.follow(path, true)?.content {
            Content::Directory(children) => {
                Ok(children.keys().filter_map(|name| name.to_str()).map(str::to_owned).collect())
            }
            _ => Err(os_error(Errno::ENOTDIR)),
        }
    }

    pub(super) fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        match &self.follow(path, false)?.content {
            Content::Link(target) => Ok(target.clone()),
            _ => Err(os_error(Errno::EINVAL)),
        }
    }

    pub(super) fn read_file(&self, path: &Path) -> io::Result<&[u8]> {
        match &self.follow(path, true)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(os_error(Errno::EISDIR)),
            _ => Err(not_a_file()),
        }
    }

    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        let node = self.follow(path, true)?;
        let kind = match &node.content {
            Content::Directory(_) => FileKind::Directory,
            Content::File(_) => FileKind::Regular,
            Content::Link(_) => FileKind::Link,
            Content::CharDevice(major, minor) => FileKind::CharDevice(*major, *minor),
            Content::Other => FileKind::Other,
        };
        Ok(Stat { kind, mode: node.mode, uid: node.uid, gid: node.gid })
    }
}

impl Node {
    /// A directory that the archive has no entry of its own for.
    fn directory() -> Self {
        Self { content: Content::Directory(BTreeMap::new()), mode: 0o755, uid: 0, gid: 0 }
    }
}

/// The names of an entry's path, which must lie within the archive.
fn names_within(path: &Path) -> Result<Vec<&OsStr>, String> {
    if path.as_os_str().len() > PATH_LIMIT {
        return Err(format!("an entry's path is longer than {PATH_LIMIT} bytes"));
    }
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(format!(
                    "the entry {} leads out of the archive",
                    excerpt(&path.to_string_lossy())
                ));
            }
        }
    }
    Ok(names)
}

fn link_name(entry: &Entry<impl Read>) -> Result<PathBuf, String> {
    let target = entry.link_name().map_err(|error| problem(&error))?;
    Ok(target.map(std::borrow::Cow::into_owned).unwrap_or_default())
}

fn device(header: &Header) -> Result<Content, String> {
    let number = |field: io::Result<Option<u32>>| {
        field.map(|number| u64::from(number.unwrap_or(0))).map_err(|error| problem(&error))
    };
    Ok(Content::CharDevice(number(header.device_major())?, number(header.device_minor())?))
}

fn id(field: io::Result<u64>) -> Result<u32, String> {
    let id = field.map_err(|error| problem(&error))?;
    u32::try_from(id).map_err(|_| format!("an entry's owner {id} is no user or group id"))
}

/// The words of the tar and gzip readers, whose causes are nested and end in line breaks.
fn problem(error: &io::Error) -> String {
    format!("not readable as an archive ({})", excerpt(super::describe(error).trim()))
}

/// A stream that fails after so many bytes.
struct Bounded<R> {
    stream: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(too_large()))?;
        Ok(count)
    }
}

fn too_large() -> String {
    format!("holds more than {} MiB", TOTAL_LIMIT >> 20)
}
