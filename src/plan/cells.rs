//! The guest's NUMA cells: their regions and virtual CPUs.

use std::collections::{BTreeMap, BTreeSet};

use super::naming::Named;
use super::{
    MachineObjection, Objection, Placement, PlannedCell, Request, Rest, RestDevice, vcpus,
};
use crate::check::CELLS_LIMIT;
use crate::domain::{self, Domain, EgmDevice, Hostdev, Maybe};
use crate::values::{Bytes, IdList, PciAddress, RegionName};

/// The cell of each region of a plan: the requested one, the one that it already backs, or the first
/// free one.
pub(super) fn assign<'a>(
    request: &Request,
    domain: Option<&Domain>,
    rest: &Rest<'_>,
    named: &[Named<'a>],
    reused: &BTreeMap<PciAddress, IdList>,
    objections: &mut Vec<Objection>,
) -> BTreeMap<&'a RegionName, u32> {
    let mut cells = BTreeMap::new();
    if named.is_empty() {
        return cells;
    }
    let regions: BTreeMap<_, _> =
        named.iter().map(|gpu| (&gpu.region.name, gpu.path.as_str())).collect();
    for node in &request.guest_nodes {
        match &node.region {
            Some(region) if !regions.contains_key(region) => {
                let region = region.clone();
                objections.push(Objection::NotChosen { region, cell: node.cell });
            }
            None if regions.len() > 1 => {
                let regions = regions.into_keys().cloned().collect();
                objections.push(Objection::WhichRegion { cell: node.cell, regions });
                return cells;
            }
            _ => {}
        }
    }
    let of_gpus = domain.map(|domain| gpu_cells(domain, named)).unwrap_or_default();
    // The path of the region that each cell belongs to.
    let taken = rest.devices.iter().filter_map(|RestDevice { device, .. }| {
        Some((device.cell.known()?, device.path.as_ref()?.text.as_str()))
    });
    let mut taken: BTreeMap<_, _> = taken.collect();
    for (&region, &path) in &regions {
        let asked = request.guest_nodes.iter().rev();
        let asked = asked.filter(|node| node.region.as_ref().is_none_or(|name| name == region));
        let asked = asked.map(|node| node.cell).next();
        // Identified by its path, or by the GPU of a device with another path. If one of them is by
        // mistake in the cell of another region, the cell of the others is meant.
        let backed = || {
            let is_its = |device: &&EgmDevice| {
                device.path.as_ref().is_some_and(|found| found.text == path)
                    || named.iter().any(|gpu| gpu.region.name == *region && gpu.has(device))
            };
            let devices = domain.into_iter().flat_map(|domain| &domain.egm);
            let (own, others): (Vec<_>, Vec<_>) = devices.partition(is_its);
            let is_own =
                |cell: &u32| others.iter().all(|device| device.cell.known() != Some(*cell));
            let mut cells = own.iter().filter_map(|device| device.cell.known());
            cells.clone().find(is_own).or_else(|| cells.next())
        };
        let Some(cell) = asked.or_else(backed) else { continue };
        if usize::try_from(cell).map_or(true, |cell| cell >= CELLS_LIMIT) {
            objections.push(Objection::CellBeyond { cell, last: CELLS_LIMIT - 1 });
            return BTreeMap::new();
        }
        match taken.get(&cell) {
            Some(other) if *other != path => {
                let (first, second) = ((*other).to_owned(), region.clone());
                objections.push(Objection::CellOfTwo { cell, first, second });
            }
            _ if of_gpus.contains(&cell) => {
                objections.push(Objection::CellOfGpu { cell, region: region.clone() });
            }
            _ => {}
        }
        taken.insert(cell, path);
        cells.insert(region, cell);
    }
    // Arguments for QEMU may name them for GPUs.
    let unsure = domain.filter(|domain| domain.arguments_name_cells()).map(empty_cells);
    let unsure = unsure.unwrap_or_default();
    for (region, path) in regions {
        if !cells.contains_key(region) {
            let is_left = |cell: &u32| {
                !taken.contains_key(cell)
                    && !of_gpus.contains(cell)
                    && !unsure.contains(cell)
                    && !reused.values().any(|cells| cells.contains(*cell))
            };
            let Some(cell) = (0..=u32::MAX).find(is_left) else { continue };
            taken.insert(cell, path);
            cells.insert(region, cell);
        }
    }
    cells
}

/// The cells for the memory of GPUs, by `<acpi nodeset>`.
///
/// Other devices, such as NICs, name the cell of the CPUs near them, which has memory of its own
/// (VEP-199 of `KubeVirt`), so their nodesets count only if all cells are empty.
fn gpu_cells(domain: &Domain, named: &[Named<'_>]) -> BTreeSet<u32> {
    let aliases: BTreeSet<_> = domain
        .egm
        .iter()
        .filter_map(|device| Some(device.pci_dev.as_ref()?.text.as_str()))
        .collect();
    let is_gpu = |hostdev: &Hostdev| {
        let alias = hostdev.alias.as_ref().map(|alias| alias.text.as_str());
        alias.is_some_and(|alias| aliases.contains(alias))
            || named.iter().any(|named| hostdev.pci() == Some(named.gpu))
    };
    let empty = empty_cells(domain);
    let nodesets = domain.hostdevs.iter().filter_map(|hostdev| {
        let cells = hostdev.cells.as_ref()?.value.as_ref()?;
        let mut each = cells.iter().take(CELLS_LIMIT);
        (is_gpu(hostdev) || each.all(|cell| empty.contains(&cell))).then_some(cells)
    });
    nodesets.flat_map(|cells| cells.iter().take(CELLS_LIMIT)).collect()
}

/// The cells without memory.
fn empty_cells(domain: &Domain) -> BTreeSet<u32> {
    let empty = domain.cells.iter().filter(|cell| cell.memory.known() == Some(Bytes(0)));
    empty.filter_map(|cell| cell.id.value).collect()
}

/// The cells of a guest, and its virtual CPUs.
pub(super) struct Cells {
    pub(super) all: Vec<PlannedCell>,
    pub(super) vcpus: Option<u32>,
    pub(super) shares_vcpus: bool,
    /// Whether those of the domain may get other cells.
    pub(super) moves_vcpus: bool,
}

/// All cells of the guest.
pub(super) fn cells(
    request: &Request,
    domain: Option<&Domain>,
    rest: &Rest<'_>,
    placements: &[Placement],
    objections: &mut Vec<Objection>,
) -> Cells {
    let of_gpus = placements.iter().filter_map(|it| it.gpu_cells.as_ref()).flat_map(IdList::iter);
    let mut cells: BTreeMap<_, _> = of_gpus.map(|id| (id, empty(id))).collect();
    for cell in domain.into_iter().flat_map(|domain| &domain.cells) {
        if let Some(id) = cell.id.value {
            let memory = cell.memory.known().unwrap_or(Bytes(0));
            let cpus = cell.cpus.known();
            cells.insert(id, PlannedCell { id, memory, cpus });
        }
    }
    // Former EGM must not become ordinary memory of the host.
    for device in domain.into_iter().flat_map(|domain| &domain.egm) {
        let cell = device.cell.known();
        if let Some(cell) = cell.and_then(|id| cells.get_mut(&id)) {
            cell.memory = Bytes(0);
        }
    }
    for (id, memory) in backed(rest, placements) {
        cells.entry(id).or_insert_with(|| empty(id)).memory = memory;
    }
    let vcpus = domain.and_then(|domain| domain.vcpus.known());
    let vcpus = request.vcpus.or(vcpus).filter(|vcpus| *vcpus > 0);
    let of_domain = || domain.into_iter().flat_map(|domain| &domain.cells);
    let has_cpus = of_domain().any(|cell| cell.cpus.is_some());
    let lacks_cpus = |cell: &PlannedCell| cell.memory.0 > 0 && cell.cpus.is_none();
    // Keep existing assignments, even invalid ones, unless they are those of an earlier plan.
    let is_open = match domain {
        _ if request.vcpus.is_some() || !has_cpus => true,
        Some(domain) if request.machine.replace && !vcpus::are_in_cells(domain) => true,
        Some(domain) if cells.values().any(lacks_cpus) => {
            request.machine.replace || vcpus::are_shared(domain)
        }
        _ => false,
    };
    let has_memory = |id: u32| {
        let mut same = of_domain().filter(|cell| cell.id.value == Some(id));
        same.any(domain::Cell::has_memory)
    };
    let is_new = |cell: &PlannedCell| lacks_cpus(cell) && !has_memory(cell.id);
    // Only a whole guest is refused; the rules report other cells without CPUs.
    if !is_open && request.gpu_cells > 0 && cells.values().any(is_new) {
        objections.push(MachineObjection::OwnDistribution.into());
    }
    let shared = vcpus.filter(|_| is_open);
    if let Some(vcpus) = shared {
        let with_memory = cells.values().filter(|cell| cell.memory.0 > 0).map(|cell| cell.id);
        let mut by_cell = vcpus::share(vcpus, with_memory);
        for cell in cells.values_mut() {
            cell.cpus = by_cell.remove(&cell.id);
        }
    }
    Cells {
        all: cells.into_values().collect(),
        vcpus,
        shares_vcpus: shared.is_some(),
        moves_vcpus: shared.is_some() && has_cpus,
    }
}

/// The cells, with empty ones added for missing numbers; unchanged if there would be too many.
pub(super) fn filled(cells: Vec<PlannedCell>) -> Vec<PlannedCell> {
    let last = cells.last().map_or(0, |cell| cell.id);
    if usize::try_from(last).map_or(true, |last| last >= CELLS_LIMIT) {
        return cells;
    }
    let mut by_id: BTreeMap<_, _> = cells.into_iter().map(|cell| (cell.id, cell)).collect();
    for id in 0..last {
        by_id.entry(id).or_insert_with(|| empty(id));
    }
    by_id.into_values().collect()
}

fn empty(id: u32) -> PlannedCell {
    PlannedCell { id, memory: Bytes(0), cpus: None }
}

/// The EGM of each cell: the sum of its devices.
fn backed(rest: &Rest<'_>, placements: &[Placement]) -> BTreeMap<u32, Bytes> {
    let planned = placements.iter().map(|placement| (placement.cell, placement.size));
    let mut sums: BTreeMap<u32, Bytes> = BTreeMap::new();
    for (cell, size) in rest.cells().chain(planned) {
        let sum = sums.entry(cell).or_insert(Bytes(0));
        *sum = Bytes(sum.0.saturating_add(size.0));
    }
    sums
}

/// Cells for the GPUs' own memory: reused ones unless a region gets one of them, or new ones after
/// all others. Existing cells of a GPU are kept.
pub(super) fn for_gpus(
    request: &Request,
    domain: Option<&Domain>,
    rest: &Rest<'_>,
    named: &[Named<'_>],
    nodes: &BTreeMap<&RegionName, u32>,
    mut reused: BTreeMap<PciAddress, IdList>,
    objections: &mut Vec<Objection>,
) -> BTreeMap<PciAddress, IdList> {
    let each = request.gpu_cells;
    reused.retain(|_, cells| !nodes.values().any(|node| cells.contains(*node)));
    let has_some = |gpu| {
        let hostdev = domain.and_then(|domain| domain.hostdev(gpu));
        reused.contains_key(&gpu) || hostdev.is_some_and(|hostdev| hostdev.cells.is_some())
    };
    let lacking = named.iter().map(|named| named.gpu).filter(|gpu| each > 0 && !has_some(*gpu));
    let lacking: BTreeSet<_> = lacking.collect();
    let of_domain = domain.into_iter().flat_map(|domain| &domain.cells);
    let cells = of_domain.filter_map(|cell| cell.id.value).chain(nodes.values().copied());
    let cells: BTreeSet<_> = cells.chain(rest.cells().map(|(cell, _)| cell)).collect();
    let new = usize::try_from(each).unwrap_or(usize::MAX).saturating_mul(lacking.len());
    let count = new.saturating_add(cells.len());
    if count > CELLS_LIMIT {
        objections.push(Objection::TooManyCells { cells: count, limit: CELLS_LIMIT });
        return BTreeMap::new();
    }
    let mut next = cells.last().map_or(0, |last| last.saturating_add(1));
    let of_gpu = |gpu| {
        let first = next;
        next = first.saturating_add(each);
        (gpu, (first..next).collect())
    };
    reused.extend(lacking.into_iter().map(of_gpu));
    reused
}
