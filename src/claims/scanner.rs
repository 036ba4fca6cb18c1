//! The regions that one process holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;

use super::Via;
use super::evidence::{Evidence, EvidenceKind};
use super::maps::{BadLine, Mapping};
use super::process::{self, Rest};
use super::queries::{Queries, Refused};
use super::ranges::Ranges;
use super::targets::Targets;
use crate::sysroot::{ReadError, Sysroot};
use crate::values::RegionName;
use crate::values::numbers::decimal;

/// Maximum size of the mappings of one process. The kernel allows 65,530 of them by default, each a
/// line of about 100 bytes.
const MAPS_LIMIT: usize = 16 * 1024 * 1024;

/// How often the mappings of a process are read if they change in the meantime.
const READS: u32 = 4;

/// A process that holds a region.
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) region: RegionName,
    pub(super) via: Via,
    /// The mapped parts; empty if it only has the device open.
    pub(super) ranges: Ranges,
}

/// The result of one pass over the processes.
#[derive(Default)]
pub(super) struct Found {
    /// By process, then by region.
    pub(super) holders: Vec<Holder>,
    /// The processes that could not be examined.
    pub(super) unread: BTreeSet<u32>,
    /// The inodes of the driver's dma-bufs.
    pub(super) dma_bufs: BTreeSet<u64>,
    /// The processes that have one of an unknown region.
    pub(super) with_foreign_dma_buf: BTreeSet<u32>,
    /// All processes that were listed.
    pub(super) pids: BTreeSet<u32>,
    /// Whether processes started and exited faster than they could be examined.
    pub(super) is_unsettled: bool,
    /// Evidence for the holders, if the host is being recorded; some of them may have exited in the
    /// meantime.
    pub(super) evidence: Vec<Evidence>,
    /// The number of processes that exited before they were examined.
    pub(super) gone: usize,
}

/// Where to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The files of processes, and those mappings that a guest's memory can be: shared or writable
    /// ones. Enough if they explain the files that the driver has open.
    Counted,
    /// The files and mappings of processes.
    Processes,
    /// Also file tables that a thread has for itself, and dma-bufs of the driver. Needed only if the
    /// driver has more files open than were found.
    Threads,
}

impl Found {
    pub(super) fn merge(&mut self, more: &mut Self) {
        self.holders.append(&mut more.holders);
        self.evidence.append(&mut more.evidence);
        self.gone += more.gone;
        self.unread.append(&mut more.unread);
        self.dma_bufs.append(&mut more.dma_bufs);
        self.with_foreign_dma_buf.append(&mut more.with_foreign_dma_buf);
    }
}

/// Examines one process after another, and collects what they hold.
pub(super) struct Scanner<'a> {
    root: &'a Sysroot,
    targets: &'a Targets,
    depth: Depth,
    /// The targets that can only be recognised by name, if there are any.
    unnumbered: Option<Targets>,
    /// Files that are known to be regions or not: most mappings are of the same few libraries.
    known: HashMap<Box<[u8]>, Option<RegionName>>,
    /// `None` if all mappings are to be read.
    queries: Option<Queries<'a>>,
    buffer: Vec<u8>,
    /// Whether part of the current process could not be examined.
    is_refused: bool,
    /// Whether it has no mappings, like kernel threads and exited processes.
    is_empty: bool,
    /// Whether its mappings changed while they were read.
    is_changed: bool,
    pid: u32,
    /// Evidence for holders, if it is recorded.
    evidence: Option<Vec<Evidence>>,
    found: Found,
}

/// The mapped parts by region; empty if it is only open.
type Held = BTreeMap<RegionName, HeldRegion>;

#[derive(Default)]
struct HeldRegion {
    via: Via,
    mappings: Vec<(u64, u64)>,
}

impl HeldRegion {
    fn add(&mut self, via: Via) -> &mut Self {
        self.via = self.via.max(via);
        self
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(root: &'a Sysroot, targets: &'a Targets, depth: Depth) -> Self {
        let (known, buffer, found) = Default::default();
        let unnumbered = targets.without_number();
        let may_query = depth == Depth::Counted && unnumbered.is_none() && root.log().is_none();
        let queries = may_query.then(|| Queries::new(root, targets));
        let (is_refused, is_empty, is_changed) = (false, false, false);
        let (pid, evidence) = (0, root.log().map(|_| Vec::new()));
        Self {
            root,
            targets,
            depth,
            unnumbered,
            known,
            queries,
            buffer,
            is_refused,
            is_empty,
            is_changed,
            pid,
            evidence,
            found,
        }
    }

    pub(super) fn finish(self) -> Found {
        Found { evidence: self.evidence.unwrap_or_default(), ..self.found }
    }

    pub(super) fn look_at(&mut self, pid: u32) {
        let mut held = Held::new();
        self.pid = pid;
        self.is_refused = false;
        let process = format!("/proc/{pid}");
        let is_there = self.look_at_task(&process, &process, &mut held);
        let is_plain = !self.is_refused && !self.is_empty;
        let rest = if is_plain { Rest::Whole } else { process::rest(self.root, pid) };
        if rest == Rest::Threads {
            // The first thread has exited, and the other threads still have its files.
            let tasks = format!("{process}/task");
            for thread in self.root.entries(&tasks).unwrap_or_default() {
                let links = format!("/proc/{thread}");
                self.look_at_task(&format!("{tasks}/{thread}"), &links, &mut held);
            }
        } else if self.depth == Depth::Threads && rest == Rest::Whole {
            self.look_at_threads(&process, &mut held);
        }
        if !is_there || rest == Rest::Nothing {
            self.found.gone += 1;
        }
        if self.is_refused && rest != Rest::Nothing {
            self.found.unread.insert(pid);
        }
        let holder = |(region, held): (RegionName, HeldRegion)| {
            let ranges = self.targets.ranges(&region, held.mappings);
            Holder { pid, region, via: held.via, ranges }
        };
        self.found.holders.extend(held.into_iter().map(holder));
    }

    /// Examines the file tables of further threads, and dma-bufs. The region of a dma-buf is known
    /// only if its process holds no other region.
    fn look_at_threads(&mut self, process: &str, held: &mut Held) {
        let mut dma_bufs = self.find_dma_bufs(process);
        let tasks = format!("{process}/task");
        for thread in self.root.entries(&tasks).unwrap_or_default() {
            let task = format!("{tasks}/{thread}");
            if process.rsplit('/').next() == Some(&thread) {
                continue;
            }
            if let Err(error) = self.look_at_files(&task, held) {
                self.note(&error);
            }
            dma_bufs.extend(self.find_dma_bufs(&task));
        }
        if dma_bufs.is_empty() {
            return;
        }
        self.found.dma_bufs.extend(dma_bufs);
        let mut regions = held.values_mut();
        match (regions.next(), regions.next()) {
            (Some(region), None) => {
                region.add(Via::DmaBuf);
            }
            _ => _ = self.found.with_foreign_dma_buf.insert(self.pid),
        }
    }

    /// The inodes of the driver's dma-bufs that a task has open.
    fn find_dma_bufs(&mut self, task: &str) -> BTreeSet<u64> {
        let mut inodes = BTreeSet::new();
        for file in self.root.entries(format!("{task}/fd")).unwrap_or_default() {
            let link = self.root.read_link(format!("{task}/fd/{file}"));
            if !link.is_ok_and(|link| link.as_os_str().as_bytes().starts_with(b"/dmabuf:")) {
                continue;
            }
            let Ok(info) = self.root.read_text(format!("{task}/fdinfo/{file}")) else { continue };
            let value = |name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            };
            if value("exp_name").is_some_and(|name| name.trim().starts_with("nvgrace_egm")) {
                let Some(inode) = value("ino").and_then(|it| decimal::<u64>(it.trim())) else {
                    continue;
                };
                inodes.insert(inode);
                if self.evidence.is_some() {
                    self.keep(None, EvidenceKind::DmaBuf { name: file, inode });
                }
            }
        }
        inodes
    }

    /// Examines the files of a process or thread, then its mappings: a file that is opened, mapped
    /// and closed in the meantime is found in the mappings. Returns whether the task exists.
    fn look_at_task(&mut self, task: &str, links: &str, held: &mut Held) -> bool {
        let files = self.look_at_files(task, held);
        let mut maps = Ok(());
        for _ in 0..READS {
            self.is_changed = false;
            maps = self.look_at_maps(task, links, held);
            if !self.is_changed {
                break;
            }
        }
        self.is_refused |= self.is_changed && maps.is_ok();
        let is_gone =
            |result: &Result<(), ReadError>| result.as_ref().is_err_and(ReadError::is_gone);
        let is_there = !is_gone(&files) || !is_gone(&maps);
        if !is_there && !self.root.may_change() {
            // It was recorded without its files and mappings; without any file, it exited while it
            // was recorded.
            self.is_refused |= self.root.entries(task).is_ok_and(|names| !names.is_empty());
        }
        for error in [files, maps].into_iter().filter_map(Result::err) {
            self.note(&error);
        }
        is_there
    }

    /// A process that is gone holds nothing; one that cannot be read might.
    fn note(&mut self, error: &ReadError) {
        self.is_refused |= !error.is_gone();
    }

    /// Whether queries tell that the task maps no region.
    fn maps_no_region(&mut self, task: &str, links: &str) -> bool {
        let Some(queries) = &mut self.queries else { return false };
        queries.find_none(task, links).unwrap_or_else(|Refused| {
            self.queries = None;
            false
        })
    }

    fn look_at_maps(&mut self, task: &str, links: &str, held: &mut Held) -> Result<(), ReadError> {
        if held.is_empty() && self.maps_no_region(task, links) {
            self.is_empty = false;
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.root.read_into(format!("{task}/maps"), MAPS_LIMIT, &mut buffer);
        self.is_empty = buffer.is_empty();
        if result.is_ok() {
            let mut last: (&[u8], Option<RegionName>) = (b"", None);
            for line in Lines(&buffer) {
                let mapping = match Mapping::parse(line) {
                    Ok(Some(mapping)) => mapping,
                    Ok(None) => continue,
                    // No kernel writes it: it may be anything.
                    Err(BadLine) => {
                        self.is_refused = true;
                        continue;
                    }
                };
                let mut is_seen = false;
                if mapping.identity != last.0 {
                    let (region, is_sure) = self.region_of(links, &mapping);
                    last = (if is_sure { mapping.identity } else { b"" }, region);
                    is_seen = is_sure;
                }
                if let Some(name) = &last.1 {
                    let region = held.entry(name.clone()).or_default();
                    if mapping.is_private {
                        // A copy of what is written; its offset is a physical address.
                        region.add(Via::Private);
                    } else {
                        let length = mapping.length().unwrap_or(0);
                        region.add(Via::Shared).mappings.push((mapping.offset, length));
                    }
                    if self.evidence.is_some() {
                        let node = mapping.name().filter(|_| is_seen);
                        let node = node.zip(self.targets.number(name));
                        let line = line.to_owned();
                        self.keep(Some(name.clone()), EvidenceKind::Mapping { line, node });
                    }
                }
            }
        }
        self.buffer = buffer;
        result
    }

    /// The region of a mapping, and whether the result is valid for every mapping of the file.
    fn region_of(&mut self, links: &str, mapping: &Mapping<'_>) -> (Option<RegionName>, bool) {
        if let Some(known) = self.known.get(mapping.identity) {
            return (known.clone(), true);
        }
        let Some(name) = mapping.name() else { return (None, false) };
        match self.root.stat_cached(format!("{links}/map_files/{name}")) {
            Ok(stat) => {
                // A region with an unknown number is recognised by name and inode.
                let region = self.targets.by_stat(&stat);
                let region = region.or_else(|| {
                    self.unnumbered
                        .as_ref()
                        .and_then(|it| it.by_mapping(mapping.file, mapping.path))
                });
                let region = region.cloned().or_else(|| {
                    let may_be = self.targets.may_be_removed(&stat);
                    may_be.then(|| self.targets.removed(mapping.path)).flatten()
                });
                self.known.insert(mapping.identity.into(), region.clone());
                (region, true)
            }
            // Denied to all users except root, missing in most captures, or changed since it was
            // listed: only the node's inode and name are left.
            Err(error) => {
                self.is_changed |= error.is_gone() && self.root.may_change();
                self.note(&error);
                let region = self.targets.by_mapping(mapping.file, mapping.path).cloned();
                (region.or_else(|| self.targets.removed(mapping.path)), false)
            }
        }
    }

    fn keep(&mut self, region: Option<RegionName>, kind: EvidenceKind) {
        let evidence = Evidence { pid: self.pid, region, kind };
        self.evidence.get_or_insert_default().push(evidence);
    }

    fn look_at_files(&mut self, task: &str, held: &mut Held) -> Result<(), ReadError> {
        let folder = format!("{task}/fd");
        for (file, stat) in self.root.entries_and_stats(folder.as_ref())? {
            let by_link = |targets: Option<&Targets>, may_be_removed: bool| {
                let link = self.root.read_link(format!("{folder}/{file}")).ok()?;
                let path = link.as_os_str().as_bytes();
                let region = targets.and_then(|targets| targets.by_path(path)).cloned();
                let removed = || may_be_removed.then(|| self.targets.removed(path)).flatten();
                region.or_else(removed)
            };
            let mut number = None;
            let region = match stat {
                Ok(stat) => match self.targets.by_stat(&stat) {
                    Some(region) => {
                        number = self.targets.number(region);
                        Some(region.clone())
                    }
                    // In a capture the node may be missing or be another file.
                    None if !self.root.may_ask_system() => by_link(Some(self.targets), false),
                    None => {
                        let may_be_removed = self.targets.may_be_removed(&stat);
                        let is_link_needed = may_be_removed || self.unnumbered.is_some();
                        is_link_needed
                            .then(|| by_link(self.unnumbered.as_ref(), may_be_removed))
                            .flatten()
                    }
                },
                // It leads nowhere in a capture without the node, or was closed in the meantime.
                Err(error) => {
                    let region = by_link(Some(self.targets), true);
                    self.note(&error);
                    region
                }
            };
            if let Some(region) = region
                && !process::is_only_a_path(self.root, &format!("{task}/fdinfo/{file}"))
            {
                held.entry(region.clone()).or_default();
                if self.evidence.is_some() {
                    let link = self.root.read_link(format!("{folder}/{file}")).ok();
                    self.keep(Some(region), EvidenceKind::File { name: file, number, link });
                }
            }
        }
        Ok(())
    }
}

/// The lines of a text, without allocations.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.0).unwrap_or(self.0.len());
        let line = self.0.get(..end)?;
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        Some(line)
    }
}
