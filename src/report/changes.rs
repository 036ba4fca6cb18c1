//! What changes on a host: two looks at it, and the events between them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::claims::Claim;
use crate::host::Needs;
use crate::report::{Report, State};
use crate::values::{Bytes, PciAddress, RegionName};

/// A host as far as its changes are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    regions: BTreeMap<RegionName, Seen>,
    gpus: BTreeMap<PciAddress, Option<String>>,
}

/// A region as far as its changes are told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    size: Option<Bytes>,
    gpus: BTreeSet<PciAddress>,
    permission: Option<String>,
    state: State,
    holders: BTreeSet<String>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A region came.
    RegionAdded {
        /// The region.
        region: RegionName,
        /// Its size.
        size: Option<Bytes>,
        /// Its GPUs.
        gpus: BTreeSet<PciAddress>,
    },
    /// A region went.
    RegionRemoved {
        /// The region.
        region: RegionName,
    },
    /// Its size or its GPUs are others.
    RegionChanged {
        /// The region.
        region: RegionName,
        /// Its size now.
        size: Option<Bytes>,
        /// Its GPUs now.
        gpus: BTreeSet<PciAddress>,
    },
    /// Mode or owner of its device are others.
    PermissionChanged {
        /// The region.
        region: RegionName,
        /// What they were; `None` where that was not known.
        before: Option<String>,
        /// What they are now.
        now: Option<String>,
    },
    /// A GPU was bound to a driver.
    GpuBound {
        /// The GPU.
        gpu: PciAddress,
        /// The driver.
        driver: String,
    },
    /// A GPU is bound to no driver any more, or has gone.
    GpuUnbound {
        /// The GPU.
        gpu: PciAddress,
        /// The driver that it was bound to.
        driver: String,
    },
    /// Somebody holds a region, is defined with it or has it reserved.
    HolderCame {
        /// The region.
        region: RegionName,
        /// As `list` shows it.
        holder: String,
    },
    /// Somebody does not any more.
    HolderWent {
        /// The region.
        region: RegionName,
        /// As `list` shows it.
        holder: String,
    },
    /// Whether a virtual machine can have it is another matter now.
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
    /// What the changes are of, for [`Report::read`].
    pub const NEEDS: Needs = Needs::OTHER_GPUS.union(Needs::CLAIMS).union(Needs::DEVICE_NODE);

    /// What a report shows, which must have been read with [`Snapshot::NEEDS`].
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let seen = |row: crate::report::Row<'_>| {
            let owner = row.region.device.owner.as_ref();
            let seen = Seen {
                size: row.region.size,
                gpus: row.region.gpus.iter().map(|gpu| gpu.address).collect(),
                permission: owner.map(|it| format!("{:04o} {}:{}", it.mode, it.user, it.group)),
                state: row.capacity.state,
                holders: row.claims.iter().map(Claim::label).collect(),
            };
            (row.region.name.clone(), seen)
        };
        let gpus = report.host.gpus();
        let gpus = gpus.map(|(gpu, _)| (gpu.address, gpu.driver.name().map(str::to_owned)));
        Self { regions: report.rows().map(seen).collect(), gpus: gpus.collect() }
    }

    /// The state of a region; `None` where it is not there.
    #[must_use]
    pub fn state(&self, region: &RegionName) -> Option<State> {
        self.regions.get(region).map(|seen| seen.state)
    }

    /// What changed from this to another.
    #[must_use]
    pub fn changes(&self, now: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        let names: BTreeSet<_> = self.regions.keys().chain(now.regions.keys()).collect();
        for region in names {
            changes_of(region, self.regions.get(region), now.regions.get(region), &mut events);
        }
        let gpus: BTreeSet<_> = self.gpus.keys().chain(now.gpus.keys()).copied().collect();
        for gpu in gpus {
            let driver = |of: &Self| of.gpus.get(&gpu).cloned().flatten();
            let (before, now) = (driver(self), driver(now));
            if before != now {
                events.extend(before.map(|driver| Event::GpuUnbound { gpu, driver }));
                events.extend(now.map(|driver| Event::GpuBound { gpu, driver }));
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
    let nobody = BTreeSet::new();
    let holders_before = before.map_or(&nobody, |seen| &seen.holders);
    let holders_now = now.map_or(&nobody, |seen| &seen.holders);
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
