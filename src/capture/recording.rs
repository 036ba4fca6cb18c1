//! Selects the files and facts of a host that go into a capture.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::redact;
use super::tree::{Content, Tree};
use crate::claims::leases;
use crate::claims::unseen::{Flaw, Recorded};
use crate::claims::{EvidenceKind, LEASES, Sight, USERS, parse_definition};
use crate::doctor::recording;
use crate::domain::Domain;
use crate::host::device_links::DATABASE;
use crate::host::{Accounts, MARKS, Region, iommufd};
use crate::report::Report;
use crate::sysroot::manifest::{FileNumbers, Op, Problem};
use crate::sysroot::{FileKind, Log, Stat, Sysroot};
use crate::udev_rules::FILE_NAME;
use crate::values::numbers::decimal;
use crate::warning::Warning;

/// The definitions that do not concern EGM, and the invalid ones, in which secrets cannot be
/// recognised.
pub(super) fn left_out(report: &Report, log: &Log) -> BTreeSet<PathBuf> {
    let is_region = |path: &Path| {
        let is_its = |(_, stat): &(_, Stat)| is_device(report, stat);
        is_path(report, path) || log.stats.get(path).is_some_and(is_its)
    };
    let is_xml = |path: &Path| path.extension().is_some_and(|extension| extension == "xml");
    let files = log.files.iter().filter(|(path, _)| !path.starts_with("/sys") && is_xml(path));
    let parse = |(path, (_, bytes)): (_, &(_, Vec<u8>))| {
        (path, parse_definition(&String::from_utf8_lossy(bytes)).ok())
    };
    let definitions: BTreeMap<&PathBuf, Option<Domain>> = files.map(parse).collect();
    let concerns = |domain: &&Domain| {
        !domain.egm.is_empty() || domain.file_memory.iter().any(|memory| is_region(&memory.path))
    };
    // The status file of a running domain has the same name as its definition and replaces it.
    let names = definitions.values().flatten().filter(concerns);
    let names: BTreeSet<_> = names.map(|domain| domain.name.as_str()).collect();
    let is_left_out = |domain: &Option<Domain>| {
        domain.as_ref().is_none_or(|domain| !names.contains(domain.name.as_str()))
    };
    let bad = report.claims.bad_definitions().map(|(path, _)| path.to_owned());
    let left_out = definitions.iter().filter(|(_, domain)| is_left_out(domain));
    left_out.map(|(path, _)| (*path).clone()).chain(bad).collect()
}

/// Whether a path is that of a region's device.
fn is_path(report: &Report, path: &Path) -> bool {
    report.regions().iter().any(|region| region.device.path == path)
}

/// Whether a file is a region's device, by its number.
fn is_device(report: &Report, stat: &Stat) -> bool {
    let number = |region: &Region| region.device.number.map(FileKind::CharDevice);
    report.host.regions.iter().any(|region| number(region) == Some(stat.kind))
}

/// A capture in progress.
pub(super) struct Recording<'a> {
    pub(super) root: &'a Sysroot,
    pub(super) report: &'a Report,
    pub(super) log: Log,
    /// Files that are not included.
    pub(super) left_out: BTreeSet<PathBuf>,
    pub(super) tree: Tree,
}

impl Recording<'_> {
    pub(super) fn put_files(&mut self, accounts: &Accounts<'_>) {
        // The kernel's links, and those that disable udev rules; other links only if they lead to an
        // included file.
        let is_kept = |link: &Path| link.starts_with("/sys") || link.ends_with(FILE_NAME);
        for (link, target) in self.log.links.iter().filter(|(link, _)| is_kept(link)) {
            self.tree.put(link, Content::Link(target.clone()));
        }
        let mut ways = Vec::new();
        // Other directories only if they are not empty: an empty one is equivalent to a missing
        // one.
        let places = self.log.listings.values().map(|(place, _)| place);
        for directory in places.filter(|place| place.starts_with("/sys")) {
            self.tree.put(directory, Content::Directory);
        }
        for (path, (place, stat)) in &self.log.stats {
            // Other files mapped by virtual machines are private.
            if self.is_known(path) || is_device(self.report, stat) {
                self.tree.put_as(place, content_of(stat), stat);
                ways.push(path.clone());
            }
        }
        for (place, acl) in &self.log.acls {
            self.tree.set_acl(place, acl);
        }
        let devices =
            self.report.host.gpus().filter_map(|(gpu, _)| gpu.vendor_id.zip(gpu.device_id));
        let devices: BTreeSet<_> = devices.collect();
        for (path, (place, bytes)) in &self.log.files {
            if self.left_out.contains(path) {
                continue;
            }
            if let Some(bytes) = redact::redact(path, bytes, &devices, self.report) {
                self.tree.put(place, Content::File(bytes));
                ways.push(path.clone());
            }
        }
        let mut regions = self.report.host.regions.iter().filter_map(Region::node_problem);
        if regions.any(|it| matches!(it, Warning::DeviceNodeMissing { in_container: true, .. })) {
            // A PID namespace is not in a capture.
            self.tree.put(Path::new(MARKS[0]), Content::File(Vec::new()));
        }
        let mut users = self.session_users(accounts);
        let place = self.log.listings.get(Path::new(USERS)).map(|(place, _)| place);
        for user in &users {
            let place = place.map_or(Path::new(USERS), PathBuf::as_path);
            self.tree.put(&place.join(user.to_string()), Content::Directory);
            ways.push(Path::new(USERS).join(user.to_string()));
        }
        let [named_users, groups] = accounts.named();
        users.extend(named_users.keys());
        let (primary, members) = accounts.memberships();
        let line = |uid| {
            let home = accounts.home(uid).unwrap_or_default();
            let group = primary.get(&uid).map(u32::to_string).unwrap_or_default();
            format!("{}:x:{uid}:{group}::{}:\n", accounts.user(uid), home.display())
        };
        let is_known = |uid: &u32| named_users.contains_key(uid) || accounts.home(*uid).is_some();
        self.put_list("/etc/passwd", users.into_iter().filter(is_known).map(line).collect());
        let line = |(gid, name)| {
            let members: Vec<_> = members.get(&gid).into_iter().flatten().cloned().collect();
            format!("{name}:x:{gid}:{}\n", members.join(","))
        };
        self.put_list("/etc/group", groups.into_iter().map(line).collect());
        ways.extend(["/etc/passwd", "/etc/group"].map(PathBuf::from));
        for path in ways {
            self.put_way(&path);
        }
    }

    /// Adds the architecture if the kernel of the running host does not show it.
    pub(super) fn put_arch(&mut self, arch: Option<String>) {
        let path = Path::new(recording::ARCH);
        if let Some(arch) = arch.filter(|_| !self.log.files.contains_key(path)) {
            self.tree.put(path, Content::File(arch.into_bytes()));
        }
    }

    /// Whether a path is read on every host.
    fn is_known(&self, path: &Path) -> bool {
        ["/sys", DATABASE].iter().any(|known| path.starts_with(known))
            || ["/dev", iommufd::NODE].iter().any(|known| path == Path::new(known))
            || is_path(self.report, path)
            || recording::is_mark(path)
    }

    /// Adds the links on a path, and the directories that it leaves again if nothing else is in
    /// them.
    fn put_way(&mut self, path: &Path) {
        let (links, passed) = self.log.way(path);
        for (link, target) in links {
            self.tree.put(link, Content::Link(target.to_owned()));
        }
        for directory in passed {
            if !self.tree.has_below(&directory) {
                self.tree.put(&directory, Content::Directory);
            }
        }
    }

    /// The users whose libvirt session has files to include.
    fn session_users(&self, accounts: &Accounts<'_>) -> BTreeSet<u32> {
        let has_files = |directory: &Path| {
            let files = self.log.files.keys().filter(|path| !self.left_out.contains(*path));
            let failed =
                self.failed().chain(self.report.claims.bad_definitions().map(|(path, _)| path));
            files.map(PathBuf::as_path).chain(failed).any(|path| path.starts_with(directory))
        };
        let names = self.log.listings.get(Path::new(USERS)).map(|(_, names)| names);
        let users = names.into_iter().flatten().filter_map(|name| decimal(name));
        let has_something = |user: &u32| {
            let home = accounts.home(*user).map(|home| home.join(".config/libvirt/qemu"));
            has_files(&Path::new(USERS).join(user.to_string()))
                || home.is_some_and(|home| has_files(&home))
        };
        users.filter(has_something).collect()
    }

    /// Paths that exist but could not be read.
    fn failed(&self) -> impl Iterator<Item = &Path> {
        // A file that is not a link is not an error.
        let failed = self.log.errors.iter();
        let failed = failed.filter(|((_, op), problem)| *op != Op::Link && !problem.is_absence());
        let failed = failed.map(|((path, _), _)| path);
        failed.filter(|path| !self.left_out.contains(*path)).map(PathBuf::as_path)
    }

    /// Adds a list that was reduced to some of its lines.
    fn put_list(&mut self, path: &str, text: String) {
        if !text.is_empty() {
            let place = self.log.files.get(Path::new(path)).map(|(place, _)| place.clone());
            let place = place.unwrap_or_else(|| path.into());
            self.tree.put(&place, Content::File(text.into_bytes()));
        }
    }

    /// Adds the holders and the evidence for them.
    pub(super) fn put_processes(&mut self) {
        let claims = &self.report.claims;
        let proc = Path::new("/proc");
        let is_unlisted = self.log.errors.contains_key(&(proc.to_owned(), Op::List));
        if claims.sight != Sight::Skipped && !self.report.regions().is_empty() && !is_unlisted {
            self.tree.put(proc, Content::Directory);
        }
        // In their order: the first mapping of a file identifies it. Mappings that were read
        // several times are included once.
        let mut maps: BTreeMap<u32, (Vec<u8>, BTreeSet<&[u8]>)> = BTreeMap::new();
        for evidence in &claims.search().evidence {
            let process = proc.join(evidence.pid.to_string());
            match &evidence.kind {
                EvidenceKind::Mapping { line, node } => {
                    let (text, lines) = maps.entry(evidence.pid).or_default();
                    if lines.insert(line) {
                        text.extend_from_slice(line);
                        text.push(b'\n');
                    }
                    if let Some((name, number)) = node {
                        let node = process.join("map_files").join(name);
                        self.tree.put(&node, Content::CharDevice(*number));
                    }
                }
                EvidenceKind::File { name, number, link } => {
                    let file = process.join("fd").join(name);
                    match (number, link) {
                        (Some(number), _) => self.tree.put(&file, Content::CharDevice(*number)),
                        (None, Some(link)) => self.tree.put(&file, Content::Link(link.clone())),
                        (None, None) => {}
                    }
                }
                EvidenceKind::DmaBuf { name, inode } => {
                    let link = Content::Link("/dmabuf:".into());
                    self.tree.put(&process.join("fd").join(name), link);
                    let info = format!("ino:\t{inode}\nexp_name:\tnvgrace_egm\n");
                    let info = Content::File(info.into_bytes());
                    self.tree.put(&process.join("fdinfo").join(name), info);
                }
            }
        }
        for (pid, (text, _)) in maps {
            self.tree.put(&proc.join(pid.to_string()).join("maps"), Content::File(text));
        }
        // Without a list of files, a process would count as one that could not be examined.
        let is_process = |path: &PathBuf| {
            path.file_name().and_then(OsStr::to_str).and_then(decimal::<u32>).is_some()
        };
        for process in self.tree.below(proc).into_iter().filter(is_process) {
            self.tree.put(&process.join("fd"), Content::Directory);
        }
    }

    /// Adds udev's names of the devices: libudev was queried on the running host, and a replay
    /// reads the database. Returns the errors for devices that udev did not know.
    pub(super) fn put_links(&mut self) -> BTreeMap<String, BTreeMap<Op, Problem>> {
        let mut errors = BTreeMap::new();
        let links = |region: &Region| region.device.number.zip(Some(region.device.links.clone()));
        let links: Vec<_> = self.report.host.regions.iter().filter_map(links).collect();
        if !self.root.may_ask_system() || links.iter().all(|(_, links)| links.is_none()) {
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

    /// The names in directories that are not completely in the tree.
    ///
    /// For directories that are not the kernel's, these are only names of files that could not be
    /// read: other names may be those of unrelated virtual machines and people.
    pub(super) fn names(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let children = self.tree.children();
        let bad = self.report.claims.bad_definitions().map(|(path, _)| path);
        let failed: BTreeSet<_> = self.failed().chain(bad).filter_map(Path::file_name).collect();
        let none = BTreeSet::new();
        let mut partial = BTreeMap::new();
        for (directory, names) in self.log.listings.values() {
            let children = children.get(directory.as_path()).unwrap_or(&none);
            let is_listed = |name: &&String| {
                directory.starts_with("/sys")
                    || children.contains(*name)
                    || failed.contains(OsStr::new(name.as_str()))
                    || *name == FILE_NAME
            };
            let names: BTreeSet<_> = names.iter().filter(is_listed).cloned().collect();
            if names != *children {
                partial.insert(directory.clone(), names);
            }
        }
        for directory in partial.keys() {
            self.tree.put(directory, Content::Directory);
        }
        let key = |directory: PathBuf| directory.to_string_lossy().into_owned();
        partial.into_iter().map(|(directory, names)| (key(directory), names)).collect()
    }

    pub(super) fn inodes(&self) -> BTreeMap<String, FileNumbers> {
        let is_device = |stat: &Stat| is_device(self.report, stat);
        let devices = self.log.stats.values().filter(|(_, stat)| is_device(stat));
        let inode = |(path, stat): &(PathBuf, Stat)| {
            let file = stat.file?;
            let (major, minor) = (file.device.major, file.device.minor);
            let inode = FileNumbers { major, minor, inode: file.inode };
            Some((path.to_string_lossy().into_owned(), inode))
        };
        devices.filter_map(inode).collect()
    }

    /// A second before the first active lease ends, or the end of the last lease: leases have the
    /// same state at that time.
    pub(super) fn moment(&self) -> Option<u64> {
        let now = Recorded::of(self.root).moment().0;
        let file = self.log.files.get(Path::new(LEASES));
        let leases = file.and_then(|(_, bytes)| leases::parse(bytes).ok()).unwrap_or_default();
        let ends: Vec<_> = leases.into_iter().map(|lease| lease.expires.0).collect();
        let next = ends.iter().filter(|end| **end > now).min().map(|end| end - 1);
        next.or_else(|| ends.into_iter().max())
    }

    pub(super) fn bad_definitions(&self) -> BTreeMap<String, Flaw> {
        let bad = self.report.claims.bad_definitions();
        bad.map(|(path, flaw)| (path.to_string_lossy().into_owned(), flaw)).collect()
    }

    /// Whether to record the error for a path. Types of files that are not regions are private, and
    /// so are the names of files that are no links.
    pub(super) fn is_reported(&self, path: &Path, op: Op) -> bool {
        let is_kernels = path.starts_with("/sys");
        !self.left_out.contains(path)
            && (op != Op::Stat || self.is_known(path))
            && (op != Op::Link || is_kernels)
    }
}

/// The content of a file of which only the type is known.
fn content_of(stat: &Stat) -> Content {
    match stat.kind {
        FileKind::Regular => Content::File(Vec::new()),
        FileKind::Directory => Content::Directory,
        FileKind::CharDevice(number) => Content::CharDevice(number),
        FileKind::Other => Content::Fifo,
    }
}
