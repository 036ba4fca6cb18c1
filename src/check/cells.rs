//! The rules of the guest's memory, NUMA cells and virtual CPUs.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{CELL_SUM, CELLS, GPU_CELLS, MAX_MEMORY, TOPOLOGY, TOTAL, VCPUS};
use super::{Findings, Subject};
use crate::domain::{Cell, Domain};
use crate::id_list::IdList;
use crate::text::excerpt;

const SHOWN: usize = 80;

/// More cells than this QEMU does not have.
const CELLS_LIMIT: usize = 128;

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let domain = subject.domain;
    check_numbers(domain, findings);
    check_sums(domain, findings);
    check_total(domain, findings);
    check_vcpus(domain, findings);
    check_gpu_cells(subject, findings);
}

fn check_numbers(domain: &Domain, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for cell in &domain.cells {
        let text = excerpt(&cell.id.text, SHOWN);
        match cell.id.value {
            None => {
                findings.add(CELLS, &cell.id.span, format!("`{text}` is not the number of a cell"));
            }
            Some(id) if !seen.insert(id) => {
                findings.add(CELLS, &cell.id.span, format!("a second cell {id}"));
            }
            Some(id) if usize::try_from(id).is_ok_and(|id| id >= domain.cells.len()) => {
                let last = domain.cells.len().saturating_sub(1);
                let message = format!("cell {id} of {} cells", domain.cells.len());
                findings.add(CELLS, &cell.id.span, message).help(format!("0 to {last}, each once"));
            }
            Some(_) => {}
        }
    }
}

fn check_sums(domain: &Domain, findings: &mut Findings) {
    let mut sums: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for device in &domain.egm {
        let Some(id) = device.cell.as_ref().and_then(|cell| cell.value) else { continue };
        let size = device.size.as_ref().and_then(|size| size.value);
        let sum = sums.entry(id).or_insert(Some(0));
        *sum = sum.zip(size).map(|(sum, size)| sum.saturating_add(size.0));
    }
    for cell in &domain.cells {
        let sum = cell.id.value.and_then(|id| sums.get(&id).copied());
        let (Some(memory), Some(Some(sum))) = (&cell.memory, sum) else {
            check_memory(cell, findings);
            continue;
        };
        if memory.value.is_none_or(|memory| memory.0 != sum) {
            let has =
                memory.value.map_or(format!("`{}`", excerpt(&memory.text, SHOWN)), |memory| {
                    format!("{} KiB", memory.0 >> 10)
                });
            let sum = sum >> 10;
            let message = format!("the cell has {has}, its EGM devices {sum} KiB");
            findings
                .add(CELL_SUM, &memory.span, message)
                .help(format!("memory='{sum}' unit='KiB'"));
        }
    }
}

fn check_memory(cell: &Cell, findings: &mut Findings) {
    match &cell.memory {
        None => {
            findings.add(CELL_SUM, &cell.span, "a cell without memory").help("memory='0'");
        }
        Some(memory) if memory.value.is_none() => {
            let message = format!("`{}` is not a size", excerpt(&memory.text, SHOWN));
            findings.add(CELL_SUM, &memory.span, message);
        }
        Some(_) => {}
    }
}

fn check_total(domain: &Domain, findings: &mut Findings) {
    let mut cells = domain.cells.iter().map(|cell| Some(cell.memory.as_ref()?.value?.0));
    let sum = cells.try_fold(0, |sum: u64, memory| Some(sum.saturating_add(memory?)));
    let sum = sum.filter(|_| !domain.cells.is_empty());
    let span = domain.memory.as_ref().map_or(&domain.span, |memory| &memory.span);
    let memory = domain.memory.as_ref().and_then(|memory| memory.value);
    if let Some(sum) = sum
        && memory.is_none_or(|memory| memory.0 != sum)
    {
        let has = memory.map_or("no <memory>".into(), |memory| format!("{} KiB", memory.0 >> 10));
        let sum = sum >> 10;
        let message = format!("the domain has {has}, its cells {sum} KiB");
        findings.add(TOTAL, span, message).help(format!("<memory unit='KiB'>{sum}</memory>"));
    }
    if let (Some(maximum), Some(memory)) = (&domain.max_memory, memory)
        && maximum.value.is_none_or(|maximum| maximum < memory)
    {
        let message = format!("the domain has {} KiB", memory.0 >> 10);
        findings.add(MAX_MEMORY, &maximum.span, message).help("as much or more");
    }
}

fn check_vcpus(domain: &Domain, findings: &mut Findings) {
    // Without <vcpu> there is one.
    let count = domain.vcpus.as_ref().map_or(Some(1), |vcpus| vcpus.value);
    let Some(count) = count else { return };
    let mut seen = IdList::default();
    for cell in &domain.cells {
        let Some(cpus) = &cell.cpus else { continue };
        let Some(list) = &cpus.value else {
            let message = format!("`{}` is not a list of CPUs", excerpt(&cpus.text, SHOWN));
            findings.add(VCPUS, &cpus.span, message).help("a list such as 0-3,8");
            continue;
        };
        if let Some(last) = list.last().filter(|last| *last >= count) {
            let message = format!("CPU {last} of {count} virtual CPUs");
            findings
                .add(VCPUS, &cpus.span, message)
                .help(format!("0 to {}", count.saturating_sub(1)));
        } else if let Some(twice) = list.first_common(&seen) {
            findings.add(VCPUS, &cpus.span, format!("CPU {twice} is in another cell, too"));
        }
        seen = seen.with(list);
    }
    if let Some(topology) = &domain.topology
        && topology.value != Some(count)
    {
        let makes = topology
            .value
            .map_or("more CPUs than there are".into(), |product| format!("{product} CPUs"));
        let message = format!("<topology> makes {makes}, <vcpu> says {count}");
        findings.add(TOPOLOGY, &topology.span, message);
    }
}

fn check_gpu_cells(subject: &Subject<'_>, findings: &mut Findings) {
    let mut owned = BTreeSet::new();
    for hostdev in &subject.domain.hostdevs {
        let Some(nodeset) = &hostdev.cells else { continue };
        let Some(list) = &nodeset.value else {
            let message = format!("`{}` is not a list of cells", excerpt(&nodeset.text, SHOWN));
            findings.add(GPU_CELLS, &nodeset.span, message).help("a list such as 2-9");
            continue;
        };
        let mut wrong = None;
        for id in list.iter().take(CELLS_LIMIT + 1) {
            let cell = subject.cells.get(&id);
            let memory = cell.and_then(|cell| cell.memory.as_ref()?.value);
            wrong = wrong.or(match cell {
                None => Some(format!("the guest has no NUMA cell {id}")),
                Some(_) if memory.is_some_and(|memory| memory.0 > 0) => {
                    Some(format!("cell {id} has memory"))
                }
                Some(_) if !owned.insert(id) => Some(format!("cell {id} is another device's, too")),
                Some(_) => None,
            });
        }
        if let Some(wrong) = wrong {
            findings.add(GPU_CELLS, &nodeset.span, wrong);
        }
    }
}
