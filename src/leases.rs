//! Reserves and releases regions: see [`crate::claims::leases`] for the leases and their file.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claims::LEASES;
use crate::claims::leases::{self, Lease, SIZE_LIMIT};
use crate::files::locked_directory::{DirectoryProblem, Locked, OwnDirectory};
use crate::report::{Report, State, labels};
use crate::sysroot::Sysroot;
use crate::values::text::{SHOWN, excerpt, excerpts};
use crate::values::{Moment, RegionName};
use crate::warning::Warning;

/// How long to wait for other processes that change leases. Each needs a few milliseconds.
const WAIT: Duration = Duration::from_secs(30);

/// The directory and the name of [`LEASES`].
const DIRECTORY: [&str; 2] = ["run", "egm-probe"];
const NAME: &str = "leases.json";

/// The start of the name of a file that is being written.
const UNFINISHED: &str = ".egm-probe-lease-";

/// The file that is locked: any user can lock the directory itself.
const LOCK: &str = "lock";

/// The end of the name under which an unreadable file is saved.
const SAVED: &str = ".broken";

/// A reason not to reserve a region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseObjection {
    #[error("{region} is in use by {}", excerpts(holders))]
    InUse { region: RegionName, holders: Vec<String> },
    #[error("{region} is reserved for {} until {until}", excerpt(owner, SHOWN))]
    Taken { region: RegionName, owner: String, until: Moment },
    #[error("{region}: {problem}")]
    Node { region: RegionName, problem: Warning },
    #[error("the holder of {region} is unknown (use --force to reserve it anyway)")]
    Unknown { region: RegionName },
    #[error("{0} (use --force to replace the file and save it as {NAME}{SAVED})")]
    Unread(Warning),
}

/// The leases of one root.
pub(crate) struct LeaseStore<'a> {
    root: &'a Sysroot,
    directory: OwnDirectory,
}

/// The leases while no other process changes them.
pub(crate) struct LockedStore<'a> {
    root: &'a Sysroot,
    path: PathBuf,
    locked: Locked,
}

impl<'a> LeaseStore<'a> {
    /// The leases below the directory of a root.
    pub(crate) fn below(directory: &Path, root: &'a Sysroot) -> Result<Self, DirectoryProblem> {
        Ok(Self { root, directory: OwnDirectory::below(directory, &DIRECTORY, UNFINISHED)? })
    }

    /// Whether the directory exists. Without it, no region is reserved.
    pub(crate) fn exists(&self) -> bool {
        self.directory.path().exists()
    }

    /// Makes the directory if it does not exist.
    pub(crate) fn create(&self) -> Result<(), DirectoryProblem> {
        self.directory.create()
    }

    /// Waits until no other process changes leases.
    pub(crate) fn lock(&self) -> Result<LockedStore<'_>, DirectoryProblem> {
        let locked = self.directory.lock_by(LOCK, WAIT)?;
        Ok(LockedStore { root: self.root, path: self.directory.path().join(NAME), locked })
    }
}

impl LockedStore<'_> {
    /// Reserves all of these regions or none; the leases that the same name has on them are renewed.
    /// With `force` an unreadable file is replaced, and the warning says under which name it is saved.
    pub(crate) fn take(
        self,
        regions: &BTreeSet<RegionName>,
        domain: &str,
        ttl: Duration,
        force: bool,
    ) -> Result<Option<Warning>, DirectoryProblem> {
        let now = Moment::now();
        let (mut leases, saved) = match leases::read(self.root, now) {
            Err(_) if force => (Vec::new(), Some(self.save_broken()?)),
            leases => (leases.map_err(|problem| self.failed(io::Error::other(problem)))?, None),
        };
        remove(&mut leases, domain, |region| regions.contains(region));
        let (regions, domain) = (regions.clone(), domain.to_owned());
        let more = serde_json::Map::new();
        leases.push(Lease { regions, domain, expires: now.after(ttl), more });
        self.write(leases)?;
        Ok(saved)
    }

    /// Releases the regions that are reserved for a name, or those of them that are wanted, and
    /// returns them.
    pub(crate) fn give_up(
        self,
        wanted: Option<&BTreeSet<RegionName>>,
        domain: &str,
    ) -> Result<BTreeSet<RegionName>, DirectoryProblem> {
        let mut leases = leases::read(self.root, Moment::now()).map_err(|problem| {
            self.failed(io::Error::other(format!("{problem} (repair or remove the file)")))
        })?;
        let is_wanted = |region: &RegionName| wanted.is_none_or(|it| it.contains(region));
        let given_up = remove(&mut leases, domain, is_wanted);
        if !given_up.is_empty() {
            self.write(leases)?;
        }
        Ok(given_up)
    }

    fn write(&self, leases: Vec<Lease>) -> Result<(), DirectoryProblem> {
        let failed = |cause| self.failed(cause);
        let bytes = leases::write(leases).map_err(failed)?;
        let new = self.locked.write(&bytes, 0o644).map_err(failed)?;
        self.locked.put(new, &self.path).map_err(failed)?;
        // Below another root, readers may follow a link to a different place.
        match self.root.read(LEASES, SIZE_LIMIT) {
            Ok(found) if found == bytes => Ok(()),
            _ => Err(failed(io::Error::other("written, but readers do not find it"))),
        }
    }

    /// A second name for the unreadable file, which is about to be replaced.
    fn save_broken(&self) -> Result<Warning, DirectoryProblem> {
        let mut saved = self.path.clone().into_os_string();
        saved.push(SAVED);
        // An older one may not exist. If it cannot be removed, the link fails.
        let _ = fs::remove_file(&saved);
        fs::hard_link(&self.path, &saved).map_err(|cause| self.failed(cause))?;
        Ok(Warning::LeasesReplaced {
            path: LEASES.into(),
            saved: format!("{LEASES}{SAVED}").into(),
        })
    }

    fn failed(&self, cause: io::Error) -> DirectoryProblem {
        DirectoryProblem::io(&self.path, cause)
    }
}

/// Removes regions from the leases of a name, and returns those that were in one.
fn remove(
    leases: &mut Vec<Lease>,
    domain: &str,
    is_wanted: impl Fn(&RegionName) -> bool,
) -> BTreeSet<RegionName> {
    let mut removed = BTreeSet::new();
    for lease in leases.iter_mut().filter(|lease| lease.domain == domain) {
        let (gone, rest) = lease.regions.iter().cloned().partition(|region| is_wanted(region));
        lease.regions = rest;
        removed.extend::<BTreeSet<_>>(gone);
    }
    leases.retain(|lease| !lease.regions.is_empty());
    removed
}

/// The first reason not to reserve a region for a virtual machine. `force` overrides unknown
/// holders, never known ones.
fn objection(
    report: &Report,
    region: &RegionName,
    domain: &str,
    force: bool,
) -> Option<LeaseObjection> {
    let found = report.host.region(region)?;
    let availability = report.availability(found, Some(domain));
    let region = region.clone();
    if let Some(problem) = found.node_problem() {
        return Some(LeaseObjection::Node { region, problem: problem.clone() });
    }
    if !availability.holders.is_empty() {
        let holders = labels(availability.holders);
        Some(LeaseObjection::InUse { region, holders })
    } else if let Some(lease) = availability.leases.first() {
        let (owner, until) = (lease.domain.clone(), lease.expires);
        Some(LeaseObjection::Taken { region, owner, until })
    } else {
        let is_unknown = availability.state == State::Unknown && !force;
        is_unknown.then_some(LeaseObjection::Unknown { region })
    }
}

/// The reasons not to reserve these regions for a virtual machine.
pub(crate) fn objections(
    report: &Report,
    regions: &BTreeSet<RegionName>,
    domain: &str,
    force: bool,
) -> Vec<LeaseObjection> {
    regions.iter().filter_map(|region| objection(report, region, domain, force)).collect()
}
