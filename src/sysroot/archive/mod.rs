//! A capture, held in memory: a host's files from a tar archive, or from a directory of plain files.
//!
//! Archives are untrusted. Nothing is extracted, so nothing can be overwritten; the remaining
//! dangers are size, and entries with misleading paths.

mod plain;
mod read;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

pub(super) use plain::is_capture;

use super::error::os_error;
use super::manifest::{Manifest, Op};
use super::path::resolve;
use super::{Acl, FileId, FileKind, Stat, not_a_file};
use crate::values::DeviceNumber;

/// The tree of an archive. Nodes refer to each other by index, so that a deep tree is freed
/// without recursion.
#[derive(Debug)]
pub(super) struct Archive {
    nodes: Vec<Inode>,
    /// Number of bytes of files that are still allowed. It differs from the bytes read of the
    /// stream: a sparse file contains zeros that the stream does not.
    left: u64,
    /// The manifest, if egm-probe wrote the archive.
    manifest: Option<Manifest>,
}

#[derive(Debug)]
struct Inode {
    content: Content,
    mode: u32,
    uid: u32,
    gid: u32,
    acl: Option<Acl>,
}

#[derive(Debug)]
enum Content {
    Directory(BTreeMap<Box<OsStr>, usize>),
    File(Box<[u8]>),
    Link(PathBuf),
    CharDevice(DeviceNumber),
    Other,
}

const ROOT: usize = 0;

impl Archive {
    /// The manifest, if egm-probe wrote the archive.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    fn child(&self, directory: usize, name: &OsStr) -> Option<usize> {
        match &self.nodes.get(directory)?.content {
            Content::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// The node of a path without links.
    fn node(&self, path: &Path) -> io::Result<&Inode> {
        let mut at = ROOT;
        for (index, component) in path.components().enumerate() {
            let Component::Normal(name) = component else {
                continue;
            };
            at = match self.nodes.get(at).map(|node| &node.content) {
                Some(Content::Directory(children)) => children.get(name).copied(),
                _ => return Err(os_error(Errno::ENOTDIR)),
            }
            .ok_or_else(|| self.missing(path, index, name))?;
        }
        self.nodes.get(at).ok_or_else(|| os_error(Errno::ENOENT))
    }

    /// The error for a path whose component `name`, at `index`, does not exist.
    fn missing(&self, path: &Path, index: usize, name: &OsStr) -> io::Error {
        let is_listed = |manifest: &Manifest| {
            let directory: PathBuf = path.components().take(index).collect();
            name.to_str().is_some_and(|name| manifest.lists(&directory, name))
        };
        if self.manifest.as_ref().is_some_and(is_listed) {
            io::Error::other("not recorded")
        } else {
            os_error(Errno::ENOENT)
        }
    }

    /// The node that a path leads to, and the path without links.
    fn follow(&self, path: &Path, follow_last: bool) -> io::Result<(PathBuf, &Inode)> {
        let path = resolve(path, follow_last, |at| match &self.node(at)?.content {
            Content::Link(target) => Ok(Some(target.clone())),
            _ => Ok(None),
        })?;
        let node = self.node(&path)?;
        Ok((path, node))
    }

    /// Fails if reading the path failed when it was recorded.
    fn check(&self, path: &Path, op: Op) -> io::Result<()> {
        let problem = self.manifest.as_ref().and_then(|manifest| manifest.problem(path, op));
        problem.map_or(Ok(()), |problem| Err(problem.into()))
    }

    pub(super) fn entries(&self, path: &Path) -> io::Result<Vec<String>> {
        self.check(path, Op::List)?;
        let (place, node) = self.follow(path, true)?;
        match &node.content {
            Content::Directory(children) => {
                let place = place.to_string_lossy();
                if let Some(names) = self.manifest.as_ref().and_then(|it| it.names.get(&*place)) {
                    return Ok(names.iter().cloned().collect());
                }
                Ok(children.keys().filter_map(|name| name.to_str()).map(str::to_owned).collect())
            }
            _ => Err(os_error(Errno::ENOTDIR)),
        }
    }

    pub(super) fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.check(path, Op::Link)?;
        match &self.follow(path, false)?.1.content {
            Content::Link(target) => Ok(target.clone()),
            _ => Err(os_error(Errno::EINVAL)),
        }
    }

    pub(super) fn read_file(&self, path: &Path) -> io::Result<&[u8]> {
        self.check(path, Op::Read)?;
        match &self.follow(path, true)?.1.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(os_error(Errno::EISDIR)),
            _ => Err(not_a_file()),
        }
    }

    pub(super) fn acl(&self, path: &Path) -> io::Result<Option<Acl>> {
        Ok(self.follow(path, true)?.1.acl.clone())
    }

    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.check(path, Op::Stat)?;
        let (place, node) = self.follow(path, true)?;
        let kind = match &node.content {
            Content::Directory(_) => FileKind::Directory,
            Content::File(_) => FileKind::Regular,
            Content::CharDevice(number) => FileKind::CharDevice(*number),
            // Links at the end of a path were followed.
            Content::Link(_) | Content::Other => FileKind::Other,
        };
        let inodes = self.manifest.as_ref().map(|manifest| &manifest.inodes);
        let file = inodes.and_then(|inodes| inodes.get(&*place.to_string_lossy())).map(|file| {
            let device = DeviceNumber { major: file.major, minor: file.minor };
            FileId { device, inode: file.inode }
        });
        Ok(Stat { kind, mode: node.mode, uid: node.uid, gid: node.gid, file })
    }
}

impl Inode {
    fn set_acl(&mut self, text: Option<&str>) -> Result<(), String> {
        let acl = text.map(|text| Acl::of_text(text, self.mode)).transpose();
        self.keep(acl.map(Option::flatten))
    }

    fn keep(&mut self, acl: Result<Option<Acl>, String>) -> Result<(), String> {
        self.acl = acl.map_err(|problem| format!("invalid ACL: {problem}"))?;
        self.mode = self.acl.as_ref().map_or(self.mode, |acl| acl.mode(self.mode));
        Ok(())
    }

    /// A directory without an entry of its own.
    fn directory() -> Self {
        Self {
            content: Content::Directory(BTreeMap::new()),
            mode: 0o755,
            uid: 0,
            gid: 0,
            acl: None,
        }
    }
}
