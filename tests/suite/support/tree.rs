//! A tree of files as it goes into an archive: always the same bytes for the same tree.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// Files by their path without a leading slash.
#[derive(Default)]
pub struct Tree(BTreeMap<String, (Header, Vec<u8>, Option<String>)>);

impl Tree {
    fn add(&mut self, path: &str, kind: EntryType, mode: u32) -> &mut Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.0.insert(path.to_owned(), (header, Vec::new(), None));
        &mut self.0.get_mut(path).unwrap().0
    }

    /// The tree of an archive.
    pub fn read(archive: &Path) -> Self {
        let file = std::fs::File::open(archive).unwrap();
        let mut tree = Self::default();
        for entry in tar::Archive::new(GzDecoder::new(file)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            let target = entry.link_name().unwrap();
            let target = target.map(|target| target.to_str().unwrap().to_owned());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let mut header = entry.header().clone();
            header.set_mtime(0);
            tree.0.insert(path, (header, content, target));
        }
        tree
    }

    /// Replaces directories by those of another tree.
    pub fn take_from(&mut self, other: &Self, directories: &[&str]) {
        for directory in directories {
            self.remove_all(directory);
            let is_in =
                |path: &str| path == *directory || path.starts_with(&format!("{directory}/"));
            let entries = other.0.iter().filter(|(path, _)| is_in(path));
            self.0.extend(entries.map(|(path, entry)| (path.clone(), entry.clone())));
        }
    }

    /// The paths of all entries.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// The text of a file.
    pub fn content(&self, path: &str) -> String {
        let (_, content, _) = self.0.get(path).unwrap_or_else(|| panic!("{path} is not there"));
        String::from_utf8(content.clone()).unwrap()
    }

    /// A tree with one empty file.
    pub fn default_with(path: &str) -> Self {
        let mut tree = Self::default();
        tree.file(path, "");
        tree
    }

    pub fn directory(&mut self, path: &str) {
        self.add(path, EntryType::Directory, 0o755);
    }

    pub fn file(&mut self, path: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        self.add(path, EntryType::Regular, 0o444).set_size(content.len() as u64);
        self.0.get_mut(path).unwrap().1 = content.to_vec();
    }

    /// A link by its target from the root, written relatively as sysfs does.
    pub fn link(&mut self, path: &str, target: &str) {
        let shared = path.split('/').zip(target.split('/')).take_while(|(a, b)| a == b).count();
        let up = path.split('/').count() - shared - 1;
        let down: Vec<_> = target.split('/').skip(shared).collect();
        self.raw_link(path, &format!("{}{}", "../".repeat(up), down.join("/")));
    }

    pub fn raw_link(&mut self, path: &str, target: &str) {
        self.add(path, EntryType::Symlink, 0o777);
        self.0.get_mut(path).unwrap().2 = Some(target.to_owned());
    }

    pub fn device(&mut self, path: &str, number: (u32, u32), mode: u32, owner: (u64, u64)) {
        let header = self.add(path, EntryType::Char, mode);
        header.set_device_major(number.0).unwrap();
        header.set_device_minor(number.1).unwrap();
        header.set_uid(owner.0);
        header.set_gid(owner.1);
    }

    pub fn fifo(&mut self, path: &str) {
        self.add(path, EntryType::Fifo, 0o644);
    }

    pub fn remove(&mut self, path: &str) {
        self.0.remove(path).unwrap_or_else(|| panic!("{path} is not in the tree"));
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let entry = self.0.remove(from).unwrap_or_else(|| panic!("{from} is not in the tree"));
        self.0.insert(to.to_owned(), entry);
    }

    /// Removes a directory with all that is in it.
    pub fn remove_all(&mut self, path: &str) {
        let before = self.0.len();
        self.0.retain(|name, _| name != path && !name.starts_with(&format!("{path}/")));
        assert!(self.0.len() < before, "{path} is not in the tree");
    }

    /// The archive, not compressed. Directories that the files need come first.
    pub fn tar(&self) -> Vec<u8> {
        let mut with_parents = Tree::default();
        for path in self.0.keys() {
            for (end, _) in path.match_indices('/') {
                with_parents.directory(&path[..end]);
            }
        }
        with_parents.0.extend(self.0.iter().map(|(path, entry)| (path.clone(), entry.clone())));
        let mut builder = Builder::new(Vec::new());
        for (path, (header, content, target)) in &with_parents.0 {
            let mut header = header.clone();
            match target {
                Some(target) => builder.append_link(&mut header, path, target).unwrap(),
                None => builder.append_data(&mut header, path, content.as_slice()).unwrap(),
            }
        }
        builder.into_inner().unwrap()
    }
}

/// Compressed as in the fixtures.
pub fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}
