//! A tree of files as it goes into an archive: always the same bytes for the same tree.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A path of `nodes`, in which a character may be `\` and three octal digits.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |path, part| {
        let code = u8::from_str_radix(&part[..3], 8).unwrap();
        format!("{path}{}{}", char::from(code), &part[3..])
    })
}

/// Files by their path without a leading slash.
#[derive(Clone, Default)]
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

    /// The tree of a capture: an archive, or a directory of plain files with its `nodes`.
    pub fn read(capture: &Path) -> Self {
        if capture.is_dir() {
            return Self::read_directory(capture);
        }
        let file = std::fs::File::open(capture).unwrap();
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

    fn read_directory(directory: &Path) -> Self {
        let nodes = std::fs::read_to_string(directory.join("nodes")).unwrap_or_default();
        let lines: Vec<Vec<&str>> = nodes
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let mut tree = match lines.iter().find(|words| words.first() == Some(&"base")) {
            Some(words) => Self::read(&directory.join(words[1])),
            None => Self::default(),
        };
        tree.add_files(directory, "");
        for words in lines.iter().filter(|words| words.len() > 1 && words[0] != "base") {
            let path = &unescaped(&words[0][1..]);
            let number = |index: usize, radix| match words.get(index) {
                Some(word) => u32::from_str_radix(word, radix).unwrap(),
                None => 0,
            };
            let owner = (number(4, 10).into(), number(5, 10).into());
            match words[1] {
                "dir" => tree.directory(path),
                "fifo" => tree.fifo(path),
                "char" => {
                    let (major, minor) = words[2].split_once(':').unwrap();
                    let device = (major.parse().unwrap(), minor.parse().unwrap());
                    tree.device(path, device, number(3, 8), owner);
                }
                "file" => {
                    let header = &mut tree.0.get_mut(path).unwrap().0;
                    header.set_mode(number(3, 8));
                    header.set_uid(owner.0);
                    header.set_gid(owner.1);
                }
                "absent" => tree.remove_all(path),
                other => panic!("{}: {other}", directory.display()),
            }
        }
        tree
    }

    fn add_files(&mut self, directory: &Path, below: &str) {
        for entry in std::fs::read_dir(directory.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                if !self.0.contains_key(&path) {
                    self.directory(&path);
                }
                self.add_files(directory, &path);
            } else if below.is_empty() {
                // Beside the host's directories: `nodes`, `golden.txt`.
            } else if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).unwrap();
                self.raw_link(&path, target.to_str().unwrap());
            } else {
                self.file(&path, std::fs::read(entry.path()).unwrap());
            }
        }
    }

    /// Its files and links in a directory, and its device nodes where these can be made.
    pub fn extract(&self, directory: &Path, exclude: &str) -> Result<(), String> {
        let mut tar = Command::new("tar")
            .args(["-x", "--exclude", exclude])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&self.tar()).unwrap();
        let output = tar.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(errors) }
    }

    /// The regular files, by path, with their contents.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.0.iter().filter(|(_, entry)| entry.0.entry_type().is_file());
        files.map(|(path, (_, content, _))| (path.as_str(), content.as_slice()))
    }

    /// Keeps the entries whose paths are wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.0.retain(|path, _| is_wanted(path));
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
