//! The distribution of virtual CPUs over the guest's NUMA cells.

use std::collections::BTreeMap;

use crate::domain::{Domain, Maybe};
use crate::values::IdList;

/// Distributes virtual CPUs over cells, in order; the first cells get the remainder.
pub(crate) fn share(vcpus: u32, cells: impl IntoIterator<Item = u32>) -> BTreeMap<u32, IdList> {
    let cells: Vec<_> = cells.into_iter().collect();
    let Some(count) = u32::try_from(cells.len()).ok().filter(|count| *count > 0) else {
        return BTreeMap::new();
    };
    let (each, over) = (vcpus / count, vcpus % count);
    let mut next = 0;
    let shares = (0..).zip(cells).filter_map(|(index, cell)| {
        let first = next;
        next = first + each + u32::from(index < over);
        let last = next.checked_sub(1).filter(|last| *last >= first)?;
        Some((cell, std::iter::once(first..=last).collect()))
    });
    shares.collect()
}

/// Whether the virtual CPUs of a domain are distributed as [`share`] does.
pub(crate) fn are_shared(domain: &Domain) -> bool {
    let of_cell = |cell: &crate::domain::Cell| Some((cell.id.value?, cell.cpus.known()?));
    let cells: BTreeMap<_, _> = domain.cells.iter().filter_map(of_cell).collect();
    domain.vcpus.known().is_some_and(|vcpus| share(vcpus, cells.keys().copied()) == cells)
}

/// Whether the cells of a domain have each of its virtual CPUs, and no others.
pub(crate) fn are_in_cells(domain: &Domain) -> bool {
    let Some(vcpus) = domain.vcpus.known() else { return true };
    let of_cells = domain.cells.iter().filter_map(|cell| cell.cpus.known());
    let of_cells = of_cells.fold(IdList::default(), |all, cpus| all.with(&cpus));
    of_cells == vcpus.checked_sub(1).map(|last| 0..=last).into_iter().collect()
}
