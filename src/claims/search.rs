//! The search for the processes that hold regions, and how complete it was.
//!
//! The driver's count of open files decides that; without it, the processes that could not be
//! examined do.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Evidence;
use super::holders;
use super::open_files::OpenCount;
use super::process::{self, Users};
use super::scanner::{Depth, Found, Holder};
use super::targets::Targets;
use super::unseen::{Hidden, Unseen};
use super::{ProcessClaim, Ranges, Sight, sharing};
use crate::host::{Accounts, has_pid_namespace};
use crate::sysroot::{ReadError, Sysroot};
use crate::values::RegionName;
use crate::warning::Warning;

/// How often processes are searched while the driver's count changes.
const SEARCHES: usize = 4;

/// The result of a search.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// The processes that hold regions.
    pub(super) holders: Vec<Described>,
    pub(super) sight: Sight,
    pub(super) warnings: Vec<Warning>,
    /// The number of open files, if it is known.
    pub(super) open_files: Option<u64>,
    /// Whether it is known which holders of a region share its memory.
    pub(crate) is_sharing_known: bool,
    /// Processes that could not be examined.
    pub(crate) unseen: Unseen,
    /// Evidence for the holders, if the host is being recorded.
    pub(crate) evidence: Vec<Evidence>,
    /// The devices that were searched for.
    targets: Targets,
    count: OpenCount,
}

/// A process that holds a region.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) region: RegionName,
    /// Whether it runs a guest.
    pub(super) is_guest: bool,
    /// Its machine in systemd-machined: ID and name.
    machine: Option<(String, String)>,
    pub(super) claim: ProcessClaim,
}

impl Search {
    pub(super) fn run(
        root: &Sysroot,
        targets: Targets,
        accounts: &Accounts<'_>,
        users: &mut Users<'_>,
        seen_before: &Unseen,
    ) -> Self {
        let mut search = Self { count: OpenCount::read(root), targets, ..Self::default() };
        if search.count.files(0) == Some(0) {
            search.open_files = Some(0);
            search.sight = Sight::Complete;
        } else if let Err(error) = search.find(root, accounts, users, seen_before)
            && !error.is_absent()
        {
            search.warnings.push(Warning::unreadable(&error));
            search.sight = Sight::Partial;
        }
        search
    }

    /// Whether another search for these devices would find the same.
    pub(super) fn is_final(&self, root: &Sysroot, targets: &Targets) -> bool {
        self.sight == Sight::Complete
            && self.targets == *targets
            && matches!(self.count, OpenCount::References(_))
            && OpenCount::read(root) == self.count
            && self.holders_exist(root)
    }

    /// Whether all holders still exist.
    pub(crate) fn holders_exist(&self, root: &Sysroot) -> bool {
        let is_there =
            |holder: &Described| root.stat(format!("/proc/{}", holder.claim.pid)).is_ok();
        self.holders.iter().all(is_there)
    }

    /// Whether the driver counts its open files.
    #[cfg(feature = "cli")]
    pub(crate) fn has_count(&self) -> bool {
        self.count != OpenCount::Absent
    }

    fn find(
        &mut self,
        root: &Sysroot,
        accounts: &Accounts<'_>,
        users: &mut Users<'_>,
        seen_before: &Unseen,
    ) -> Result<(), ReadError> {
        let mut depth = match self.count {
            OpenCount::Absent => Depth::Processes,
            _ => Depth::Counted,
        };
        let mut is_stable = false;
        let mut found = Found::default();
        for _ in 0..SEARCHES {
            found = holders::find(root, &self.targets, depth)?;
            self.holders = describe(root, std::mem::take(&mut found.holders), accounts, users);
            let before = std::mem::replace(&mut self.count, OpenCount::read(root));
            is_stable = self.count == before;
            let open = self.count.files(found.dma_bufs.len());
            let is_explained = open.is_some_and(|open| open <= explained(&self.holders));
            let is_deep = depth == Depth::Threads || self.count == OpenCount::Absent;
            if is_stable && (is_explained || is_deep) {
                break;
            }
            if is_stable {
                depth = Depth::Threads;
            }
        }
        self.unseen = Unseen {
            unread: found.unread.union(&seen_before.unread).copied().collect(),
            hidden: seen_before.hidden.or_else(|| hidden_processes(root, &found.pids)),
            unsettled: found.is_unsettled || seen_before.unsettled,
        };
        self.open_files = self.count.files(found.dma_bufs.len());
        let unexplained = match (self.count, self.open_files) {
            (OpenCount::Absent, _) => None,
            (_, None) => Some(Warning::OpenCountUnclear),
            (_, Some(open)) => {
                let explained = explained(&self.holders);
                let pids: Vec<_> = found.with_foreign_dma_buf.iter().copied().collect();
                if open > explained {
                    Some(Warning::OpenFilesUnexplained { open, explained })
                } else if !pids.is_empty() {
                    Some(Warning::DmaBufsUnexplained { pids })
                } else {
                    (!is_stable).then_some(Warning::ProcessesUnsettled)
                }
            }
        };
        let is_complete = match self.count {
            OpenCount::Absent => self.unseen == Unseen::default(),
            _ => unexplained.is_none(),
        };
        self.sight = if is_complete { Sight::Complete } else { Sight::Partial };
        self.is_sharing_known = self.count == OpenCount::Absent || is_complete;
        if !is_complete {
            self.warnings.extend(unexplained);
            self.warnings.extend(warnings_of(&self.unseen));
        }
        let holds: BTreeSet<_> =
            self.holders.iter().map(|holder| (holder.claim.pid, &holder.region)).collect();
        self.evidence = found.evidence;
        self.evidence.retain(|Evidence { pid, region, .. }| {
            region.as_ref().is_none_or(|region| holds.contains(&(*pid, region)))
        });
        Ok(())
    }
}

/// Describes the holders, which are sorted by process: one that holds several regions is described
/// only once.
fn describe(
    root: &Sysroot,
    holders: Vec<Holder>,
    accounts: &Accounts<'_>,
    users: &mut Users<'_>,
) -> Vec<Described> {
    let mut described: Vec<Described> = Vec::with_capacity(holders.len());
    for Holder { pid, region, via, ranges } in holders {
        let last = described.last().filter(|last| last.claim.pid == pid);
        let process = last.cloned().unwrap_or_else(|| {
            let arguments = process::arguments(root, pid);
            let uid = users.user(pid);
            let claim = ProcessClaim {
                uid,
                user: uid.map(|uid| accounts.user(uid)),
                command: process::command(root, pid, &arguments),
                domain: process::name_argument(&arguments),
                ..ProcessClaim::new(pid, Ranges::default())
            };
            // One that was started by hand may have no name; RHEL's has no architecture.
            let is_qemu = |name: &str| name.starts_with("qemu-system-") || name == "qemu-kvm";
            Described {
                region: region.clone(),
                is_guest: claim.domain.is_some() || claim.command.as_deref().is_some_and(is_qemu),
                machine: process::machine(root, pid),
                claim,
            }
        });
        let claim = ProcessClaim { via, ranges, ..process.claim };
        described.push(Described { region, claim, ..process });
    }
    // QEMU has the whole name of the domain that a back end in the same machine belongs to.
    let names = described.iter().filter_map(|it| it.machine.clone().zip(it.claim.domain.clone()));
    let names: BTreeMap<_, _> = names.collect();
    for Described { machine, claim, .. } in &mut described {
        let name = machine.as_ref().map(|it| names.get(it).unwrap_or(&it.1));
        claim.domain = claim.domain.take().or_else(|| name.cloned());
    }
    described
}

/// The number of open files that the holders explain.
fn explained(holders: &[Described]) -> u64 {
    let regions: BTreeSet<_> = holders.iter().map(|holder| &holder.region).collect();
    let files = |region: &RegionName| {
        let holders = holders.iter().filter(|holder| holder.region == *region);
        sharing::explained_files(holders.map(|holder| &holder.claim))
    };
    regions.into_iter().map(files).sum()
}

/// The reason why processes of the running host may be missing from `/proc`.
fn hidden_processes(root: &Sysroot, pids: &BTreeSet<u32>) -> Option<Hidden> {
    if !root.may_trust_proc() {
        return Some(Hidden::ForeignProc);
    }
    if has_pid_namespace(root) {
        return Some(Hidden::PidNamespace);
    }
    // Process 1 always exists, unless /proc is mounted with hidepid.
    (root.may_ask_system() && !pids.contains(&1)).then_some(Hidden::Hidepid)
}

/// Warnings about processes that could not be examined.
fn warnings_of(unseen: &Unseen) -> impl Iterator<Item = Warning> + use<> {
    let hidden = unseen.hidden.map(|hidden| match hidden {
        Hidden::ForeignProc => Warning::ForeignProc,
        Hidden::Hidepid => Warning::ProcessesHidden,
        Hidden::PidNamespace => Warning::PidNamespace,
    });
    let pids: Vec<u32> = unseen.unread.iter().copied().collect();
    let unread = (!pids.is_empty()).then_some(Warning::ProcessesUnread { pids });
    let unsettled = unseen.unsettled.then_some(Warning::ProcessesUnsettled);
    hidden.into_iter().chain(unread).chain(unsettled)
}
