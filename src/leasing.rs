//! The taking and giving up of leases: see [`crate::claims::leases`] for what they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::capacity::State;
use crate::claims::leases::{LeaseFile, Leases, SCHEMA, SUFFIX};
use crate::claims::{Claim, LEASES, Moment, Owner};
use crate::host::RegionName;
use crate::own_directory::{DirectoryProblem, Locked, OwnDirectory};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::text::{SHOWN, excerpt};
use crate::warning::Warning;

/// How long others are waited for that take or give up leases. Each needs some milliseconds.
const WAIT: Duration = Duration::from_secs(30);

/// What the names of files begin with while they are being written.
const UNFINISHED: &str = ".egm-probe-lease-";

/// What is locked: not the directory itself, which anybody could.
const LOCK: &str = ".lock";

/// What speaks against a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseObjection {
    #[error(
        "{region} is in use by {}",
        holders.iter().map(|name| excerpt(name, SHOWN)).collect::<Vec<_>>().join(", ")
    )]
    InUse { region: RegionName, holders: Vec<String> },
    #[error("{region} is reserved for {} until {until}", excerpt(owner, SHOWN))]
    Taken { region: RegionName, owner: String, until: Moment },
    #[error("who holds {region} is not known; --force reserves it all the same")]
    Unknown { region: RegionName },
    #[error(
        "whether {region} is reserved is not known ({problem}); --force reserves it all the same"
    )]
    Broken { region: RegionName, problem: Warning },
}

impl LeaseObjection {
    /// Whether `--force` overrides it: what is not known, and nothing that somebody has.
    fn can_be_forced(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Broken { .. })
    }
}

fn is_absence(cause: &std::io::Error) -> bool {
    cause.kind() == std::io::ErrorKind::NotFound
}

/// The leases of one root, for somebody who changes them.
pub(crate) struct Desk {
    directory: OwnDirectory,
}

/// The same while nobody else changes them.
pub(crate) struct OpenDesk<'a> {
    root: &'a Sysroot,
    now: Moment,
    leases: Leases,
    locked: Locked<'a>,
    directory: &'a Path,
}

impl Desk {
    /// Below the directory of a root.
    pub(crate) fn below(root: &Path) -> Result<Self, DirectoryProblem> {
        let names: Vec<_> = LEASES.split('/').filter(|name| !name.is_empty()).collect();
        Ok(Self { directory: OwnDirectory::below(root, &names, UNFINISHED)? })
    }

    /// Whether anybody has ever taken a lease here.
    pub(crate) fn is_there(&self) -> bool {
        self.directory.path().exists()
    }

    /// Makes it where it is not there yet.
    pub(crate) fn create(&self) -> Result<(), DirectoryProblem> {
        self.directory.create()
    }

    /// Waits until nobody else changes leases, and reads them.
    pub(crate) fn open<'a>(&'a self, root: &'a Sysroot) -> Result<OpenDesk<'a>, DirectoryProblem> {
        let locked = self.directory.lock_by(LOCK, WAIT)?;
        // While it is locked nobody writes: what is half now stays so.
        let now = Moment::now();
        let (leases, _) = Leases::read_once(root, now);
        if let Some(unread) = &leases.unread {
            let cause = std::io::Error::other(unread.to_string());
            return Err(DirectoryProblem::io(self.directory.path(), cause));
        }
        Ok(OpenDesk { root, now, leases, locked, directory: self.directory.path() })
    }
}

impl OpenDesk<'_> {
    /// Takes leases on all of these regions, or on none. What the same name has already is renewed.
    pub(crate) fn take(
        self,
        regions: &BTreeSet<RegionName>,
        domain: &str,
        ttl: Duration,
    ) -> Result<(), DirectoryProblem> {
        let lease = LeaseFile {
            schema: SCHEMA.into(),
            domain: domain.to_owned(),
            expires: self.now.after(ttl).0,
            regions: regions.iter().map(ToString::to_string).collect(),
        };
        self.clean()?;
        self.keep_rest(regions, domain)?;
        // What can fail does so before the first is there.
        let written: Result<Vec<_>, _> =
            regions.iter().map(|region| Ok((region, self.write(&lease)?))).collect();
        let mut written = written?;
        // What it has already counts as it is until all the rest is there.
        let is_own = |region: &RegionName| {
            self.leases.valid.get(region).is_some_and(|lease| lease.domain == domain)
        };
        written.sort_by_key(|(region, _)| is_own(region));
        for (region, new) in written {
            self.put(new, region)?;
        }
        self.read_back(regions, domain)
    }

    /// Whether readers find what was written: below another root a link may lead them elsewhere.
    fn read_back(
        &self,
        regions: &BTreeSet<RegionName>,
        domain: &str,
    ) -> Result<(), DirectoryProblem> {
        let (leases, _) = Leases::read_once(self.root, self.now);
        let is_there = |region: &&RegionName| {
            leases.valid.get(*region).is_some_and(|lease| lease.domain == domain)
        };
        match regions.iter().find(|region| !is_there(region)) {
            None => Ok(()),
            Some(region) => {
                let problem = format!("the lease of {region} was written, and is not found again");
                Err(DirectoryProblem::io(self.directory, std::io::Error::other(problem)))
            }
        }
    }

    /// Gives up the leases that a name has on these regions, and says which those were.
    pub(crate) fn give_up(
        self,
        regions: Option<&BTreeSet<RegionName>>,
        domain: &str,
    ) -> Result<BTreeSet<RegionName>, DirectoryProblem> {
        let is_wanted = |region: &&RegionName| regions.is_none_or(|it| it.contains(*region));
        let own = self.leases.valid.iter().filter(|(_, lease)| lease.domain == domain);
        let given_up: BTreeSet<_> =
            own.map(|(region, _)| region).filter(is_wanted).cloned().collect();
        self.clean()?;
        self.keep_rest(&given_up, domain)?;
        for region in &given_up {
            self.remove(region)?;
        }
        Ok(given_up)
    }

    /// Other leases of the same name that were taken together with one of these stay what they are,
    /// by themselves: as long as these are there they count with them, and when these go, without.
    fn keep_rest(
        &self,
        regions: &BTreeSet<RegionName>,
        domain: &str,
    ) -> Result<(), DirectoryProblem> {
        let is_gone = |name: &String| regions.iter().any(|region| region.as_str() == name);
        for (region, lease) in &self.leases.valid {
            let is_own = lease.domain == domain && !regions.contains(region);
            if is_own && lease.regions.iter().any(is_gone) {
                let rest = lease.regions.iter().filter(|name| !is_gone(name)).cloned().collect();
                let new = self.write(&LeaseFile { regions: rest, ..lease.clone() })?;
                self.put(new, region)?;
            }
        }
        Ok(())
    }

    /// Removes what does not count, before anything that is written can make it count again.
    fn clean(&self) -> Result<(), DirectoryProblem> {
        // What was not read is not known to be none.
        self.leases.stale.iter().try_for_each(|(region, _)| self.remove(region))
    }

    fn write(&self, lease: &LeaseFile) -> Result<tempfile::NamedTempFile, DirectoryProblem> {
        // It has no value that cannot be written.
        let mut bytes = serde_json::to_vec(lease).unwrap_or_default();
        bytes.push(b'\n');
        self.locked
            .write(&bytes, 0o644)
            .map_err(|cause| DirectoryProblem::io(self.directory, cause))
    }

    fn put(
        &self,
        new: tempfile::NamedTempFile,
        region: &RegionName,
    ) -> Result<(), DirectoryProblem> {
        let path = self.directory.join(format!("{region}{SUFFIX}"));
        self.locked.put(new, &path).map_err(|cause| DirectoryProblem::io(&path, cause))
    }

    fn remove(&self, region: &RegionName) -> Result<(), DirectoryProblem> {
        let path = self.directory.join(format!("{region}{SUFFIX}"));
        match fs::remove_file(&path) {
            // Somebody else may have removed it: then it is not there any more.
            Err(cause) if fs::symlink_metadata(&path).is_ok() || !is_absence(&cause) => {
                Err(DirectoryProblem::io(&path, cause))
            }
            _ => Ok(()),
        }
    }

    /// What speaks against leasing a region.
    pub(crate) fn objection(
        &self,
        report: &Report,
        region: &RegionName,
        domain: &str,
    ) -> Option<LeaseObjection> {
        let row = report.row(report.host.region(region)?);
        let name = || region.clone();
        let is_own = |claim: &&Claim| claim.owner() == Owner::Domain(domain);
        let holders = row.claims.iter().filter(|claim| claim.is_held() && !is_own(claim));
        let holders: Vec<_> = holders.map(Claim::label).collect();
        if !holders.is_empty() {
            return Some(LeaseObjection::InUse { region: name(), holders });
        }
        if let Some(lease) = self.leases.valid.get(region).filter(|lease| lease.domain != domain) {
            let (owner, until) = (lease.domain.clone(), Moment(lease.expires));
            return Some(LeaseObjection::Taken { region: name(), owner, until });
        }
        if let Some(problem) = self.leases.broken.get(region) {
            return Some(LeaseObjection::Broken { region: name(), problem: problem.clone() });
        }
        let is_unknown = row.capacity.state == State::Unknown;
        is_unknown.then(|| LeaseObjection::Unknown { region: name() })
    }

    /// Those objections that count.
    pub(crate) fn objections(
        &self,
        report: &Report,
        regions: &BTreeSet<RegionName>,
        domain: &str,
        force: bool,
    ) -> Vec<LeaseObjection> {
        let objections = regions.iter().filter_map(|region| self.objection(report, region, domain));
        objections.filter(|objection| !(force && objection.can_be_forced())).collect()
    }
}
