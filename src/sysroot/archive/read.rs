//! Reads a tar stream into a tree of files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::{Entry, EntryType, Header};

use super::{Archive, Content, Inode, ROOT};
use crate::sysroot::manifest::{self, Manifest};
use crate::sysroot::path::DEPTH_LIMIT;
use crate::sysroot::{Acl, describe};
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
        let tap = Rc::new(RefCell::new(Tap::default()));
        let bounded = Bounded { stream, left: TOTAL_LIMIT, zeros: 0, tap: Rc::clone(&tap) };
        let mut tar = tar::Archive::new(bounded);
        for entry in tar.entries().map_err(|error| problem(&error))? {
            let entry = entry.map_err(|error| problem(&error))?;
            let size = entry.size().checked_next_multiple_of(BLOCK as u64);
            let next = size.and_then(|size| entry.raw_file_position().checked_add(size));
            let header = tap.borrow_mut().before(entry.raw_header_position(), next);
            self.add(entry, &extended(&header))?;
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

    fn add(&mut self, mut entry: Entry<impl Read>, extended: &Extended) -> Result<(), String> {
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
                let contents = self.contents(&mut entry)?;
                let is_sysfs = names.first().is_some_and(|name| *name == "sys");
                Content::File(if is_sysfs { without_padding(contents) } else { contents })
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
        let mut node = Inode { mode, uid: id(uid)?, gid: id(gid)?, content, acl: None };
        // Only those of device nodes are evaluated.
        if let (Some(acl), Content::CharDevice(_)) = (extended, &node.content) {
            let acl = match acl {
                AclRecord::Text(text) => Acl::of_text(&String::from_utf8_lossy(text), node.mode),
                AclRecord::Binary(bytes) => Acl::of_bytes(bytes, node.mode),
            };
            node.keep(acl).map_err(in_entry)?;
        }
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
            (old.mode, old.uid, old.gid, old.acl) = (node.mode, node.uid, node.gid, node.acl);
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

/// The value of an attribute: sysfs gives a page as its size, and tar fills the rest with zeros.
fn without_padding(contents: Box<[u8]>) -> Box<[u8]> {
    let end = contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match contents.get(..end) {
        Some(text) if !text.contains(&0) => text.into(),
        _ => contents,
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

/// The size of a block of a tar archive.
const BLOCK: usize = 512;

/// The ACL in an extended header (pax(1)).
type Extended = Option<AclRecord>;

enum AclRecord {
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// The ACL in the extended headers among these blocks. The tar crate ends records at newlines, which
/// both kinds of values may contain.
fn extended(blocks: &[u8]) -> Extended {
    let mut found = None;
    let mut rest = blocks;
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        let size = header.entry_size().ok().and_then(|size| usize::try_from(size).ok())?;
        let data = after.get(..size)?;
        if header.entry_type() == EntryType::XHeader {
            found = acl_of(data).or(found);
        }
        rest = after.get(size.checked_next_multiple_of(BLOCK)?..)?;
    }
    found
}

/// Records are `LENGTH KEY=VALUE\n`, where the length is that of the whole record.
fn acl_of(mut records: &[u8]) -> Extended {
    let mut found = None;
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ')?;
        let length = std::str::from_utf8(records.get(..space)?).ok()?;
        let (record, rest) = records.split_at_checked(length.parse().ok()?)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        if let Some(text) = record.strip_prefix(b"SCHILY.acl.access=") {
            found = Some(AclRecord::Text(text.to_vec()));
        } else if let Some(bytes) = record.strip_prefix(b"SCHILY.xattr.system.posix_acl_access=") {
            found = Some(AclRecord::Binary(bytes.to_vec()));
        }
        records = rest;
    }
    found
}

/// Keeps the bytes of the stream from a position on, for headers that the tar crate does not show.
#[derive(Default)]
struct Tap {
    /// The position in the stream.
    position: u64,
    /// The position of the first byte that is kept; `None` for none.
    from: u64,
    bytes: Vec<u8>,
}

impl Tap {
    /// Maximum number of bytes kept: a long path, and an ACL in both forms.
    const LIMIT: usize = 512 * 1024;

    fn add(&mut self, bytes: &[u8]) {
        let skipped = self.from.saturating_sub(self.position);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let room = Self::LIMIT.saturating_sub(self.bytes.len());
        let kept = bytes.get(skipped..).unwrap_or_default();
        self.bytes.extend_from_slice(kept.get(..room).unwrap_or(kept));
        self.position = self.position.saturating_add(bytes.len() as u64);
    }

    /// The kept bytes before a header; keeps those from `next` on afterwards.
    fn before(&mut self, header: u64, next: Option<u64>) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let length = header.checked_sub(self.from).and_then(|it| usize::try_from(it).ok());
        bytes.truncate(length.unwrap_or(0));
        self.from = next.unwrap_or(u64::MAX);
        bytes
    }
}

/// A stream that fails after a number of bytes, and counts the zeros at its end.
struct Bounded<R> {
    stream: R,
    left: u64,
    zeros: u64,
    tap: Rc<RefCell<Tap>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(too_large()))?;
        let read = buffer.get(..count).unwrap_or_default();
        self.tap.borrow_mut().add(read);
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
