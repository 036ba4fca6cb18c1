//! Reads a tar stream into a tree of files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tar::{Entry, EntryType, Header};

use super::{Archive, Content, Inode, ROOT};
use crate::sysroot::describe;
use crate::sysroot::manifest::{self, Manifest};
use crate::sysroot::path::DEPTH_LIMIT;
use crate::values::DeviceNumber;
use crate::values::text::{excerpt, shown};

/// Maximum total size, uncompressed.
const TOTAL_LIMIT: u64 = 256 * 1024 * 1024;
/// Maximum number of files, directories and links.
const NODES_LIMIT: usize = 1 << 20;
/// Maximum length of a path, as in the kernel (`PATH_MAX`).
const PATH_LIMIT: usize = 4096;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const OTHER_MAGIC: [(&[u8], &str); 3] =
    [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];
/// An archive ends with two blocks of zeros; some writers omit one.
const END_MARK: u64 = 512;

/// Maximum number of characters shown of a hostile name.
const SHOWN: usize = 100;

impl Archive {
    pub(in crate::sysroot) fn read(stream: impl Read) -> Result<Self, String> {
        let mut archive = Self::empty();
        archive.add_tar(stream)?;
        archive.finish()
    }

    pub(super) fn empty() -> Self {
        Self { nodes: vec![Inode::directory()], left: TOTAL_LIMIT, manifest: None }
    }

    /// The files of a tar stream, compressed by gzip or not.
    pub(super) fn add_tar(&mut self, stream: impl Read) -> Result<(), String> {
        let mut stream = BufReader::new(stream);
        let start = stream.fill_buf().map_err(|error| problem(&error))?;
        if start.starts_with(&GZIP_MAGIC) {
            return self.add_entries(MultiGzDecoder::new(stream));
        }
        for (magic, name) in OTHER_MAGIC {
            if start.starts_with(magic) {
                return Err(format!("{name} compression is not supported"));
            }
        }
        self.add_entries(stream)
    }

    fn add_entries(&mut self, stream: impl Read) -> Result<(), String> {
        let mut tar = tar::Archive::new(Bounded { stream, left: TOTAL_LIMIT, zeros: 0 });
        for entry in tar.entries().map_err(|error| problem(&error))? {
            self.add(entry.map_err(|error| problem(&error))?)?;
        }
        // Up to the end, which has the checksum of gzip and the end mark of tar.
        let mut stream = tar.into_inner();
        io::copy(&mut stream, &mut io::sink()).map_err(|error| problem(&error))?;
        if stream.zeros < END_MARK {
            return Err("truncated".into());
        }
        Ok(())
    }

    /// The whole of what was added, with what it says of itself.
    pub(super) fn finish(mut self) -> Result<Self, String> {
        self.look_for_roots()?;
        if let Ok(bytes) = self.read_file(Path::new(manifest::NAME)) {
            self.manifest = Some(Manifest::parse(bytes)?);
        }
        Ok(self)
    }

    /// Rejects an archive whose top level is a folder with the host's directories in it.
    fn look_for_roots(&self) -> Result<(), String> {
        let Some(Content::Directory(top)) = self.nodes.get(ROOT).map(|node| &node.content) else {
            return Ok(());
        };
        let is_host = |directory| {
            ["sys", "proc"].iter().any(|name| self.child(directory, OsStr::new(name)).is_some())
        };
        match top.iter().find(|(_, directory)| is_host(**directory)) {
            Some((name, _)) if !is_host(ROOT) => {
                let name = excerpt(&name.to_string_lossy(), SHOWN);
                Err(format!("sys/ must be at the top level, found below {name}/"))
            }
            _ if top.is_empty() => Err("contains no files".into()),
            _ => Ok(()),
        }
    }

    fn add(&mut self, mut entry: Entry<impl Read>) -> Result<(), String> {
        let path = entry.path().map_err(|error| problem(&error))?.into_owned();
        let names = names_within(&path)?;
        let in_entry = |problem: String| format!("entry {}: {problem}", shown(&path));
        let is_sparse = entry.pax_extensions().ok().flatten().is_some_and(|extensions| {
            extensions.flatten().any(|field| field.key_bytes().starts_with(b"GNU.sparse."))
        });
        if is_sparse {
            return Err(in_entry("PAX sparse files are not supported".into()));
        }
        let header = entry.header();
        let number = |field: io::Result<u64>| field.map_err(|error| in_entry(problem(&error)));
        let mode = header.mode().map(u64::from);
        let (mode, uid, gid) = (number(mode)?, number(header.uid())?, number(header.gid())?);
        let id = |id: u64| {
            u32::try_from(id).map_err(|_| in_entry(format!("invalid user or group ID {id}")))
        };
        let content = match header.entry_type() {
            EntryType::Directory => Content::Directory(BTreeMap::new()),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                Content::File(self.contents(&mut entry)?)
            }
            EntryType::Symlink => Content::Link(link_name(&entry).map_err(in_entry)?),
            EntryType::Link => {
                let target = link_name(&entry).map_err(in_entry)?;
                return self.alias(&names, &target).map_err(in_entry);
            }
            EntryType::Char => device(header)?,
            EntryType::Block | EntryType::Fifo => Content::Other,
            // Headers for other entries are not part of the host.
            _ => return Ok(()),
        };
        // The mode has twelve bits, so the cast is lossless.
        #[allow(clippy::cast_possible_truncation)]
        let mode = (mode & 0o7777) as u32;
        let node = Inode { mode, uid: id(uid)?, gid: id(gid)?, content };
        self.insert(&names, node).map_err(in_entry)
    }

    /// Adds a hard link to an earlier file.
    fn alias(&mut self, names: &[&OsStr], target: &Path) -> Result<(), String> {
        let found = names_within(target)?.iter().try_fold(ROOT, |at, name| self.child(at, name));
        let target = found.ok_or("hard link to a missing file")?;
        let is_directory = |node: &Inode| matches!(node.content, Content::Directory(_));
        if self.nodes.get(target).is_none_or(is_directory) {
            return Err("hard link to a directory".into());
        }
        let Some((last, parents)) = names.split_last() else { return Ok(()) };
        let parent = self.make_parents(parents)?;
        self.link(parent, last, target)
    }

    pub(super) fn contents(&mut self, file: impl Read) -> Result<Box<[u8]>, String> {
        let mut bytes = Vec::new();
        file.take(self.left + 1).read_to_end(&mut bytes).map_err(|error| problem(&error))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
        Ok(bytes.into())
    }

    pub(super) fn insert(&mut self, names: &[&OsStr], node: Inode) -> Result<(), String> {
        let Some((last, parents)) = names.split_last() else { return Ok(()) };
        let parent = self.make_parents(parents)?;
        let is_directory = |node: &Inode| matches!(node.content, Content::Directory(_));
        if let Some(child) = self.child(parent, last)
            && let Some(old) = self.nodes.get_mut(child)
            && is_directory(old)
            && is_directory(&node)
        {
            // The directory's entry follows its files, which are kept.
            (old.mode, old.uid, old.gid) = (node.mode, node.uid, node.gid);
            return Ok(());
        }
        // As in tar, the later entry wins.
        self.push(parent, last, node).map(|_| ())
    }

    fn make_parents(&mut self, names: &[&OsStr]) -> Result<usize, String> {
        let mut at = ROOT;
        for name in names {
            at = match self.child(at, name) {
                Some(child) => child,
                None => self.push(at, name, Inode::directory())?,
            };
        }
        Ok(at)
    }

    fn push(&mut self, parent: usize, name: &OsStr, node: Inode) -> Result<usize, String> {
        let index = self.nodes.len();
        if index == NODES_LIMIT {
            return Err(format!("too many files (limit: {NODES_LIMIT})"));
        }
        self.link(parent, name, index)?;
        self.nodes.push(node);
        Ok(index)
    }

    fn link(&mut self, parent: usize, name: &OsStr, child: usize) -> Result<(), String> {
        match self.nodes.get_mut(parent).map(|node| &mut node.content) {
            Some(Content::Directory(children)) => {
                children.insert(name.into(), child);
                Ok(())
            }
            _ => Err("the parent is not a directory".into()),
        }
    }
}

/// The components of an entry's path, which must stay within the archive.
pub(super) fn names_within(path: &Path) -> Result<Vec<&OsStr>, String> {
    if path.as_os_str().len() > PATH_LIMIT {
        return Err(format!("path of an entry is longer than {PATH_LIMIT} bytes"));
    }
    if has_nul(path) {
        return Err(format!("entry {}: path contains a NUL byte", shown(path)));
    }
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(_) if names.len() == DEPTH_LIMIT => {
                return Err(format!("an entry is nested deeper than {DEPTH_LIMIT} directories"));
            }
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(format!("entry {}: path leads out of the archive", shown(path)));
            }
        }
    }
    Ok(names)
}

fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

fn link_name(entry: &Entry<impl Read>) -> Result<PathBuf, String> {
    let target = entry.link_name().map_err(|error| problem(&error))?;
    let target = target.map(std::borrow::Cow::into_owned).unwrap_or_default();
    if target.as_os_str().len() > PATH_LIMIT {
        return Err(format!("link target is longer than {PATH_LIMIT} bytes"));
    }
    // symlink(2) creates neither, so captures do not contain them and could not be written with
    // them.
    if target.as_os_str().is_empty() {
        return Err("link without a target".into());
    }
    if has_nul(&target) {
        return Err("link target contains a NUL byte".into());
    }
    Ok(target)
}

fn device(header: &Header) -> Result<Content, String> {
    let number = |field: io::Result<Option<u32>>| {
        field.map(|number| number.unwrap_or(0)).map_err(|error| problem(&error))
    };
    let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
    Ok(Content::CharDevice(DeviceNumber { major, minor }))
}

/// The messages of the tar and gzip readers, whose causes are nested and end in newlines.
fn problem(error: &io::Error) -> String {
    format!("cannot be read as an archive ({})", excerpt(describe(error).trim(), SHOWN))
}

/// A stream that fails after a number of bytes, and counts the zeros at its end.
struct Bounded<R> {
    stream: R,
    left: u64,
    zeros: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(too_large()))?;
        let read = buffer.get(..count).unwrap_or_default();
        match read.iter().rev().position(|byte| *byte != 0) {
            Some(zeros) => self.zeros = zeros as u64,
            None => self.zeros += count as u64,
        }
        Ok(count)
    }
}

fn too_large() -> String {
    format!("larger than {} MiB", TOTAL_LIMIT >> 20)
}
