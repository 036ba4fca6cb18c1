//! A host, the claims on its regions and their capacity, combined for output.

mod availability;
mod capacity;
mod changes;
mod sockets;

use std::path::Path;

use crate::claims::{Claim, Claims, Search, Sight};
use crate::host::{Accounts, Host, Needs, Region};
use crate::sysroot::{FileKind, Sysroot};

use crate::values::RegionName;
use crate::warning::Warning;
pub use availability::Availability;
pub(crate) use availability::labels;
pub use capacity::{Capacity, State};
pub use changes::{Event, Snapshot};
pub use sockets::{NodesFrom, Place, Socket, Sockets};

/// Everything that the commands show about a host.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Its regions, GPUs and NUMA nodes.
    pub host: Host,
    /// The claims on its regions.
    pub claims: Claims,
    /// Regions that the driver removed while processes held them, by name. Only their names and
    /// their holders are known.
    pub gone: Vec<Region>,
}

/// A region, its claims and its capacity.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Row<'a> {
    /// The region.
    pub region: &'a Region,
    /// The holders of the region, and its possible owners.
    pub claims: &'a [Claim],
    /// Its free memory.
    pub capacity: Capacity,
    /// Whether the driver removed the region.
    pub is_gone: bool,
}

impl Report {
    /// Reads the requested parts of a host; claims only with [`Needs::CLAIMS`].
    #[must_use]
    pub fn read(root: &Sysroot, needs: Needs) -> Self {
        Self::read_with(root, needs, &Accounts::of(root))
    }

    pub(crate) fn read_with(root: &Sysroot, needs: Needs, accounts: &Accounts<'_>) -> Self {
        // The offset of a mapping means something only with some layouts of the driver.
        let is_wanted = needs.contains(Needs::CLAIMS);
        let needs = if is_wanted { needs | Needs::GPUS } else { needs };
        Self::of(root, Host::read_with(root, needs, accounts), needs, accounts, None)
    }

    /// The report on a host; `last` is the previous search for processes.
    pub(crate) fn of(
        root: &Sysroot,
        host: Host,
        needs: Needs,
        accounts: &Accounts<'_>,
        last: Option<&Search>,
    ) -> Self {
        let claims = if needs.contains(Needs::CLAIMS) {
            Claims::read_with(root, &host.regions, accounts, last)
        } else {
            Claims::default()
        };
        Self::new(host, claims)
    }

    /// Combines the two: several holders of one region become a warning about the region.
    #[must_use]
    pub fn new(host: Host, claims: Claims) -> Self {
        let is_gone = |name: &&RegionName| host.region(name).is_none();
        let gone = claims.by_region.keys().filter(is_gone).map(Region::gone).collect();
        let mut report = Self { host, claims, gone };
        if report.host.is_changing && report.claims.sight == Sight::Complete {
            report.claims.sight = Sight::Partial;
        }
        let regions = report.host.regions.iter().chain(&report.gone);
        let warnings = |region| {
            report.availability(region, None).warnings(report.claims.search().is_sharing_known)
        };
        let warnings: Vec<_> = regions.map(warnings).collect();
        let regions = report.host.regions.iter_mut().chain(&mut report.gone);
        for (region, warnings) in regions.zip(warnings) {
            region.warnings.splice(0..0, warnings);
        }
        report
    }

    /// The region that a path other than its own leads to: a link, or another node with its number.
    #[must_use]
    pub fn region_by_other_name(&self, root: &Sysroot, path: &Path) -> Option<&Region> {
        let kind = root.stat(path).map(|stat| stat.kind);
        let is_its = |region: &&Region| {
            if let (Ok(FileKind::CharDevice(found)), Some(number)) = (&kind, region.device.number) {
                return *found == number;
            }
            // Compared as paths, because `/dev//egm4` is the same.
            let mut links = region.device.links.iter().flatten();
            region.device.path == path || links.any(|link| link == path)
        };
        let is_other = |region: &&Region| region.device.path.as_os_str() != path.as_os_str();
        self.host.regions.iter().filter(is_other).find(is_its)
    }

    /// The regions of the host, and those that are gone, in natural order of their names.
    #[must_use]
    pub fn regions(&self) -> Vec<&Region> {
        let mut regions: Vec<_> = self.host.regions.iter().chain(&self.gone).collect();
        if !self.gone.is_empty() {
            regions.sort_by_key(|region| &region.name);
        }
        regions
    }

    /// These regions with their claims.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.regions().into_iter().map(|region| self.row(region))
    }

    /// One region of this host with its claims.
    #[must_use]
    pub fn row<'a>(&'a self, region: &'a Region) -> Row<'a> {
        let claims = self.claims.of(&region.name);
        // Without the device number, a holder under another name is not recognised.
        let sight = match self.claims.sight {
            Sight::Complete if region.device.number.is_none() => Sight::Partial,
            // Any region may be reserved.
            _ if self.claims.leases_unread.is_some() => Sight::Partial,
            sight => sight,
        };
        let capacity = Capacity::of(region.size, claims, sight);
        let is_gone = self.gone.iter().any(|gone| gone.name == region.name);
        Row { region, claims, capacity, is_gone }
    }

    /// Warnings about the host as a whole.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.host.warnings.iter().chain(&self.claims.warnings)
    }
}
