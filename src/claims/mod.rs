//! Claims on regions: of processes that map or have opened the device, and of virtual machines that
//! libvirt has defined with it.

mod claim;
mod definitions;
mod evidence;
pub(crate) mod holders;
pub(crate) mod leases;
mod maps;
mod open_files;
pub(crate) mod process;
mod ranges;
mod sharing;
mod targets;
pub(crate) mod unseen;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::host::{Accounts, Region};
use crate::sysroot::Sysroot;
use crate::values::{Bytes, Moment, RegionName};
use crate::warning::Warning;
pub use claim::{Claim, LibvirtClaim, Owner, ProcessClaim, Via};
pub(crate) use definitions::{Definition, USERS, parse as parse_definition};
pub(crate) use evidence::{Evidence, EvidenceKind};
use holders::{Depth, Holder};
use leases::Lease;
pub use leases::{LEASES, LeaseClaim};
use open_files::OpenCount;
use process::Users;
pub use ranges::{Range, Ranges};
use targets::Targets;
use unseen::{Flaw, Hidden, Recorded, Unseen};

/// How often processes are searched while the driver's count changes.
const SEARCHES: usize = 4;

/// The claims on the regions of a host, and how complete they are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Claims {
    /// By region: processes by pid, then definitions by name, then leases.
    pub by_region: BTreeMap<RegionName, Vec<Claim>>,
    /// How complete the search for holders was.
    pub sight: Sight,
    /// Warnings about processes and definitions.
    pub warnings: Vec<Warning>,
    /// The number of open files of all regions together, as counted by the driver; `None` if it is
    /// unknown.
    pub open_files: Option<u64>,
    /// Whether it is known which holders of a region share its memory.
    pub(crate) is_sharing_known: bool,
    /// The processes among the holders that run a guest.
    guests: BTreeSet<u32>,
    /// The domains that use EGM, with or without a claim.
    pub(crate) definitions: Vec<Definition>,
    /// The problem with the reservation file: any region may be reserved.
    pub(crate) leases_unread: Option<Warning>,
    /// Processes that could not be examined.
    pub(crate) unseen: Unseen,
    /// Evidence for the holders, if the host is being recorded.
    pub(crate) evidence: Vec<Evidence>,
}

/// How many of the potential holders could be examined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sight {
    /// None, by choice or because `/proc` is missing.
    #[default]
    Skipped,
    /// Some, or the driver has more files open than they explain: any region may be held.
    Partial,
    /// All that matter: every process, or as many as the driver has files open.
    Complete,
}

impl Claims {
    /// Searches for the claims on these regions.
    #[must_use]
    pub fn read(root: &Sysroot, regions: &[Region]) -> Self {
        Self::read_with(root, regions, &Accounts::of(root))
    }

    pub(crate) fn read_with(root: &Sysroot, regions: &[Region], accounts: &Accounts<'_>) -> Self {
        let mut claims = Self::default();
        let recorded = Recorded::of(root);
        let Some(unseen) = &recorded.claims else { return claims };
        if regions.is_empty() {
            // Without regions, nothing can be held.
            claims.sight = Sight::Complete;
            return claims;
        }
        let targets = Targets::of(root, regions);
        let mut users = Users::of(root);
        claims.read_processes(root, &targets, accounts, &mut users, unseen);
        claims.read_definitions(root, &recorded, &targets, accounts, &mut users);
        claims.mark_helpers();
        claims.read_leases(root, regions, recorded.moment());
        claims
    }

    /// The claims on one region.
    #[must_use]
    pub fn of(&self, region: &RegionName) -> &[Claim] {
        self.by_region.get(region).map_or(&[], Vec::as_slice)
    }

    /// The processes that could not be examined and may hold a region.
    #[must_use]
    pub fn unseen_pids(&self) -> Vec<u32> {
        let unread = self.unseen.unread.iter().filter(|_| self.sight == Sight::Partial);
        unread.copied().collect()
    }

    /// The files in libvirt's directories that are invalid definitions, with the location of the
    /// error.
    pub(crate) fn bad_definitions(&self) -> impl Iterator<Item = (&Path, Flaw)> {
        self.warnings.iter().filter_map(|warning| match warning {
            Warning::BadDefinition { path, line, column } => {
                Some((path.as_path(), Flaw { line: *line, column: *column }))
            }
            _ => None,
        })
    }

    fn add(&mut self, region: &RegionName, claim: Claim) {
        self.by_region.entry(region.clone()).or_default().push(claim);
    }

    /// Searches for the processes that hold regions. The driver's count of open files decides how
    /// complete the result is; without it, the processes that could not be examined do.
    fn read_processes(
        &mut self,
        root: &Sysroot,
        targets: &Targets,
        accounts: &Accounts<'_>,
        users: &mut Users<'_>,
        seen_before: &Unseen,
    ) {
        let mut count = OpenCount::read(root);
        if count.files(0) == Some(0) {
            self.open_files = Some(0);
            self.sight = Sight::Complete;
            return;
        }
        let mut depth = Depth::Processes;
        let mut is_stable = false;
        let mut holders = Vec::new();
        let mut found = holders::Found::default();
        for _ in 0..SEARCHES {
            found = match holders::find(root, targets, depth) {
                Ok(found) => found,
                Err(error) if error.is_absent() => return,
                Err(error) => {
                    self.warnings.push(Warning::unreadable(&error));
                    self.sight = Sight::Partial;
                    return;
                }
            };
            holders = describe(root, std::mem::take(&mut found.holders), accounts, users);
            let before = std::mem::replace(&mut count, OpenCount::read(root));
            is_stable = count == before;
            let open = count.files(found.dma_bufs.len());
            let is_explained = open.is_some_and(|open| open <= explained(&holders));
            let is_deep = depth == Depth::Threads || count == OpenCount::Absent;
            if is_stable && (is_explained || is_deep) {
                break;
            }
            if is_stable {
                depth = Depth::Threads;
            }
        }
        let holds: BTreeSet<_> =
            holders.iter().map(|holder| (holder.claim.pid, holder.target)).collect();
        self.evidence = found.evidence;
        self.evidence.retain(|evidence| holds.contains(&(evidence.pid, evidence.target)));
        self.unseen = Unseen {
            unread: found.unread.union(&seen_before.unread).copied().collect(),
            hidden: seen_before.hidden.or_else(|| hidden_processes(root, &found.pids)),
            unsettled: found.is_unsettled || seen_before.unsettled,
        };
        self.open_files = count.files(found.dma_bufs.len());
        let unexplained = match (count, self.open_files) {
            (OpenCount::Absent, _) => None,
            (_, None) => Some(Warning::OpenCountUnclear),
            (_, Some(open)) => {
                let explained = explained(&holders);
                let is_more = open > explained || found.has_foreign_dma_buf;
                let unsettled = (!is_stable).then_some(Warning::ProcessesUnsettled);
                is_more.then_some(Warning::OpenFilesUnexplained { open, explained }).or(unsettled)
            }
        };
        let is_complete = match count {
            OpenCount::Absent => self.unseen == Unseen::default(),
            _ => unexplained.is_none(),
        };
        self.sight = if is_complete { Sight::Complete } else { Sight::Partial };
        self.is_sharing_known = count == OpenCount::Absent || is_complete;
        if !is_complete {
            self.warnings.extend(unexplained);
            self.warnings.extend(warnings_of(&self.unseen));
        }
        for Described { target, is_guest, claim } in holders {
            let Some(region) = targets.name(target) else { continue };
            if is_guest {
                self.guests.insert(claim.pid);
            }
            self.add(region, Claim::Process(claim));
        }
    }

    /// Processes that share a region with a virtual machine are its helpers, if it is known that
    /// they share it.
    fn mark_helpers(&mut self) {
        if self.is_sharing_known {
            for claims in self.by_region.values_mut() {
                sharing::mark_helpers(claims, &self.guests);
            }
        }
    }

    fn read_definitions(
        &mut self,
        root: &Sysroot,
        recorded: &Recorded,
        targets: &Targets,
        accounts: &Accounts<'_>,
        users: &mut Users<'_>,
    ) {
        let mut reader = definitions::Reader { root, recorded, warnings: &mut self.warnings };
        let (definitions, is_unread) = reader.read(accounts, users);
        if is_unread && self.sight == Sight::Complete {
            // With unknown definitions, some holders are unknown as well.
            self.sight = Sight::Partial;
        }
        for definition in definitions {
            let mut sizes: BTreeMap<usize, Option<Bytes>> = BTreeMap::new();
            for memory in &definition.domain.file_memory {
                if let Some(target) = targets.by_definition(root, &memory.path) {
                    let sum = sizes.entry(target).or_insert(Some(Bytes(0)));
                    *sum = sum.zip(memory.size).map(|(a, b)| Bytes(a.0.saturating_add(b.0)));
                }
            }
            let is_egm = !sizes.is_empty() || !definition.domain.egm.is_empty();
            for (target, size) in sizes {
                let Some(region) = targets.name(target) else { continue };
                if self.process_of(region, &definition) {
                    continue;
                }
                if definition.domain.is_status && self.open_files == Some(0) {
                    let path = definition.file.clone();
                    self.warnings.push(Warning::StatusWithoutOpenFile { path });
                }
                let claim = LibvirtClaim {
                    domain: definition.domain.name.clone(),
                    is_running: definition.domain.is_status,
                    size,
                    file: definition.file.clone(),
                };
                self.add(region, Claim::Libvirt(claim));
            }
            if is_egm {
                self.definitions.push(definition);
            }
        }
        for claims in self.by_region.values_mut() {
            claims.sort_by_cached_key(|claim| match claim {
                Claim::Process(claim) => (0, claim.pid, String::new()),
                Claim::Libvirt(claim) => (1, 0, claim.domain.clone()),
                Claim::Lease(claim) => (2, 0, claim.domain.clone()),
            });
        }
    }

    fn read_leases(&mut self, root: &Sysroot, regions: &[Region], now: Moment) {
        let leases = leases::read(root, now).unwrap_or_else(|problem| {
            let warning = Warning::LeasesUnread { path: LEASES.into(), problem };
            self.warnings.push(warning.clone());
            self.leases_unread = Some(warning);
            Vec::new()
        });
        for Lease { regions: leased, domain, expires, .. } in leases {
            for region in regions.iter().filter(|region| leased.contains(&region.name)) {
                let claim = LeaseClaim { domain: domain.clone(), expires };
                self.add(&region.name, Claim::Lease(claim));
            }
        }
    }

    /// Whether a domain belongs to a process that was found. If so, the process gets its name, and
    /// the definition is not a separate claim. A status file contains the process ID; a definition
    /// has only the name, which another user's process may have as well.
    fn process_of(&mut self, region: &RegionName, definition: &Definition) -> bool {
        let Definition { domain, user, .. } = definition;
        let claims = self.by_region.get_mut(region).into_iter().flatten();
        let processes = claims.map_while(|claim| match claim {
            Claim::Process(process) => Some(process),
            Claim::Libvirt(_) | Claim::Lease(_) => None,
        });
        let mut is_seen = false;
        for process in processes.filter(|process| user.is_none() || process.uid == *user) {
            if domain.pid.is_some_and(|pid| pid == process.pid) {
                process.domain = Some(domain.name.clone());
                is_seen = true;
            }
            is_seen |= domain.pid.is_none() && process.domain.as_ref() == Some(&domain.name);
        }
        is_seen
    }
}

/// A holder with its description.
struct Described {
    target: usize,
    /// Whether it runs a guest.
    is_guest: bool,
    claim: ProcessClaim,
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
    for Holder { pid, target, via, ranges } in holders {
        let last = described.last().filter(|last| last.claim.pid == pid);
        let (is_guest, claim) = if let Some(last) = last {
            (last.is_guest, last.claim.clone())
        } else {
            let arguments = process::arguments(root, pid);
            let uid = users.user(pid);
            let claim = ProcessClaim {
                uid,
                user: uid.map(|uid| accounts.user(uid)),
                command: process::command(root, pid, &arguments),
                domain: process::domain(root, pid, &arguments),
                ..ProcessClaim::new(pid, Ranges::default())
            };
            (process::name_argument(&arguments).is_some(), claim)
        };
        described.push(Described {
            target,
            is_guest,
            claim: ProcessClaim { via, ranges, ..claim },
        });
    }
    described
}

/// The number of open files that the holders explain.
fn explained(holders: &[Described]) -> u64 {
    let targets: BTreeSet<_> = holders.iter().map(|holder| holder.target).collect();
    let of = |target| holders.iter().filter(move |it| it.target == target).map(|it| &it.claim);
    targets.into_iter().map(|target| sharing::explained_files(of(target))).sum()
}

/// The reason why processes of the running host may be missing from `/proc`.
fn hidden_processes(root: &Sysroot, pids: &BTreeSet<u32>) -> Option<Hidden> {
    /// The inode of the first PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
    const FIRST: &str = "pid:[4026531836]";
    if !root.may_trust_proc() {
        return Some(Hidden::ForeignProc);
    }
    if !root.may_ask_system() {
        return None;
    }
    // Another PID namespace does not show all processes.
    if root.read_link("/proc/self/ns/pid").map_or(true, |own| own.as_os_str() != FIRST) {
        return Some(Hidden::PidNamespace);
    }
    // Process 1 always exists, unless /proc is mounted with hidepid.
    (!pids.contains(&1)).then_some(Hidden::Hidepid)
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
