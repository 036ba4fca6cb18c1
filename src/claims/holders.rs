//! The processes that hold regions: one pass over `/proc`.
//!
//! A process holds a region if it maps the device or has it open, recognised by the device's
//! number: a container's own node, a renamed one and a deleted one have it, too. A mapping
//! outlives the file descriptor, so both are looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::maps::Mapping;
use super::process::{self, Rest};
use super::proof::{Proof, Trace};
use super::ranges::Ranges;
use super::targets::Targets;
use crate::sysroot::{ReadError, Sysroot};
use crate::values::numbers::decimal;

/// More is not read of the mappings of one process. The kernel allows 65,530 of them by default,
/// each a line of about 100 bytes.
const MAPS_LIMIT: usize = 16 * 1024 * 1024;

/// Threads that are worth their start: reading `/proc` is the kernel's work, and processes are
/// read independently.
const THREADS: usize = 8;
const PROCESSES_A_THREAD: usize = 64;

/// How often the mappings of a process are read that change meanwhile.
const READS: u32 = 4;

/// How often new processes are looked for. Each time takes far less than the time before, in which
/// they were made.
const ROUNDS: u32 = 8;

/// A process that holds a region, by the index of the region among the targets.
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) target: usize,
    /// What it has mapped; nothing where it only has the device open.
    pub(super) ranges: Ranges,
}

/// What a pass over the processes found.
#[derive(Default)]
pub(super) struct Found {
    /// By process, then by region.
    pub(super) holders: Vec<Holder>,
    /// How many processes could not be looked at.
    pub(super) unread: usize,
    /// Every process that was listed.
    pub(super) pids: BTreeSet<u32>,
    /// Processes came and went faster than they could be looked at.
    pub(super) is_unsettled: bool,
    /// By what the holders were known, where that is to be kept; others are among them that have
    /// ended meanwhile.
    pub(super) proofs: Vec<Proof>,
    /// How many had ended when it was their turn.
    gone: usize,
}

/// Looks at every process. On the running host a process may hand what it holds to a child and
/// end before it is looked at: so new ones are looked for until there are none.
pub(super) fn find(root: &Sysroot, targets: &Targets) -> Result<Found, ReadError> {
    let mut found = Found::default();
    for round in 0..ROUNDS {
        let listed = list(root)?;
        let new: Vec<u32> = listed.difference(&found.pids).copied().collect();
        found.pids.extend(&new);
        if new.is_empty() {
            break;
        }
        let mut more = look_at_all(root, targets, &new);
        found.holders.append(&mut more.holders);
        found.proofs.append(&mut more.proofs);
        found.unread += more.unread;
        // One that ended without having been seen may have left a child.
        found.is_unsettled = round + 1 == ROUNDS && more.gone > 0;
        if !root.may_change() {
            break;
        }
    }
    found.holders.sort_by_key(|holder| (holder.pid, holder.target));
    if root.may_change() {
        drop_ended(root, &mut found.holders);
    }
    Ok(found)
}

/// Where several hold a region, those are left out that have ended by now: one may have handed
/// it to the other. The region is held all the same, whoever is left.
fn drop_ended(root: &Sysroot, holders: &mut Vec<Holder>) {
    let mut by_target: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for holder in &*holders {
        by_target.entry(holder.target).or_default().push(holder.pid);
    }
    by_target.retain(|_, pids| pids.len() > 1);
    for (target, pids) in by_target {
        let has_ended = |pid: &u32| {
            root.stat(format!("/proc/{pid}")).is_err() || process::rest(root, *pid) == Rest::Nothing
        };
        let mut ended: Vec<u32> = pids.iter().copied().filter(has_ended).collect();
        if ended.len() == pids.len() {
            ended.pop();
        }
        holders.retain(|holder| holder.target != target || !ended.contains(&holder.pid));
    }
}

fn list(root: &Sysroot) -> Result<BTreeSet<u32>, ReadError> {
    let pid = |name: &String| decimal(name).filter(|pid: &u32| pid.to_string() == *name);
    Ok(root.entries("/proc")?.iter().filter_map(pid).collect())
}

fn look_at_all(root: &Sysroot, targets: &Targets, pids: &[u32]) -> Found {
    let threads = match pids.len() / PROCESSES_A_THREAD {
        // How many there can be is worth asking only where there is work for them.
        0 => 1,
        enough => {
            thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(enough + 1)
        }
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut scanner = Scanner::new(root, targets);
        while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            scanner.look_at(*pid);
        }
        scanner.found.proofs = scanner.proofs.unwrap_or_default();
        scanner.found
    };
    thread::scope(|scope| {
        // A thread that cannot be had is no harm: the others do its work.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(mut more) => {
                    found.holders.append(&mut more.holders);
                    found.proofs.append(&mut more.proofs);
                    found.unread += more.unread;
                    found.gone += more.gone;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    })
}

struct Scanner<'a> {
    root: &'a Sysroot,
    targets: &'a Targets,
    /// The targets that have nothing but a name to be known by, if there are any.
    unnumbered: Option<Targets>,
    /// Which files are regions: most mappings of most processes are of the same few libraries.
    known: HashMap<Box<[u8]>, Option<usize>>,
    buffer: Vec<u8>,
    /// Whether something of the process at hand could not be looked at.
    is_refused: bool,
    /// Whether it has no mappings, as only the kernel's threads and what has ended.
    is_empty: bool,
    /// Whether its mappings changed while they were read.
    is_changed: bool,
    pid: u32,
    /// By what holders were known, where that is kept.
    proofs: Option<Vec<Proof>>,
    found: Found,
}

/// What is held, by region: nothing mapped, where it is only open.
type Held = BTreeMap<usize, Vec<(u64, u64)>>;

impl<'a> Scanner<'a> {
    fn new(root: &'a Sysroot, targets: &'a Targets) -> Self {
        let (known, buffer, found) = Default::default();
        let unnumbered = targets.without_number();
        let (is_refused, is_empty, is_changed) = (false, false, false);
        let (pid, proofs) = (0, root.log().map(|_| Vec::new()));
        Self {
            root,
            targets,
            unnumbered,
            known,
            buffer,
            is_refused,
            is_empty,
            is_changed,
            pid,
            proofs,
            found,
        }
    }

    fn look_at(&mut self, pid: u32) {
        let mut held = Held::new();
        self.pid = pid;
        self.is_refused = false;
        let process = format!("/proc/{pid}");
        let is_there = self.look_at_task(&process, &process, &mut held);
        let is_plain = !self.is_refused && !self.is_empty;
        let rest = if is_plain { Rest::Whole } else { process::rest(self.root, pid) };
        if rest == Rest::Threads {
            // The first thread has ended, and what it had is the other threads'.
            let tasks = format!("{process}/task");
            for thread in self.root.entries(&tasks).unwrap_or_default() {
                let links = format!("/proc/{thread}");
                self.look_at_task(&format!("{tasks}/{thread}"), &links, &mut held);
            }
        }
        if !is_there || rest == Rest::Nothing {
            self.found.gone += 1;
        }
        if self.is_refused && rest != Rest::Nothing {
            self.found.unread += 1;
        }
        let holder = |(target, parts): (usize, Vec<(u64, u64)>)| Holder {
            pid,
            target,
            ranges: parts.into_iter().collect(),
        };
        self.found.holders.extend(held.into_iter().map(holder));
    }

    /// Looks at the files of a process or thread, then at its mappings: a file that is opened,
    /// mapped and closed meanwhile is in the second. Gives whether it is there at all.
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
            // Recorded without what a holder is known by; nothing at all is a process that went
            // while it was recorded.
            self.is_refused |= self.root.entries(task).is_ok_and(|names| !names.is_empty());
        }
        for error in [files, maps].into_iter().filter_map(Result::err) {
            self.note(&error);
        }
        is_there
    }

    /// What is gone has nothing to show; what is refused may hide a holder.
    fn note(&mut self, error: &ReadError) {
        self.is_refused |= !error.is_gone();
    }

    fn look_at_maps(&mut self, task: &str, links: &str, held: &mut Held) -> Result<(), ReadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.root.read_into(format!("{task}/maps"), MAPS_LIMIT, &mut buffer);
        self.is_empty = buffer.is_empty();
        if result.is_ok() {
            let mut last: (&[u8], Option<usize>) = (b"", None);
            for line in Lines(&buffer) {
                let Some(mapping) = Mapping::parse(line) else { continue };
                let mut is_seen = false;
                if mapping.identity != last.0 {
                    let (target, is_sure) = self.target_of(links, &mapping);
                    last = (if is_sure { mapping.identity } else { b"" }, target);
                    is_seen = is_sure;
                }
                if let Some(target) = last.1 {
                    let length = mapping.length().unwrap_or(0);
                    held.entry(target).or_default().push((mapping.offset, length));
                    if self.proofs.is_some() {
                        let name = mapping.name().filter(|_| is_seen);
                        let number = self.targets.number(target);
                        let line = line.to_owned();
                        self.keep(target, Trace::Mapping { line, node: name.zip(number) });
                    }
                }
            }
        }
        self.buffer = buffer;
        result
    }

    /// The region that a mapping is of, and whether that holds for every mapping of the file.
    fn target_of(&mut self, links: &str, mapping: &Mapping<'_>) -> (Option<usize>, bool) {
        if let Some(known) = self.known.get(mapping.identity) {
            return (*known, true);
        }
        let Some(name) = mapping.name() else { return (None, false) };
        let by_name = |targets: &Targets| {
            targets.by_file(mapping.file).or_else(|| targets.by_path(mapping.path))
        };
        match self.root.stat_cached(format!("{links}/map_files/{name}")) {
            Ok(stat) => {
                // A region whose number is not known has its name and inode.
                let target = self.targets.by_stat(&stat);
                let target = target.or_else(|| self.unnumbered.as_ref().and_then(by_name));
                self.known.insert(mapping.identity.into(), target);
                (target, true)
            }
            // Refused to all but root, not in most captures, or changed since it was listed: then
            // the node's inode and name are what is left to go by.
            Err(error) => {
                self.is_changed |= error.is_gone() && self.root.may_change();
                self.note(&error);
                (by_name(self.targets), false)
            }
        }
    }

    fn keep(&mut self, target: usize, trace: Trace) {
        let proof = Proof { pid: self.pid, target, trace };
        self.proofs.get_or_insert_default().push(proof);
    }

    fn look_at_files(&mut self, task: &str, held: &mut Held) -> Result<(), ReadError> {
        let folder = format!("{task}/fd");
        for file in self.root.entries(&folder)? {
            let by_link = |targets: &Targets| {
                let target = self.root.read_link(format!("{folder}/{file}")).ok()?;
                targets.by_path(target.as_os_str().as_bytes())
            };
            let mut number = None;
            let target = match self.root.stat_cached(format!("{folder}/{file}")) {
                Ok(stat) => match self.targets.by_stat(&stat) {
                    Some(target) => {
                        number = self.targets.number(target);
                        Some(target)
                    }
                    // In a capture the node itself may be missing or something else.
                    None if !self.root.may_ask_system() => by_link(self.targets),
                    None => self.unnumbered.as_ref().and_then(by_link),
                },
                // It leads nowhere in a capture without the node; or it was closed meanwhile.
                Err(error) => {
                    let target = by_link(self.targets);
                    self.note(&error);
                    target
                }
            };
            if let Some(target) = target
                && !process::is_only_a_path(self.root, &format!("{task}/fdinfo/{file}"))
            {
                held.entry(target).or_default();
                if self.proofs.is_some() {
                    let link = self.root.read_link(format!("{folder}/{file}")).ok();
                    self.keep(target, Trace::File { name: file, number, link });
                }
            }
        }
        Ok(())
    }
}

/// The lines of a text, without an allocation for any of them.
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
