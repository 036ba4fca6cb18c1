//! Reserves and releases regions: see [`crate::claims::leases`] for the leases and their file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claims::keeper::Keeper;
use crate::claims::leases::{self, Lease, SIZE_LIMIT};
use crate::claims::{LEASES, LeaseClaim};
use crate::files::locked_directory::{DirectoryProblem, Locked, OwnDirectory};
use crate::host::Region;
use crate::report::{Report, State, labels};
use crate::sysroot::Sysroot;
use crate::values::text::{SHOWN, excerpt, excerpts, plural};
use crate::values::{Bytes, Moment, RegionName};
use crate::warning::Warning;

/// How long to wait for other processes that change leases. Each needs a few milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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
    #[error("{region} is reserved for {}", lease.describe())]
    Taken { region: RegionName, lease: LeaseClaim },
    #[error("{region} is already in use by or reserved for {}", excerpt(owner, SHOWN))]
    Own { region: RegionName, owner: String },
    #[error("{region}: {problem}, but --size requires {least} ({} bytes)", least.0)]
    TooSmall { region: RegionName, problem: String, least: Bytes },
    #[error("{region} has {}, but --gpus requires {least}", plural(*gpus, "known GPU"))]
    TooFewGpus { region: RegionName, gpus: usize, least: usize },
    #[error(
        "requested {}, but {free} of {total} {} available",
        plural(*wanted, "region"),
        if *free == 1 { "is" } else { "are" }
    )]
    TooFew { wanted: usize, free: usize, total: usize, possible: usize },
    #[error("{region}: {problem}")]
    Node { region: RegionName, problem: Warning },
    #[error("the holder of {region} is unknown (use --force to reserve it anyway)")]
    Unknown { region: RegionName },
    #[error("{0} (use --force to replace the file and save it as {NAME}{SAVED})")]
    Unread(Warning),
}

impl LeaseObjection {
    /// Whether it may no longer apply after some time.
    fn may_pass(&self) -> bool {
        match self {
            Self::TooFew { wanted, possible, .. } => possible >= wanted,
            Self::TooSmall { .. } | Self::TooFewGpus { .. } | Self::Unread(_) => false,
            _ => true,
        }
    }
}

/// Whether waiting may help against all of these. With too few regions, only their number matters.
pub(crate) fn may_pass(objections: &[LeaseObjection]) -> bool {
    match objections {
        [too_few @ LeaseObjection::TooFew { .. }, ..] => too_few.may_pass(),
        _ => objections.iter().all(LeaseObjection::may_pass),
    }
}

/// Requirements for a region to be reserved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirements<'a> {
    /// The name that it is to be reserved for.
    pub(crate) domain: &'a str,
    pub(crate) least_size: Option<Bytes>,
    pub(crate) least_gpus: Option<usize>,
    /// Overrides unknown holders, never known ones.
    pub(crate) force: bool,
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

    /// Waits until no other process changes leases, at most this long.
    pub(crate) fn lock(&self, patience: Duration) -> Result<LockedStore<'_>, DirectoryProblem> {
        let locked = self.directory.lock_by(LOCK, patience)?;
        Ok(LockedStore { root: self.root, path: self.directory.path().join(NAME), locked })
    }
}

/// The result of a release.
#[derive(Default)]
pub(crate) struct Released {
    pub(crate) regions: BTreeSet<RegionName>,
    /// The regions that stay reserved, and the processes that they are kept for.
    pub(crate) kept: BTreeMap<RegionName, u32>,
}

impl LockedStore<'_> {
    /// Adds a lease of all of these regions or, if it cannot be written, of none. Leases of the same
    /// name on them are replaced, except those that end with a process.
    /// With `force` an unreadable file is replaced, and the warning says under which name it is saved.
    pub(crate) fn take(self, new: Lease, force: bool) -> Result<Option<Warning>, DirectoryProblem> {
        let (mut leases, saved) = match leases::read(self.root, Moment::now()) {
            Err(_) if force => (Vec::new(), Some(self.save_broken()?)),
            leases => (leases.map_err(|problem| self.failed(io::Error::other(problem)))?, None),
        };
        let is_replaced = |old: &Lease| {
            old.domain == new.domain && old.process.is_none() && new.process.is_none()
        };
        remove(&mut leases, is_replaced, |region| new.regions.contains(region));
        leases.push(new);
        self.write(leases)?;
        Ok(saved)
    }

    /// Removes the lease of a process.
    pub(crate) fn give_back(self, process: &Keeper) -> Result<(), DirectoryProblem> {
        let leases = leases::read(self.root, Moment::now());
        let mut leases = leases.map_err(|problem| self.failed(io::Error::other(problem)))?;
        leases.retain(|lease| lease.process.as_ref() != Some(process));
        self.write(leases)
    }

    /// Releases the regions that are reserved for a name, or those of them that are wanted; but not
    /// while they are kept for a process that certainly runs.
    pub(crate) fn give_up(
        self,
        wanted: Option<&BTreeSet<RegionName>>,
        domain: &str,
    ) -> Result<Released, DirectoryProblem> {
        let mut leases = leases::read(self.root, Moment::now()).map_err(|problem| {
            self.failed(io::Error::other(format!("{problem} (repair or remove the file)")))
        })?;
        let is_wanted = |region: &RegionName| wanted.is_none_or(|it| it.contains(region));
        let running = |lease: &Lease| {
            let process = lease.process.as_ref().filter(|process| process.is_running())?;
            (lease.domain == domain).then_some(process.pid)
        };
        let mut kept = BTreeMap::new();
        for (lease, pid) in leases.iter().filter_map(|lease| Some((lease, running(lease)?))) {
            let regions = lease.regions.iter().filter(|region| is_wanted(region)).cloned();
            kept.extend(regions.map(|region| (region, pid)));
        }
        let is_meant = |lease: &Lease| lease.domain == domain && running(lease).is_none();
        let mut regions = remove(&mut leases, is_meant, is_wanted);
        if !regions.is_empty() {
            self.write(leases)?;
        }
        regions.retain(|region| !kept.contains_key(region));
        Ok(Released { regions, kept })
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

/// Removes regions from some leases, and returns those that were in one.
fn remove(
    leases: &mut Vec<Lease>,
    is_meant: impl Fn(&Lease) -> bool,
    is_wanted: impl Fn(&RegionName) -> bool,
) -> BTreeSet<RegionName> {
    let mut removed = BTreeSet::new();
    for lease in leases.iter_mut().filter(|lease| is_meant(lease)) {
        let (gone, rest) = lease.regions.iter().cloned().partition(|region| is_wanted(region));
        lease.regions = rest;
        removed.extend::<BTreeSet<_>>(gone);
    }
    leases.retain(|lease| !lease.regions.is_empty());
    removed
}

/// The first reason not to reserve a region, beginning with those that will not pass.
fn objection(
    report: &Report,
    found: &Region,
    requirements: &Requirements<'_>,
) -> Option<LeaseObjection> {
    let availability = report.availability(found, Some(requirements.domain));
    let region = found.name.clone();
    if let Some(least) = requirements.least_size
        && found.size.is_none_or(|size| size < least)
    {
        let problem = match found.size {
            Some(size) => format!("size is {size} ({} bytes)", size.0),
            None => "size is unknown".into(),
        };
        return Some(LeaseObjection::TooSmall { region, problem, least });
    }
    let gpus = found.gpus.len();
    if let Some(least) = requirements.least_gpus
        && gpus < least
    {
        return Some(LeaseObjection::TooFewGpus { region, gpus, least });
    }
    if let Some(problem) = found.node_problem() {
        return Some(LeaseObjection::Node { region, problem: problem.clone() });
    }
    if !availability.holders.is_empty() {
        let holders = labels(availability.holders);
        Some(LeaseObjection::InUse { region, holders })
    } else if let Some(lease) = availability.leases.first() {
        Some(LeaseObjection::Taken { region, lease: (*lease).clone() })
    } else {
        let is_unknown = availability.state == State::Unknown && !requirements.force;
        is_unknown.then_some(LeaseObjection::Unknown { region })
    }
}

/// The reasons not to reserve these regions.
pub(crate) fn objections(
    report: &Report,
    regions: &BTreeSet<RegionName>,
    requirements: &Requirements<'_>,
) -> Vec<LeaseObjection> {
    let regions = regions.iter().filter_map(|name| report.host.region(name));
    regions.filter_map(|region| objection(report, region, requirements)).collect()
}

/// The smallest free regions that meet the requirements, so that large ones stay available; or the
/// reasons against the other ones.
pub(crate) fn choose(
    report: &Report,
    wanted: usize,
    requirements: &Requirements<'_>,
) -> Result<BTreeSet<RegionName>, Vec<LeaseObjection>> {
    let (mut free, mut objections) = (Vec::new(), Vec::new());
    for region in &report.host.regions {
        // Prefer regions that no virtual machine is defined with.
        let rank = match report.row(region).capacity.state {
            State::Free => Some(0),
            State::Defined => Some(1),
            State::Unknown => Some(2),
            State::InUse | State::Reserved => None,
        };
        let (name, owner) = (region.name.clone(), requirements.domain.to_owned());
        match (objection(report, region, requirements), rank) {
            (Some(objection), _) => objections.push(objection),
            (None, None) => objections.push(LeaseObjection::Own { region: name, owner }),
            (None, Some(rank)) => {
                free.push((rank, region.size.unwrap_or(Bytes(u64::MAX)), name));
            }
        }
    }
    if free.len() < wanted {
        let (free, total) = (free.len(), report.host.regions.len());
        let possible = free + objections.iter().filter(|it| it.may_pass()).count();
        objections.insert(0, LeaseObjection::TooFew { wanted, free, total, possible });
        return Err(objections);
    }
    free.sort_unstable();
    Ok(free.into_iter().take(wanted).map(|(_, _, name)| name).collect())
}
