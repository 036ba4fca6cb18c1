//! Empty cells of a domain that nothing names, such as those of a GPU whose `<hostdev>` was deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::Request;
use super::naming::Named;
use crate::check::CELLS_LIMIT;
use crate::domain::{Cell, Domain, Maybe};
use crate::values::{Bytes, IdList, PciAddress};

/// The number of NUMA nodes that a Grace GPU needs for its memory.
pub(crate) const GPU_CELLS: u32 = 8;

/// The empty cells that nothing names. None if other memory devices or arguments for QEMU, whose
/// cells are not known here, may name some.
pub(crate) fn of(domain: &Domain) -> BTreeSet<u32> {
    let is_unsure = !domain.other_memory.is_empty()
        || domain.arguments_name_cells()
        || domain.hostdevs.iter().any(|it| it.cells.is_some() && it.cells.known().is_none());
    if is_unsure {
        return BTreeSet::new();
    }
    let is_empty = |cell: &&Cell| cell.cpus.is_none() && cell.memory.known() == Some(Bytes(0));
    let nodesets = || domain.hostdevs.iter().filter_map(|hostdev| hostdev.cells.known());
    let mut used: BTreeSet<u32> = domain.egm.iter().filter_map(|it| it.cell.known()).collect();
    used.extend(domain.pci_controllers.iter().filter_map(|it| it.target.node.known()));
    used.extend(domain.placed_cells.iter().filter_map(|(cell, _)| cell.value));
    let empty = domain.cells.iter().filter(is_empty).filter_map(|cell| cell.id.value);
    let is_orphan = |id: &u32| {
        usize::try_from(*id).is_ok_and(|id| id < CELLS_LIMIT)
            && !used.contains(id)
            && !nodesets().any(|list| list.contains(*id))
    };
    empty.filter(is_orphan).collect()
}

/// Cells in sets of `each` in a row. In a longer row the first cells are left out, because a
/// region's cell is before those of its GPUs.
pub(crate) fn sets(cells: &BTreeSet<u32>, each: u32) -> Vec<RangeInclusive<u32>> {
    let mut rows: Vec<(u32, u32)> = Vec::new();
    for cell in cells {
        match rows.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cell) => *last = *cell,
            _ => rows.push((*cell, *cell)),
        }
    }
    let mut sets = Vec::new();
    for (first, last) in rows {
        let length = (last - first).saturating_add(1);
        let Some(over) = length.checked_rem(each) else { continue };
        let sets_of_row = (0..length / each).map(|set| first + over + set * each);
        sets.extend(sets_of_row.map(|start| start..=start + (each - 1)));
    }
    sets
}

/// The orphans that GPUs get: a set for each one without cells, in order. With `replace`, also
/// those that a GPU with too few cells lacks before or after its own.
pub(super) fn reuse(
    request: &Request,
    domain: Option<&Domain>,
    named: &[Named<'_>],
) -> BTreeMap<PciAddress, IdList> {
    let (each, mut reused) = (request.gpu_cells, BTreeMap::new());
    let Some(domain) = domain.filter(|_| each > 0) else { return reused };
    let mut orphans = of(domain);
    let gpus: BTreeSet<_> = named.iter().map(|named| named.gpu).collect();
    let cells_of = |gpu| domain.hostdev(gpu).and_then(|hostdev| hostdev.cells.as_ref());
    for gpu in gpus.iter().filter(|_| request.machine.replace) {
        let Some(own) = cells_of(*gpu).and_then(|cells| cells.value.as_ref()) else { continue };
        if let Some(more) = missing(own, each, &orphans) {
            orphans.retain(|cell| !more.contains(cell));
            reused.insert(*gpu, own.with(&std::iter::once(more).collect()));
        }
    }
    let lacking = gpus.into_iter().filter(|gpu| cells_of(*gpu).is_none());
    let sets = sets(&orphans, each).into_iter().map(|set| std::iter::once(set).collect());
    reused.extend(lacking.zip(sets));
    reused
}

/// The orphans next to a row of cells that make it as long as it should be.
fn missing(own: &IdList, each: u32, orphans: &BTreeSet<u32>) -> Option<RangeInclusive<u32>> {
    let (first, last) = (own.iter().next()?, own.last()?);
    let length = u32::try_from(own.len()).ok()?;
    let lacking = each.checked_sub(length).filter(|lacking| *lacking > 0)?;
    let is_row = u64::from(last - first) + 1 == own.len();
    let after = last.checked_add(1).zip(last.checked_add(lacking));
    let before = first.checked_sub(lacking).zip(first.checked_sub(1));
    let mut candidates = [after, before].into_iter().flatten().filter(|_| is_row);
    let (from, to) =
        candidates.find(|(from, to)| (*from..=*to).all(|cell| orphans.contains(&cell)))?;
    Some(from..=to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_at_the_end_of_their_row() {
        let sets = |cells: &[RangeInclusive<u32>], each| {
            sets(&cells.iter().cloned().flatten().collect(), each)
        };
        assert_eq!(sets(&[0..=17], 8), [2..=9, 10..=17]);
        assert_eq!(sets(&[1..=1, 3..=9, 11..=18], 8), [11..=18]);
        assert!(sets(&[], 8).is_empty() && sets(&[0..=7], 0).is_empty());
    }

    #[test]
    fn a_cell_that_something_may_name_is_no_orphan() {
        let domain = |devices: &str| {
            Domain::parse(&format!(
                "<domain><cpu><numa><cell id='0' cpus='0' memory='0'/><cell id='1' memory='1'/>\
                 <cell id='2' memory='0'/><cell id='3' memory='0'/></numa></cpu>\
                 <devices>{devices}</devices></domain>"
            ))
            .unwrap()
        };
        let orphans = |devices: &str| of(&domain(devices)).into_iter().collect::<Vec<_>>();
        assert_eq!(orphans(""), [2, 3]);
        let hostdev = |cells| format!("<hostdev type='pci'><acpi nodeset='{cells}'/></hostdev>");
        assert_eq!(orphans(&hostdev("2")), [3]);
        assert!(orphans(&hostdev("2-")).is_empty(), "it may name any");
        let bus = "<controller type='pci' index='1' model='pcie-expander-bus'>\
                   <target><node>3</node></target></controller>";
        assert_eq!(orphans(bus), [2]);
        let dimm = "<memory model='dimm'><target><size>1</size><node>2</node></target></memory>";
        assert!(orphans(dimm).is_empty());
    }
}
