//! The rule for the matrix of distances between the guest's cells.

use std::collections::BTreeSet;

use super::rules::{CELLS, DISTANCES, MATRIX};
use super::{CELLS_LIMIT, Findings};
use crate::domain::{Domain, Maybe};
use crate::values::text::plural;

/// Finds pairs of cells that have no distance in either direction: libvirt uses the opposite one if
/// a direction is missing (`virDomainNumaDefNodeDistanceParseXML`, `src/conf/numa_conf.c`).
pub(super) fn check(domain: &Domain, findings: &mut Findings) {
    let mut given = BTreeSet::new();
    for cell in &domain.cells {
        let siblings = cell.distances.iter().filter_map(|distance| distance.cell.known());
        given.extend(siblings.zip(std::iter::repeat(cell.id.value)).filter_map(|(to, from)| {
            let from = from?;
            Some((from.min(to), from.max(to)))
        }));
    }
    if given.is_empty() || findings.has(&[CELLS, DISTANCES]) {
        return;
    }
    let cells: Vec<_> = domain.cells.iter().take(CELLS_LIMIT).collect();
    let (mut first, mut count) = (None, 0_u32);
    for (position, cell) in cells.iter().enumerate() {
        for other in cells.iter().skip(position + 1) {
            let Some((a, b)) = cell.id.value.zip(other.id.value) else { continue };
            if !given.contains(&(a.min(b), a.max(b))) {
                first = first.or(Some((other, a, b)));
                count += 1;
            }
        }
    }
    if let Some((other, a, b)) = first {
        let pairs = plural(count, "pair");
        let message = format!("{pairs} of cells without a distance, such as {a} and {b}");
        let help = format!("<sibling id='{a}' value='..'/> in cell {b}, or no <distances> at all");
        findings.add(MATRIX, &other.span, message).help(help);
    }
}
