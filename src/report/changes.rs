//! Changes on a host: snapshots, and the events between them. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::claims::Claim;
use crate::host::Needs;
use crate::report::{Report, State};
use crate::values::{Bytes, PciAddress, RegionName};

/// The state of a host, as far as changes are reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    regions: BTreeMap<RegionName, Seen>,
    /// The GPUs that exist, and their drivers.
    gpus: BTreeMap<PciAddress, Option<String>>,
}

/// The state of a region, as far as changes are reported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    size: Option<Bytes>,
    gpus: BTreeSet<PciAddress>,
    permission: Option<String>,
    state: State,
    holders: BTreeSet<String>,
    /// Whether the driver removed it: only the holders are left.
    is_gone: bool,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A region was added.
    RegionAdded {
        /// The region.
        region: RegionName,
        /// Its size.
        size: Option<Bytes>,
        /// Its GPUs.
        gpus: BTreeSet<PciAddress>,
    },
    /// A region was removed.
    RegionRemoved {
        /// The region.
        region: RegionName,
    },
    /// Size or GPUs changed.
    RegionChanged {
        /// The region.
        region: RegionName,
        /// Its size now.
        size: Option<Bytes>,
        /// Its GPUs now.
        gpus: BTreeSet<PciAddress>,
    },
    /// Mode or owner of the device changed.
    PermissionChanged {
        /// The region.
        region: RegionName,
        /// Mode and owner before; `None` if unknown.
        before: Option<String>,
        /// Mode and owner now.
        now: Option<String>,
    },
    /// A GPU was bound to a driver.
    GpuBound {
        /// The GPU.
        gpu: PciAddress,
        /// The driver.
        driver: String,
    },
    /// A GPU was unbound from its driver.
    GpuUnbound {
        /// The GPU.
        gpu: PciAddress,
        /// The previous driver.
        driver: String,
    },
    /// A GPU was added.
    GpuAdded {
        /// The GPU.
        gpu: PciAddress,
        /// The driver that it is bound to; `None` if it is unbound or the driver is unknown.
        driver: Option<String>,
    },
    /// A GPU was removed.
    GpuRemoved {
        /// The GPU.
        gpu: PciAddress,
    },
    /// A region was acquired: it is held, defined or reserved.
    HolderCame {
        /// The region.
        region: RegionName,
        /// The label as in `list`.
        holder: String,
    },
    /// A holder released a region.
    HolderWent {
        /// The region.
        region: RegionName,
        /// The label as in `list`.
        holder: String,
    },
    /// The state of a region changed.
    StateChanged {
        /// The region.
        region: RegionName,
        /// The state before.
        before: State,
        /// The state now.
        now: State,
    },
}

impl Snapshot {
    /// The parts of a host that a snapshot needs, for [`Report::read`].
    pub const NEEDS: Needs = Needs::OTHER_GPUS.union(Needs::CLAIMS).union(Needs::DEVICE_NODE);

    /// The state in a report, which must have been read with [`Snapshot::NEEDS`].
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let seen = |row: crate::report::Row<'_>| {
            let owner = row.region.device.owner.as_ref();
            let seen = Seen {
                size: row.region.size,
                gpus: row.region.gpus.iter().map(|gpu| gpu.address).collect(),
                permission: owner.map(ToString::to_string),
                state: row.capacity.state,
                holders: row.claims.iter().map(Claim::label).collect(),
                is_gone: row.is_gone,
            };
            (row.region.name.clone(), seen)
        };
        let gpus = report.host.gpus().filter(|(gpu, _)| gpu.is_there);
        let gpus = gpus.map(|(gpu, _)| (gpu.address, gpu.driver.name().map(str::to_owned)));
        Self { regions: report.rows().map(seen).collect(), gpus: gpus.collect() }
    }

    /// The state of a region; `None` if it does not exist.
    #[must_use]
    pub fn state(&self, region: &RegionName) -> Option<State> {
        self.regions.get(region).filter(|seen| !seen.is_gone).map(|seen| seen.state)
    }

    /// The regions that exist.
    pub fn regions(&self) -> impl Iterator<Item = &RegionName> {
        self.regions.iter().filter(|(_, seen)| !seen.is_gone).map(|(name, _)| name)
    }

    /// The changes from this snapshot to another.
    #[must_use]
    pub fn changes(&self, now: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        let names: BTreeSet<_> = self.regions.keys().chain(now.regions.keys()).collect();
        for region in names {
            changes_of(region, self.regions.get(region), now.regions.get(region), &mut events);
        }
        let gpus: BTreeSet<_> = self.gpus.keys().chain(now.gpus.keys()).copied().collect();
        for gpu in gpus {
            match (self.gpus.get(&gpu).cloned(), now.gpus.get(&gpu).cloned()) {
                (Some(before), Some(now)) if before != now => {
                    events.extend(before.map(|driver| Event::GpuUnbound { gpu, driver }));
                    events.extend(now.map(|driver| Event::GpuBound { gpu, driver }));
                }
                (None, Some(driver)) => events.push(Event::GpuAdded { gpu, driver }),
                (Some(_), None) => events.push(Event::GpuRemoved { gpu }),
                _ => {}
            }
        }
        events
    }
}

fn changes_of(
    region: &RegionName,
    before: Option<&Seen>,
    now: Option<&Seen>,
    events: &mut Vec<Event>,
) {
    let name = || region.clone();
    let none = BTreeSet::new();
    let holders_before = before.map_or(&none, |seen| &seen.holders);
    let holders_now = now.map_or(&none, |seen| &seen.holders);
    // A region that is gone has only holders.
    let [before, now] = [before, now].map(|seen| seen.filter(|seen| !seen.is_gone));
    if let (None, Some(Seen { size, gpus, .. })) = (before, now) {
        events.push(Event::RegionAdded { region: name(), size: *size, gpus: gpus.clone() });
    }
    let went = holders_before.difference(holders_now);
    events.extend(went.map(|it| Event::HolderWent { region: name(), holder: it.clone() }));
    let came = holders_now.difference(holders_before);
    events.extend(came.map(|it| Event::HolderCame { region: name(), holder: it.clone() }));
    match (before, now) {
        (Some(before), Some(now)) => {
            if (before.size, &before.gpus) != (now.size, &now.gpus) {
                let (size, gpus) = (now.size, now.gpus.clone());
                events.push(Event::RegionChanged { region: name(), size, gpus });
            }
            if before.permission != now.permission {
                let (before, now) = (before.permission.clone(), now.permission.clone());
                events.push(Event::PermissionChanged { region: name(), before, now });
            }
            if before.state != now.state {
                let (before, now) = (before.state, now.state);
                events.push(Event::StateChanged { region: name(), before, now });
            }
        }
        (Some(_), None) => events.push(Event::RegionRemoved { region: name() }),
        (None, _) => {}
    }
}
