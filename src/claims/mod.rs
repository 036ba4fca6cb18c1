//! Claims on regions: of processes that map or have opened the device, and of virtual machines that
//! libvirt has defined with it.

mod claim;
mod definitions;
mod evidence;
pub(crate) mod holders;
pub(crate) mod keeper;
pub(crate) mod leases;
mod maps;
mod open_files;
pub(crate) mod process;
mod queries;
mod ranges;
mod scanner;
mod search;
mod sharing;
mod targets;
pub(crate) mod unseen;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::host::{Accounts, Region};
use crate::sysroot::Sysroot;
use crate::values::{Bytes, Moment, RegionName};
use crate::warning::Warning;
pub use claim::{Claim, LibvirtClaim, Owner, ProcessClaim, Via};
pub(crate) use definitions::{Definition, USERS, parse as parse_definition};
pub(crate) use evidence::EvidenceKind;
use leases::Lease;
pub use leases::{LEASES, LeaseClaim};
#[cfg(feature = "cli")]
pub(crate) use open_files::Counter;
use open_files::OpenCount;
use process::Users;
pub use ranges::{Range, Ranges};
pub(crate) use search::Search;
use targets::Targets;
use unseen::{Flaw, Recorded};

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
    /// The search for the processes among them.
    search: Search,
    /// The domains that use EGM, with or without a claim.
    pub(crate) definitions: Vec<Definition>,
    /// The problem with the reservation file: any region may be reserved.
    pub(crate) leases_unread: Option<Warning>,
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
        Self::read_with(root, regions, &Accounts::of(root), None)
    }

    /// `last`: the search of an earlier reading, which is not repeated if it would find the same.
    pub(crate) fn read_with(
        root: &Sysroot,
        regions: &[Region],
        accounts: &Accounts<'_>,
        last: Option<&Search>,
    ) -> Self {
        let mut claims = Self::default();
        let recorded = Recorded::of(root);
        let Some(unseen) = &recorded.claims else { return claims };
        let was_held = last.is_some_and(|last| !last.holders.is_empty());
        if regions.is_empty() && !was_held && !OpenCount::read(root).is_open() {
            // Without regions, nothing can be held, except one that was removed.
            claims.sight = Sight::Complete;
            return claims;
        }
        let targets = Targets::of(root, regions);
        let mut users = Users::of(root);
        claims.search = match last.filter(|last| last.is_final(root, &targets)) {
            Some(last) => last.clone(),
            None => Search::run(root, targets.clone(), accounts, &mut users, unseen),
        };
        claims.sight = claims.search.sight;
        claims.open_files = claims.search.open_files;
        claims.warnings.extend_from_slice(&claims.search.warnings);
        for holder in claims.search.holders.clone() {
            claims.add(&holder.region, Claim::Process(holder.claim));
        }
        claims.read_definitions(root, &recorded, &targets, accounts, &mut users);
        claims.mark_helpers();
        claims.read_leases(root, regions, recorded.moment());
        claims
    }

    /// The search for processes that it is based on.
    pub(crate) fn search(&self) -> &Search {
        &self.search
    }

    /// The claims on one region.
    #[must_use]
    pub fn of(&self, region: &RegionName) -> &[Claim] {
        self.by_region.get(region).map_or(&[], Vec::as_slice)
    }

    /// The processes that could not be examined and may hold a region.
    #[must_use]
    pub fn unseen_pids(&self) -> Vec<u32> {
        let unread = self.search.unseen.unread.iter().filter(|_| self.sight == Sight::Partial);
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

    /// Processes that share a region with a virtual machine are its helpers, if it is known that
    /// they share it.
    fn mark_helpers(&mut self) {
        if self.search.is_sharing_known {
            let guests = self.search.holders.iter().filter(|holder| holder.is_guest);
            let guests: BTreeSet<_> = guests.map(|holder| holder.claim.pid).collect();
            for claims in self.by_region.values_mut() {
                sharing::mark_helpers(claims, &guests);
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
        let is_explained = self.sight == Sight::Complete && self.open_files.is_some();
        if is_unread && self.sight == Sight::Complete && self.open_files != Some(0) {
            // With unknown definitions, some holders are unknown as well.
            self.sight = Sight::Partial;
        }
        for definition in definitions {
            let mut sizes: BTreeMap<&RegionName, Option<Bytes>> = BTreeMap::new();
            for memory in &definition.domain.file_memory {
                if let Some(region) = targets.by_definition(root, &memory.path) {
                    let sum = sizes.entry(region).or_insert(Some(Bytes(0)));
                    *sum = sum.zip(memory.size).map(|(a, b)| Bytes(a.0.saturating_add(b.0)));
                }
            }
            let is_egm = !sizes.is_empty() || !definition.domain.egm.is_empty();
            for (region, size) in sizes {
                if self.process_of(region, &definition) {
                    continue;
                }
                if definition.domain.is_status && is_explained {
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
        let mut leases = leases::read(root, now).unwrap_or_else(|problem| {
            let warning = Warning::LeasesUnread { path: LEASES.into(), problem };
            self.warnings.push(warning.clone());
            self.leases_unread = Some(warning);
            Vec::new()
        });
        // If several leases have the same name, the one that expires last is shown.
        leases.sort_by_key(|lease| Reverse(lease.expires));
        for Lease { regions: leased, domain, expires, process, .. } in leases {
            let pid = process.map(|process| process.pid);
            for region in regions.iter().filter(|region| leased.contains(&region.name)) {
                let is_same =
                    |claim: &Claim| matches!(claim, Claim::Lease(other) if other.domain == domain);
                if !self.of(&region.name).iter().any(is_same) {
                    let claim = LeaseClaim { domain: domain.clone(), expires, pid };
                    self.add(&region.name, Claim::Lease(claim));
                }
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
