//! Recording a host into a file that replays it: the format of bug reports.
//!
//! A capture is a tar.gz of the files that a scan reads and of nothing else, at their places below
//! the root, with a `capture.json` that says what files cannot (which paths failed and how, whether
//! claims were taken). The same host gives the same bytes.
//!
//! Captures go to strangers. Of processes only those that hold a region are in them, with what
//! shows that they do and with their names; of libvirt's definitions only what concerns EGM; of
//! lists of accounts and devices only the lines that were used.

mod cut;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::claims::leases::LeaseFile;
use crate::claims::{LEASES, Moment, Sight, Trace};
use crate::host::{Accounts, Needs, Region};
use crate::output::{json, topology};
use crate::report::Report;
use crate::sysfs::decimal;
use crate::sysroot::manifest::{FileNumbers, Flaw, Manifest, Op, Problem, SCHEMA};
use crate::sysroot::{FileKind, LIST_LIMIT, Log, ReadError, Stat, Sysroot};
use crate::udev_links::DATABASE;
use crate::warning::Warning;
use tree::{Content, Tree};

/// A recorded host.
///
/// ```
/// use egm_probe::capture::Capture;
/// use egm_probe::host::Needs;
/// use egm_probe::report::Report;
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::from_tar(&include_bytes!("../../tests/fixtures/gb200-gpu-list/host.tar.gz")[..])?;
/// let capture = Capture::take(&root, true)?;
/// let replayed = Sysroot::from_tar(&capture.bytes[..])?;
/// assert_eq!(Report::read(&replayed, Needs::all()).host.regions.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Capture {
    /// The file: a tar.gz.
    pub bytes: Vec<u8>,
    /// What was seen while it was taken.
    pub report: Report,
    /// In what a replay differs from that, if it does: it would be a defect of this program's, or
    /// the host changed in the middle of being read.
    pub difference: Option<String>,
}

/// How often a host that changes meanwhile is recorded.
const TRIES: u32 = 3;

impl Capture {
    /// Records a host: the running one, or one that was recorded before. `with_claims` is with who
    /// holds the regions and whose they may become.
    ///
    /// # Errors
    /// The archive cannot be made.
    pub fn take(root: &Sysroot, with_claims: bool) -> io::Result<Self> {
        let mut tries = 1;
        loop {
            let capture = Self::take_once(root, with_claims)?;
            if capture.difference.is_none() || !root.is_host() || tries == TRIES {
                return Ok(capture);
            }
            tries += 1;
        }
    }

    fn take_once(root: &Sysroot, with_claims: bool) -> io::Result<Self> {
        let mut needs = Needs::all();
        needs.set(Needs::CLAIMS, with_claims);
        let recorded = root.recorded();
        let accounts = Accounts::of(&recorded);
        let report = Report::read_with(&recorded, needs, &accounts);
        let log = recorded.log().unwrap_or_default();
        let mut recording = Recording { root, report: &report, log, tree: Tree::default() };
        recording.put_files(&accounts);
        recording.put_processes();
        let claims = with_claims.then(|| report.claims.unseen.clone());
        let mut manifest = Manifest {
            schema: SCHEMA.to_owned(),
            program: concat!("egm-probe ", env!("CARGO_PKG_VERSION")).to_owned(),
            live: root.was_host(),
            claims,
            moment: recording.moment(),
            inodes: recording.inodes(),
            bad_definitions: recording.bad_definitions(),
            errors: recording.put_links(),
            names: BTreeMap::new(),
        };
        manifest.names = recording.names();
        // What the files alone answer otherwise than the host did.
        let (tree, log) = (recording.tree, recording.log);
        let files = Sysroot::from_tar(&tree.tar(&manifest)?[..]).map_err(io::Error::other)?;
        for ((path, op), problem) in log.errors {
            if manifest.bad_definition(&path).is_some() {
                continue;
            }
            let answer = ask(&files, &path, op).err().map(|error| Problem::of(&error));
            let is_same =
                |found: &Problem| *found == problem || (found.is_absence() && problem.is_absence());
            if !answer.is_some_and(|found| is_same(&found)) {
                let path = path.to_string_lossy().into_owned();
                manifest.errors.entry(path).or_default().insert(op, problem);
            }
        }
        let tar = tree.tar(&manifest)?;
        let replayed = Sysroot::from_tar(&tar[..]).map_err(io::Error::other)?;
        let difference = difference(&report, &Report::read(&replayed, Needs::all()))?;
        Ok(Self { bytes: tree::compressed(&tar)?, report, difference })
    }
}

/// What reading a path gives that failed before.
fn ask(root: &Sysroot, path: &Path, op: Op) -> Result<(), ReadError> {
    match op {
        Op::List => root.entries(path).map(|_| ()),
        Op::Link => root.read_link(path).map(|_| ()),
        Op::Stat => root.stat(path).map(|_| ()),
        Op::Read => root.read(path, LIST_LIMIT).map(|_| ()),
    }
}

/// The first line in which what two reports show differs.
fn difference(recorded: &Report, replayed: &Report) -> io::Result<Option<String>> {
    let shown = |report: &Report| -> io::Result<String> {
        let mut text = Vec::new();
        json::write_list(&mut text, report)?;
        topology::write_json(&mut text, report)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let [recorded, replayed] = [shown(recorded)?, shown(replayed)?];
    if recorded == replayed {
        return Ok(None);
    }
    let mut lines = recorded.lines().zip(replayed.lines());
    let (recorded, replayed) = lines.find(|(a, b)| a != b).unwrap_or_default();
    Ok(Some(format!("{} on the host, {} in the capture", recorded.trim(), replayed.trim())))
}

/// A capture that is being made.
struct Recording<'a> {
    root: &'a Sysroot,
    report: &'a Report,
    log: Log,
    tree: Tree,
}

impl Recording<'_> {
    fn put_files(&mut self, accounts: &Accounts<'_>) {
        for (link, target) in &self.log.links {
            self.tree.put(link, Content::Link(target.clone()));
        }
        for directory in self.log.listings.keys() {
            self.tree.put(directory, Content::Directory);
        }
        for (path, stat) in &self.log.stats {
            self.tree.put_as(path, content_of(stat), stat);
        }
        let devices =
            self.report.host.gpus().filter_map(|(gpu, _)| gpu.vendor_id.zip(gpu.device_id));
        let devices: BTreeSet<_> = devices.collect();
        let bad = self.bad_definitions();
        for (path, (place, bytes)) in &self.log.files {
            // Nothing tells what in one of these is a secret.
            if bad.contains_key(&*path.to_string_lossy()) {
                continue;
            }
            if let Some(bytes) = cut::cut(path, bytes, &devices) {
                self.tree.put(place, Content::File(bytes));
            }
        }
        let mut users = self.session_users();
        let [named_users, groups] = accounts.named();
        users.extend(named_users.keys());
        let line = |uid| {
            let home = accounts.home(uid).unwrap_or_default();
            format!("{}:x:{uid}:::{}:\n", accounts.user(uid), home.display())
        };
        let is_known = |uid: &u32| named_users.contains_key(uid) || accounts.home(*uid).is_some();
        self.put_list("/etc/passwd", users.into_iter().filter(is_known).map(line).collect());
        let line = |(gid, name)| format!("{name}:x:{gid}:\n");
        self.put_list("/etc/group", groups.into_iter().map(line).collect());
    }

    /// The users whose libvirt was looked for.
    fn session_users(&self) -> BTreeSet<u32> {
        let names = self.log.listings.get(Path::new("/run/user")).into_iter().flatten();
        names.filter_map(|name| decimal(name)).collect()
    }

    /// A list of which not all was used.
    fn put_list(&mut self, path: &str, text: String) {
        if !text.is_empty() {
            let place = self.log.files.get(Path::new(path)).map(|(place, _)| place.clone());
            let place = place.unwrap_or_else(|| path.into());
            self.tree.put(&place, Content::File(text.into_bytes()));
        }
    }

    /// The holders, with what shows that they are.
    fn put_processes(&mut self) {
        let claims = &self.report.claims;
        let proc = Path::new("/proc");
        let is_unlisted = self.log.errors.contains_key(&(proc.to_owned(), Op::List));
        if claims.sight != Sight::Skipped && !self.report.host.regions.is_empty() && !is_unlisted {
            self.tree.put(proc, Content::Directory);
        }
        let mut maps: BTreeMap<u32, BTreeSet<&[u8]>> = BTreeMap::new();
        for proof in &claims.proofs {
            let process = proc.join(proof.pid.to_string());
            match &proof.trace {
                Trace::Mapping { line, node } => {
                    maps.entry(proof.pid).or_default().insert(line);
                    if let Some((name, number)) = node {
                        let node = process.join("map_files").join(name);
                        self.tree.put(&node, Content::CharDevice(*number));
                    }
                }
                Trace::File { name, number, link } => {
                    let file = process.join("fd").join(name);
                    match (number, link) {
                        (Some(number), _) => self.tree.put(&file, Content::CharDevice(*number)),
                        (None, Some(link)) => self.tree.put(&file, Content::Link(link.clone())),
                        (None, None) => {}
                    }
                }
            }
        }
        for (pid, lines) in maps {
            let mut text = lines.into_iter().collect::<Vec<_>>().join(&b'\n');
            text.push(b'\n');
            self.tree.put(&proc.join(pid.to_string()).join("maps"), Content::File(text));
        }
        // One whose files cannot be listed at all would be one that could not be looked at.
        for process in self.tree.below(proc) {
            self.tree.put(&process.join("fd"), Content::Directory);
        }
    }

    /// What udev calls the devices: its library was asked on the running host, and its database is
    /// read in a capture. Gives what to say of the devices that it did not know.
    fn put_links(&mut self) -> BTreeMap<String, BTreeMap<Op, Problem>> {
        let mut errors = BTreeMap::new();
        let links = |region: &Region| region.device.number.zip(Some(region.device.links.clone()));
        let links: Vec<_> = self.report.host.regions.iter().filter_map(links).collect();
        if !self.root.is_host() || links.iter().all(|(_, links)| links.is_none()) {
            return errors;
        }
        self.tree.put(Path::new(DATABASE), Content::Directory);
        for (number, links) in links {
            let path = format!("{DATABASE}/c{number}");
            let Some(links) = links else {
                let problem = Problem::Number(Errno::ENODATA as i32);
                errors.insert(path, BTreeMap::from([(Op::Read, problem)]));
                continue;
            };
            let mut text = String::new();
            for link in links.iter().filter_map(|link| link.strip_prefix("/dev").ok()) {
                text.extend(["S:", &link.to_string_lossy(), "\n"]);
            }
            if !text.is_empty() {
                self.tree.put(Path::new(&path), Content::File(text.into_bytes()));
            }
        }
        errors
    }

    /// The names in directories that are not all in the tree.
    fn names(&self) -> BTreeMap<String, BTreeSet<String>> {
        let children = self.tree.children();
        let none = BTreeSet::new();
        let listings = self.log.listings.iter();
        let partial = listings.filter(|(directory, names)| {
            children.get(directory.as_path()).unwrap_or(&none) != *names
        });
        let entry = |(directory, names): (&PathBuf, &BTreeSet<String>)| {
            (directory.to_string_lossy().into_owned(), names.clone())
        };
        partial.map(entry).collect()
    }

    fn inodes(&self) -> BTreeMap<String, FileNumbers> {
        let is_device = |stat: &Stat| matches!(stat.kind, FileKind::CharDevice(_));
        let devices = self.log.stats.iter().filter(|(_, stat)| is_device(stat));
        let inode = |(path, stat): (&PathBuf, &Stat)| {
            let file = stat.file?;
            let (major, minor) = (file.device.major, file.device.minor);
            let inode = FileNumbers { major, minor, inode: file.inode };
            Some((path.to_string_lossy().into_owned(), inode))
        };
        devices.filter_map(inode).collect()
    }

    /// A second before the first of the leases ends that had not ended yet: until then they are to
    /// each other what they were.
    fn moment(&self) -> Option<u64> {
        let recorded = self.root.manifest().and_then(|manifest| manifest.moment);
        let now = recorded.unwrap_or_else(|| Moment::now().0);
        let leases = self.log.files.iter().filter(|(path, _)| path.starts_with(LEASES));
        let leases = leases.filter_map(|(_, (_, bytes))| serde_json::from_slice(bytes).ok());
        let ends = leases.map(|lease: LeaseFile| lease.expires).filter(|end| *end > now);
        ends.min().map(|end| end - 1)
    }

    fn bad_definitions(&self) -> BTreeMap<String, Flaw> {
        let bad = self.report.claims.warnings.iter().filter_map(|warning| match warning {
            Warning::BadDefinition { path, error } => {
                let (line, column, problem) = (error.line, error.column, error.problem.clone());
                Some((path.to_string_lossy().into_owned(), Flaw { line, column, problem }))
            }
            _ => None,
        });
        bad.collect()
    }
}

/// What only its kind is known of.
fn content_of(stat: &Stat) -> Content {
    match stat.kind {
        FileKind::Regular => Content::File(Vec::new()),
        FileKind::Directory => Content::Directory,
        FileKind::CharDevice(number) => Content::CharDevice(number),
        FileKind::Other => Content::Fifo,
    }
}
