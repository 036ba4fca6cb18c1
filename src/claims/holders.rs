//! The processes that hold regions: one pass over `/proc`.
//!
//! A process holds a region if it maps the device or has it open, recognised by the device's
//! number: a container's own node, a renamed one and a deleted one have it, too. A mapping
//! outlives the file descriptor, so both are looked at.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::maps::Mapping;
use super::process::holds_nothing;
use super::ranges::Ranges;
use super::targets::Targets;
use crate::sysroot::{ReadError, Sysroot};

/// More is not read of the mappings of one process. The kernel allows 65,530 of them by default,
/// each a line of about 100 bytes.
const MAPS_LIMIT: usize = 64 * 1024 * 1024;

/// Threads that are worth their start: reading `/proc` is the kernel's work, and processes are
/// read independently.
const THREADS: usize = 8;
const PROCESSES_A_THREAD: usize = 64;

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
}

/// Looks at these processes.
pub(super) fn find(root: &Sysroot, targets: &Targets, pids: &[u32]) -> Found {
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
        scanner.found
    };
    let mut found = thread::scope(|scope| {
        // A thread that cannot be had is no harm: the others do its work.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(mut more) => {
                    found.holders.append(&mut more.holders);
                    found.unread += more.unread;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    found.holders.sort_by_key(|holder| (holder.pid, holder.target));
    found
}

struct Scanner<'a> {
    root: &'a Sysroot,
    targets: &'a Targets,
    /// Which files are regions, by device and inode as maps writes them: most mappings of most
    /// processes are of the same few libraries.
    known: HashMap<Box<[u8]>, Option<usize>>,
    buffer: Vec<u8>,
    /// Whether something of the process at hand could not be looked at.
    is_refused: bool,
    found: Found,
}

impl<'a> Scanner<'a> {
    fn new(root: &'a Sysroot, targets: &'a Targets) -> Self {
        let (known, buffer, found) = Default::default();
        Self { root, targets, known, buffer, is_refused: false, found }
    }

    fn look_at(&mut self, pid: u32) {
        let mut held: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
        self.is_refused = false;
        let maps = self.look_at_maps(pid, &mut held);
        let files = self.look_at_files(pid, &mut held);
        for error in [maps, files].into_iter().filter_map(Result::err) {
            self.note(&error);
        }
        if self.is_refused && !holds_nothing(self.root, pid) {
            self.found.unread += 1;
        }
        let holder = |(target, parts): (usize, Vec<(u64, u64)>)| Holder {
            pid,
            target,
            ranges: parts.into_iter().collect(),
        };
        self.found.holders.extend(held.into_iter().map(holder));
    }

    /// What is gone has nothing to show; what is refused may hide a holder.
    fn note(&mut self, error: &ReadError) {
        self.is_refused |= !error.is_gone();
    }

    fn look_at_maps(
        &mut self,
        pid: u32,
        held: &mut BTreeMap<usize, Vec<(u64, u64)>>,
    ) -> Result<(), ReadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.root.read_into(format!("/proc/{pid}/maps"), MAPS_LIMIT, &mut buffer);
        if result.is_ok() {
            let mut last: (&[u8], Option<usize>) = (b"", None);
            for line in Lines(&buffer) {
                let Some(mapping) = Mapping::parse(line) else { continue };
                if mapping.file != last.0 {
                    last = (mapping.file, self.target_of(pid, &mapping));
                }
                if let Some(target) = last.1 {
                    let length = mapping.length().unwrap_or(0);
                    held.entry(target).or_default().push((mapping.offset, length));
                }
            }
        }
        self.buffer = buffer;
        result
    }

    /// The region that a mapping is of.
    fn target_of(&mut self, pid: u32, mapping: &Mapping<'_>) -> Option<usize> {
        if let Some(known) = self.known.get(mapping.file) {
            return *known;
        }
        let link = format!("/proc/{pid}/map_files/{}", mapping.name()?);
        let stat = self.root.stat_cached(link);
        let target = match &stat {
            Ok(stat) => self.targets.by_stat(stat),
            // Refused to all but root, not in most captures, or changed since it was listed: then
            // the node's inode and name are what is left to go by.
            Err(error) => {
                self.note(error);
                let by_file = self.targets.by_file(mapping.file);
                by_file.or_else(|| self.targets.by_path(mapping.path))
            }
        };
        // What was only guessed at may be told by another process.
        if stat.is_ok() || !self.root.is_host() {
            self.known.insert(mapping.file.into(), target);
        }
        target
    }

    fn look_at_files(
        &mut self,
        pid: u32,
        held: &mut BTreeMap<usize, Vec<(u64, u64)>>,
    ) -> Result<(), ReadError> {
        let folder = format!("/proc/{pid}/fd");
        for file in self.root.entries(&folder)? {
            let path = format!("{folder}/{file}");
            let target = match self.root.stat_cached(&path) {
                Ok(stat) => self.targets.by_stat(&stat),
                // It leads nowhere in a capture without the node; or it was closed meanwhile.
                Err(error) => {
                    self.note(&error);
                    let target = self.root.read_link(&path).ok();
                    target.and_then(|target| self.targets.by_path(target.as_os_str().as_bytes()))
                }
            };
            if let Some(target) = target {
                held.entry(target).or_default();
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
