//! Who holds a region, and whose it may become: processes that map or have opened its device, and
//! virtual machines that libvirt has defined with it.

mod definitions;
mod holders;
pub(crate) mod leases;
mod maps;
pub(crate) mod process;
mod proof;
mod ranges;
mod targets;
pub(crate) mod unseen;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::host::{Accounts, Region};
use crate::sysroot::Sysroot;
use crate::values::{Bytes, Moment, RegionName};
use crate::warning::Warning;
pub(crate) use definitions::{Definition, USERS, parse as parse_definition};
use leases::Lease;
pub use leases::{LEASES, LeaseClaim};
use process::Users;
pub(crate) use proof::{Proof, Trace};
pub use ranges::{Range, Ranges};
use targets::Targets;
use unseen::{Flaw, Hidden, Recorded, Unseen};

/// The claims on the regions of a host, and how much of it could be looked at.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Claims {
    /// By region: processes by pid, then definitions by name, then leases.
    pub by_region: BTreeMap<RegionName, Vec<Claim>>,
    /// What could be looked at.
    pub sight: Sight,
    /// What is odd about processes and definitions.
    pub warnings: Vec<Warning>,
    /// The domains that have something to do with EGM, those of the claims and others.
    pub(crate) definitions: Vec<Definition>,
    /// The problem with the file of the leases: any region may be reserved.
    pub(crate) leases_unread: Option<Warning>,
    /// Every process that was listed.
    pub(crate) pids: BTreeSet<u32>,
    /// Which were not seen.
    pub(crate) unseen: Unseen,
    /// By what the holders were known, where the host is recorded.
    pub(crate) proofs: Vec<Proof>,
}

/// How much of what may hold a region was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sight {
    /// Nothing, by choice or because there is nothing to look at.
    #[default]
    Skipped,
    /// A part; who was not seen may hold anything.
    Partial,
    /// A part; but the driver says that nobody at all has a region open.
    PartialNothingOpen,
    /// Everything.
    Complete,
}

/// A claim on a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// A process holds it.
    Process(ProcessClaim),
    /// A domain of libvirt's is defined with it.
    Libvirt(LibvirtClaim),
    /// It is kept for somebody, by word among scripts.
    Lease(LeaseClaim),
}

/// A process that maps a region or has it open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessClaim {
    /// The process.
    pub pid: u32,
    /// The name of its program.
    pub command: Option<String>,
    /// Its user.
    pub uid: Option<u32>,
    /// The name of its user.
    pub user: Option<String>,
    /// The virtual machine that it runs.
    pub domain: Option<String>,
    /// What it has mapped; nothing where it only has the device open.
    pub ranges: Ranges,
}

impl ProcessClaim {
    /// A process of which no more is known than what it has mapped.
    #[must_use]
    pub fn new(pid: u32, ranges: Ranges) -> Self {
        Self { pid, command: None, uid: None, user: None, domain: None, ranges }
    }
}

/// A domain whose definition has a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LibvirtClaim {
    /// The domain.
    pub domain: String,
    /// Whether it runs, by its status file; the process itself was not seen.
    pub is_running: bool,
    /// How much of the region it is defined with.
    pub size: Option<Bytes>,
    /// The file that says so.
    pub file: PathBuf,
}

impl LibvirtClaim {
    /// A domain that is off, defined with an amount that is not known.
    #[must_use]
    pub fn new(domain: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self { domain: domain.into(), is_running: false, size: None, file: file.into() }
    }
}

impl Claim {
    /// Who it belongs to.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        match self {
            Self::Process(ProcessClaim { pid, domain, .. }) => {
                domain.as_deref().map_or(Owner::Process(*pid), Owner::Domain)
            }
            Self::Libvirt(claim) => Owner::Domain(&claim.domain),
            Self::Lease(claim) => Owner::Domain(&claim.domain),
        }
    }

    /// Whether the region is held now, as opposed to when a virtual machine is started.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match self {
            Self::Process(_) => true,
            Self::Libvirt(claim) => claim.is_running,
            Self::Lease(_) => false,
        }
    }
}

/// Who a claim belongs to: a virtual machine, or else a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Owner<'a> {
    /// The virtual machine of this name.
    Domain(&'a str),
    /// The process of this number.
    Process(u32),
}

impl Claim {
    /// As short as `qemu-system-aarch64[4242]`, `vm1[4242]`, `vm1(off)` or `vm1(reserved)`. The names are what
    /// processes and files say: whoever shows them must make them safe.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Process(ProcessClaim { pid, command, domain, .. }) => {
                let name = domain.as_ref().or(command.as_ref()).map_or("", String::as_str);
                format!("{name}[{pid}]")
            }
            Self::Libvirt(LibvirtClaim { domain, is_running: true, .. }) => domain.clone(),
            Self::Libvirt(LibvirtClaim { domain, .. }) => format!("{domain}(off)"),
            Self::Lease(LeaseClaim { domain, .. }) => format!("{domain}(reserved)"),
        }
    }
}

impl Claims {
    /// Looks for the claims on these regions.
    #[must_use]
    pub fn read(root: &Sysroot, regions: &[Region]) -> Self {
        Self::read_with(root, regions, &Accounts::of(root))
    }

    pub(crate) fn read_with(root: &Sysroot, regions: &[Region], accounts: &Accounts<'_>) -> Self {
        let mut claims = Self::default();
        let recorded = Recorded::of(root);
        let Some(unseen) = &recorded.claims else { return claims };
        if regions.is_empty() {
            // Nothing can be held, and nothing is left to look at.
            claims.sight = Sight::Complete;
            return claims;
        }
        let targets = Targets::of(root, regions);
        let mut users = Users::of(root);
        claims.read_processes(root, &targets, accounts, &mut users, unseen);
        claims.read_definitions(root, &recorded, &targets, accounts, &mut users);
        claims.read_leases(root, regions, recorded.moment());
        claims
    }

    /// The claims on one region.
    #[must_use]
    pub fn of(&self, region: &RegionName) -> &[Claim] {
        self.by_region.get(region).map_or(&[], Vec::as_slice)
    }

    /// The files of libvirt's that are no definitions, and where they cease to be.
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

    fn read_processes(
        &mut self,
        root: &Sysroot,
        targets: &Targets,
        accounts: &Accounts<'_>,
        users: &mut Users<'_>,
        seen_before: &Unseen,
    ) {
        let found = match holders::find(root, targets) {
            Ok(found) => found,
            Err(error) if error.is_absent() => return,
            Err(error) => {
                self.warnings.push(Warning::unreadable(&error));
                self.sight = Sight::Partial;
                return;
            }
        };
        let holds: BTreeSet<_> =
            found.holders.iter().map(|holder| (holder.pid, holder.target)).collect();
        self.proofs = found.proofs;
        self.proofs.retain(|proof| holds.contains(&(proof.pid, proof.target)));
        let mut last: Option<ProcessClaim> = None;
        for holder in found.holders {
            let Some(region) = targets.name(holder.target) else { continue };
            // They are sorted: a process that holds several regions is described once.
            let described = last.take().filter(|last| last.pid == holder.pid);
            let describe = || {
                let pid = holder.pid;
                let arguments = process::arguments(root, pid);
                let uid = users.user(pid);
                ProcessClaim {
                    pid,
                    uid,
                    user: uid.map(|uid| accounts.user(uid)),
                    command: process::command(root, pid, &arguments),
                    domain: process::domain(root, pid, &arguments),
                    ranges: Ranges::default(),
                }
            };
            let described = described.unwrap_or_else(describe);
            let claim = ProcessClaim { ranges: holder.ranges, ..described.clone() };
            last = Some(described);
            self.add(region, Claim::Process(claim));
        }
        self.unseen = Unseen {
            unread: found.unread.saturating_add(seen_before.unread),
            hidden: seen_before.hidden.or_else(|| hidden_processes(root, &found.pids)),
            unsettled: found.is_unsettled || seen_before.unsettled,
        };
        self.pids = found.pids;
        self.sight = if self.unseen == Unseen::default() {
            Sight::Complete
        } else if nothing_is_open(root) {
            Sight::PartialNothingOpen
        } else {
            self.warnings.extend(warnings_of(&self.unseen));
            Sight::Partial
        };
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
            // What the region is defined with is as little known as who would hold it unseen.
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

    /// Whether a process that was seen is that of a domain; then it has its name, and the
    /// definition is no claim of its own. A status file tells the process; a definition alone has
    /// only the name, which another user's process may have, too.
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

/// Why processes of the running host may be missing from `/proc` without a trace.
fn hidden_processes(root: &Sysroot, pids: &BTreeSet<u32>) -> Option<Hidden> {
    /// The inode of the first PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
    const FIRST: &str = "pid:[4026531836]";
    if !root.may_trust_proc() {
        return Some(Hidden::ForeignProc);
    }
    if !root.may_ask_system() {
        return None;
    }
    // That of another namespace has no process of ours.
    if root.read_link("/proc/self/ns/pid").map_or(true, |own| own.as_os_str() != FIRST) {
        return Some(Hidden::PidNamespace);
    }
    // Process 1 is always there, unless /proc is mounted with hidepid.
    (!pids.contains(&1)).then_some(Hidden::Hidepid)
}

/// What to say of the processes that were not seen.
fn warnings_of(unseen: &Unseen) -> impl Iterator<Item = Warning> + use<> {
    let hidden = unseen.hidden.map(|hidden| match hidden {
        Hidden::ForeignProc => Warning::ForeignProc,
        Hidden::Hidepid => Warning::ProcessesHidden,
        Hidden::PidNamespace => Warning::PidNamespace,
    });
    let unread = (unseen.unread > 0).then_some(Warning::ProcessesUnread { count: unseen.unread });
    let unsettled = unseen.unsettled.then_some(Warning::ProcessesUnsettled);
    hidden.into_iter().chain(unread).chain(unsettled)
}

/// What the driver's module counts: each open device and each mapping is a use of it, so where
/// there is none, nobody has a region.
fn nothing_is_open(root: &Sysroot) -> bool {
    let count = root.read_text("/sys/module/nvgrace_egm/refcnt");
    count.is_ok_and(|count| count.trim() == "0")
}
