//! The processes that hold regions: one pass over `/proc`.
//!
//! A process holds a region if it maps the device or has it open. The device is recognised by its
//! number, which a container's own node, a renamed node and a deleted node have as well. A mapping
//! outlives the file descriptor, so both are examined. Both outlive the region, which is recognised
//! by the name of its node then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::process::{self, Rest};
use super::scanner::{Depth, Found, Holder, Scanner};
use super::targets::Targets;
use crate::sysroot::{ReadError, Sysroot};
use crate::values::RegionName;
use crate::values::numbers::decimal;

/// Number of threads, and of processes that are worth another thread: the kernel does most of the
/// work, and processes are read independently.
const THREADS: usize = 8;
const PROCESSES_A_THREAD: usize = 64;

/// How often new processes are searched for. Each round takes far less time than the previous one,
/// during which they were created.
const ROUNDS: u32 = 8;

/// Examines all processes. On the running host, a process may pass a region to a child and exit
/// before it is examined, so new processes are searched for until there are none.
pub(super) fn find(root: &Sysroot, targets: &Targets, depth: Depth) -> Result<Found, ReadError> {
    let mut found = Found::default();
    for round in 0..ROUNDS {
        let listed = list(root)?;
        let new: Vec<u32> = listed.difference(&found.pids).copied().collect();
        found.pids.extend(&new);
        if new.is_empty() {
            break;
        }
        let mut more = look_at_all(root, targets, depth, &new);
        found.merge(&mut more);
        // A process that exited before it was examined may have left a child.
        found.is_unsettled = round + 1 == ROUNDS && more.gone > 0;
        if !root.may_change() {
            break;
        }
    }
    found.holders.sort_by(|a, b| (a.pid, &a.region).cmp(&(b.pid, &b.region)));
    if root.may_change() {
        drop_ended(root, &mut found.holders);
    }
    Ok(found)
}

/// If several processes hold a region, removes those that have exited by now: one may have passed
/// it to another. At least one is kept, because the region is held.
fn drop_ended(root: &Sysroot, holders: &mut Vec<Holder>) {
    let mut by_region: BTreeMap<RegionName, Vec<u32>> = BTreeMap::new();
    for holder in &*holders {
        by_region.entry(holder.region.clone()).or_default().push(holder.pid);
    }
    by_region.retain(|_, pids| pids.len() > 1);
    for (region, pids) in by_region {
        let has_ended = |pid: &u32| {
            root.stat(format!("/proc/{pid}")).is_err() || process::rest(root, *pid) == Rest::Nothing
        };
        let mut ended: Vec<u32> = pids.iter().copied().filter(has_ended).collect();
        if ended.len() == pids.len() {
            ended.pop();
        }
        holders.retain(|holder| holder.region != region || !ended.contains(&holder.pid));
    }
}

/// All processes, without this one on the running host.
pub(crate) fn list(root: &Sysroot) -> Result<BTreeSet<u32>, ReadError> {
    let pid = |name: &String| decimal(name).filter(|pid: &u32| pid.to_string() == *name);
    let own = root.may_ask_system().then(std::process::id);
    let is_other = |pid: &u32| Some(*pid) != own;
    Ok(root.entries("/proc")?.iter().filter_map(pid).filter(is_other).collect())
}

fn look_at_all(root: &Sysroot, targets: &Targets, depth: Depth, pids: &[u32]) -> Found {
    let threads = match pids.len() / PROCESSES_A_THREAD {
        // Checking the available parallelism is worthwhile only with enough processes.
        0 => 1,
        enough => {
            thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(enough + 1)
        }
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut scanner = Scanner::new(root, targets, depth);
        while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            scanner.look_at(*pid);
        }
        scanner.finish()
    };
    thread::scope(|scope| {
        // If a thread cannot be started, the others do its work.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(mut more) => found.merge(&mut more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    })
}
