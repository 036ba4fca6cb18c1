//! Gives a domain another region: the devices that are there name it and its GPUs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Moved, elements};
use crate::domain::edit::Edit;
use crate::domain::xml::{child, children, find};
use crate::domain::{self, Domain, EgmDevice, Hostdev, Maybe};
use crate::host::{NotFound, Region};
use crate::report::Report;
use crate::values::{IdList, PciAddress, RegionName};

/// The reason why a domain cannot use another region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unmovable {
    /// The region does not exist.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The domain has no EGM of a region, or of the requested one.
    #[error("the domain has no EGM of {}", .0.as_ref().map_or("another region", |it| it.as_str()))]
    Nothing(Option<RegionName>),
    /// The domain has several regions.
    #[error("the domain has EGM of {}; say which one with --region", .0.join(" and "))]
    Several(Vec<String>),
    /// The domain has EGM of that region already.
    #[error("the domain already has EGM of {0}")]
    Already(RegionName),
    /// The region has fewer GPUs.
    #[error("{region} has {has} GPUs, and the domain uses {needs} of the other region")]
    Gpus {
        /// The region.
        region: RegionName,
        /// How many GPUs it has.
        has: usize,
        /// How many the domain needs.
        needs: usize,
    },
}

/// Moves the EGM devices of a region to another, each with its GPU: the first of one region becomes the
/// first of the other. Aliases, addresses in the guest, sizes and cells stay.
pub(super) fn relocate(
    report: &Report,
    document: &domain::Document<'_>,
    from: Option<&RegionName>,
    to: &RegionName,
) -> Result<Moved, Unmovable> {
    let host = &report.host;
    let new = host.find_region(to)?;
    let domain = document.domain();
    let region_of = |device: &EgmDevice| -> Option<RegionName> {
        device.path.as_ref()?.text.rsplit('/').next()?.parse().ok()
    };
    let mut by_region: BTreeMap<RegionName, Vec<&EgmDevice>> = BTreeMap::new();
    for device in &domain.egm {
        if let Some(region) = region_of(device) {
            by_region.entry(region).or_default().push(device);
        }
    }
    if by_region.contains_key(to) {
        return Err(Unmovable::Already(to.clone()));
    }
    let old = match (from, by_region.len()) {
        (Some(from), _) => from.clone(),
        (None, 1) => by_region.keys().next().ok_or(Unmovable::Nothing(None))?.clone(),
        (None, 0) => return Err(Unmovable::Nothing(None)),
        (None, _) => {
            return Err(Unmovable::Several(by_region.keys().map(ToString::to_string).collect()));
        }
    };
    let devices = by_region.remove(&old).ok_or_else(|| Unmovable::Nothing(Some(old.clone())))?;
    let gpus = gpus_for(domain, &devices, host.find_region(&old).ok(), new)?;
    let xml = document.xml();
    let mut edit = Edit::of(xml, None);
    for device in &devices {
        let node = xml.get_node(device.node);
        let path = new.device.path.to_string_lossy();
        if let Some(node) = node.and_then(|node| find(node, &["source", "path"])) {
            edit.set_text(node, &path);
        }
    }
    for (old, new) in &gpus {
        let node = domain.hostdev(*old).and_then(|hostdev| xml.get_node(hostdev.node));
        let address = node.and_then(|node| find(node, &["source", "address"]));
        let Some(address) = address else { continue };
        for (name, value) in elements::address_parts(*new) {
            edit.set_attribute(address, name, &value);
        }
    }
    let old = host.find_region(&old).ok();
    move_pins(document, &devices, report, old, new, &mut edit);
    move_policy(document, &devices, old, new, &mut edit);
    Ok(Moved { xml: edit.apply(), gpus: gpus.into_values().collect() })
}

/// Pins the virtual CPUs that are near to the old region to the CPUs at the same places of the new
/// region's node. Without known CPUs, they stay where they are.
fn move_pins(
    document: &domain::Document<'_>,
    devices: &[&EgmDevice],
    report: &Report,
    old: Option<&Region>,
    new: &Region,
    edit: &mut Edit<'_>,
) {
    let cells: BTreeSet<u32> = devices.iter().filter_map(|device| device.cell.known()).collect();
    let near = document.domain().cells.iter();
    let near = near.filter(|cell| cell.id.value.is_some_and(|id| cells.contains(&id)));
    let near: Vec<IdList> = near.filter_map(|cell| cell.cpus.known()).collect();
    let cpus = |region: &Region| {
        let node = report.host.topology.nodes.get(&region.numa_node?)?;
        Some(node.cpus.as_ref()?.iter().collect::<Vec<u32>>())
    };
    let Some((here, there)) = old.and_then(cpus).zip(cpus(new)) else { return };
    let places: BTreeMap<u32, u32> = here.into_iter().zip(there).collect();
    for pin in &document.domain().pins {
        let vcpu = pin.vcpu.known();
        if !vcpu.is_some_and(|vcpu| near.iter().any(|cpus| cpus.contains(vcpu))) {
            continue;
        }
        let place = |cpu: u32| places.get(&cpu).copied();
        let cpus = pin.cpus.value.as_ref();
        let moved = cpus.and_then(|cpus| cpus.iter().map(place).collect::<Option<IdList>>());
        if let Some((moved, node)) = moved.zip(document.xml().get_node(pin.node)) {
            edit.set_attribute(node, "cpuset", &moved.to_string());
        }
    }
}

/// Takes the memory of the moved cells from the new region's node if it was taken from the old one's.
fn move_policy(
    document: &domain::Document<'_>,
    devices: &[&EgmDevice],
    old: Option<&Region>,
    new: &Region,
    edit: &mut Edit<'_>,
) {
    let nodes = old.and_then(|old| old.numa_node).zip(new.numa_node);
    let Some((from, to)) = nodes.map(|(from, to)| (from.to_string(), to.to_string())) else {
        return;
    };
    let policy = child(document.element(), "numatune");
    let of_cells = children(policy, "memnode").filter(|node| {
        let cell = node.attribute("cellid").and_then(|id| id.trim().parse().ok());
        cell.is_some_and(|cell: u32| devices.iter().any(|it| it.cell.known() == Some(cell)))
    });
    // It is for all cells.
    let is_whole = devices.len() == document.domain().egm.len();
    let of_all = children(policy, "memory").filter(|_| is_whole);
    for node in of_cells.chain(of_all) {
        if node.attribute("nodeset").is_some_and(|nodes| nodes.trim() == from) {
            edit.set_attribute(node, "nodeset", &to);
        }
    }
}

/// The new GPU for each of the domain.
fn gpus_for(
    domain: &Domain,
    devices: &[&EgmDevice],
    old: Option<&Region>,
    new: &Region,
) -> Result<BTreeMap<PciAddress, PciAddress>, Unmovable> {
    let hostdevs = devices.iter().copied().filter_map(domain.find_hostdev());
    let used: BTreeSet<PciAddress> = hostdevs.filter_map(Hostdev::pci).collect();
    let addresses = |region: &Region| region.gpus.iter().map(|gpu| gpu.address).collect::<Vec<_>>();
    let candidates = addresses(new);
    let of_old = old.map(addresses).filter(|of_old| {
        of_old.len() == candidates.len() && used.iter().all(|gpu| of_old.contains(gpu))
    });
    let before = of_old.unwrap_or_else(|| used.iter().copied().collect());
    if used.len() > candidates.len() {
        let region = new.name.clone();
        return Err(Unmovable::Gpus { region, has: candidates.len(), needs: used.len() });
    }
    let pairs = before.into_iter().zip(candidates);
    Ok(pairs.filter(|(old, _)| used.contains(old)).collect())
}
